"""Digits of 28x28 pixels, distorted, or several composed to one image."""

import dataclasses
import functools
from typing import Literal

import numpy as np

from attn import settings
from attn.data.digits import compositions, ink
from attn.data.digits.compositions import Composition
from attn.data.digits.distortions import DISTORTIONS, SIDE, Distortion
from attn.data.digits.pool import Pool
from attn.data.images import labelled, normalise
from attn.data.images.labelled import Images
from attn.data.source import Batch, Source


@dataclasses.dataclass(frozen=True)
class Digits:
    """Grey images of 28x28 pixels, such as MNIST's, plain, distorted or composed.

    "mnist_5k" prepares itself on first use; "mnist", "fashion_mnist" and "kmnist" are
    those of TensorFlow Datasets, of which `source` may name any other. Fields "image",
    "label", "objects" (the ink), and what else a composition makes.

    Attributes:
        name: of the data set.
        source: the data set of TFDS whose digits these are; "" for `name`.
        distortion: "none" or one of `attn.data.digits.distortions`.
        composition: instead of a distortion, of ten classes: "none" or one of
            `attn.data.digits.compositions`, which makes one example of several digits
            of the split.
        canvas: side in pixels of what a composition draws on, for those that leave
            it open; None for its usual one.
        image_size: side in pixels to which plain images are resized; None leaves them.
        directory: as of `attn.data.images.Classes`.
    """

    name: str
    source: str = ""
    distortion: str = "none"
    composition: str = "none"
    canvas: int | None = None
    image_size: settings.Positive | None = None
    directory: str = ""

    def __post_init__(self) -> None:
        if self.distortion not in ("none", *DISTORTIONS):
            raise settings.unknown(
                "distortion", self.distortion, ["none", *DISTORTIONS]
            )
        if self.composition != "none":
            compositions.create(self.composition, self.canvas)
            if self.distortion != "none":
                raise settings.Invalid(
                    f"composition {self.composition!r} distorts digits itself:"
                    f" distortion must be 'none', got {self.distortion!r}"
                )
        elif self.canvas is not None:
            raise settings.Invalid(
                f"canvas {self.canvas} needs a composition (valid:"
                f" {', '.join(compositions.COMPOSITIONS)})"
            )
        what = self._what()
        if what and self.image_size is not None:
            raise settings.Invalid(
                f"{what} settles the size of images: image_size must be None, got"
                f" {self.image_size}"
            )

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        name = self.source or self.name
        found = labelled.open_split(name, split, self.directory)
        statistics = normalise.statistics(name, found.shape[-1])
        if self._what():
            self._check(found)
        if self.composition != "none":
            return _composed(
                found, name, compositions.create(self.composition, self.canvas)
            )
        source = found.source(statistics, self.image_size)
        if self.distortion != "none":
            distortion = DISTORTIONS[self.distortion]
            read = functools.partial(_distorted, found, distortion)
            return dataclasses.replace(source, read=read, draws=distortion.draws)
        if found.shape[-1] != 1:
            return source
        return dataclasses.replace(source, read=functools.partial(_inked, source.read))

    def _what(self) -> str:
        """The distortion or composition, for errors; "" for none."""
        if self.composition != "none":
            return f"composition {self.composition!r}"
        return f"distortion {self.distortion!r}" if self.distortion != "none" else ""

    def _check(self, found: Images) -> None:
        """Refuses images that are no digits, or are not ten classes of them."""
        if found.shape != (SIDE, SIDE, 1):
            shape = "x".join("any" if n is None else str(n) for n in found.shape)
            raise settings.Invalid(
                f"{self._what()} is of {SIDE}x{SIDE} grey digits, but images of data"
                f" set {self.source or self.name!r} are {shape}"
            )
        if found.pixels is None:
            raise settings.Invalid(
                f"{self._what()} needs digits that fit in memory: those of data set"
                f" {self.source or self.name!r} do not"
            )
        if self.composition != "none" and len(found.class_names) != 10:
            raise settings.Invalid(
                f"{self._what()} is of ten digits, but data set"
                f" {self.source or self.name!r} has {len(found.class_names)} classes"
            )


@dataclasses.dataclass(frozen=True)
class DigitsScene(Digits):
    """digits_scene: scenes of the digits of mnist_5k (`attn.data.digits.scene`)."""

    source: str = "mnist_5k"
    composition: Literal["scene"] = "scene"


def _inked(read, rows: np.ndarray, draws: np.ndarray) -> Batch:
    """Plain digits with their ink."""
    batch = read(rows, draws)
    return {**batch, "objects": batch["image"][..., 0] >= ink.INK}


def _distorted(
    digits: Images, distortion: Distortion, rows: np.ndarray, draws: np.ndarray
) -> Batch:
    image = distortion.apply(digits.pixels, rows, draws)
    return {
        "image": image,
        "label": digits.labels[rows],
        "objects": distortion.objects(digits.pixels, rows, draws, image),
    }


def _composed(digits: Images, name: str, composition: Composition) -> Source:
    pool = Pool(digits.pixels, digits.labels)

    def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
        return composition.apply(pool, rows, draws)

    class_names = composition.class_names or digits.class_names
    return Source(
        digits.size,
        read,
        {**labelled.facts(class_names), **composition.facts},
        draws=composition.draws,
        statistics=composition.statistics
        or normalise.statistics(name, composition.channels),
    )
