"""Data sets as deterministic streams of batches, without TensorFlow.

dataset = attn.data.open({"name": "mnist_5k", "distortion": "r"})
with dataset.train(128, seed=0) as batches:      # endless; batch k depends on (0, k)
    batch = next(batches)                        # image, label, index
for batch in dataset.split("test", 250):         # image, label, index, weight
    ...
scenes = attn.data.open({"name": "digits_scene"})  # and boxes, labels, caption

Batches are NumPy arrays that threads make ahead of time. `Dataset` says more.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.data import compositions, normalise, prepare, source
from attn.data.augment import AUGMENTATIONS, Size
from attn.data.compositions import Composition
from attn.data.distortions import DISTORTIONS, SIDE
from attn.data.pipeline import Batches, Dataset, Field

__all__ = ["Batches", "Config", "Dataset", "Field", "open"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train and test on.

    Attributes:
        name: "mnist_5k" and "photos", which prepare themselves on first use, or any
            prepared image-classification set of TensorFlow Datasets ("cifar10",
            "imagenet2012"). `attn.data.prepare` says where it looks. "digits_scene"
            is mnist_5k with composition "scene".
        train, validation, test: splits in the words of TFDS: "train[:90%]",
            "validation"; "" for no validation split.
        distortion: of all splits, of 28x28 digits: "none" or one of
            `attn.data.distortions`.
        composition: of all splits, of 28x28 digits of ten classes, instead of a
            distortion: "none" or one of `attn.data.compositions`, which makes one
            example of several digits of the split.
        canvas: side in pixels of what a composition draws on, for those that leave
            it open; None for its usual one.
        test_draws: how often the test split is gone through, distorted or composed
            otherwise each time. The more, the less of an error is luck of the draw,
            which counts where the split is small.
        augment: of the training split: "none" or one of `attn.data.augment`.
        image_size: side in pixels to which images are cropped and resized; None
            leaves them as they are, if all have one size.
        directory: where data sets lie; "" for $TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
    """

    name: str = ""
    train: str = "train"
    validation: str = ""
    test: str = "test"
    distortion: str = "none"
    composition: str = "none"
    canvas: int | None = None
    test_draws: settings.Positive = 1
    augment: str = "none"
    image_size: int | None = None
    directory: str = ""


def open(config: Mapping[str, Any]) -> Dataset:
    """Opens the data set that `config`, the fields of `Config`, describes.

    The first opening in a process decodes sets that fit into memory; mnist_5k takes
    a quarter of a second, and some seconds once, when it is prepared.

    Raises:
        Invalid: an unknown field, data set, split, distortion, composition or
            augmentation, a wrong type, settings that do not go together, or a set
            that is not prepared; the message is one line.
    """
    rest = dict(config)
    name = rest.pop("name", None)
    if not isinstance(name, str) or not name:
        raise settings.Invalid(
            f"the data set needs a name such as 'mnist_5k', got {name!r}"
        )
    chosen = settings.build(Config, "data set", name, rest)
    chosen = _composed(dataclasses.replace(chosen, name=name))
    distortions = {"none": None, **DISTORTIONS}
    if chosen.distortion not in distortions:
        raise settings.unknown("distortion", chosen.distortion, distortions)
    if chosen.augment not in AUGMENTATIONS:
        raise settings.unknown("augmentation", chosen.augment, AUGMENTATIONS)
    distortion = distortions[chosen.distortion]
    composition = _composition(chosen)
    augmentation = AUGMENTATIONS[chosen.augment]
    train, validation, test = (
        source.open_split(chosen.name, split, chosen.directory) if split else None
        for split in (chosen.train, chosen.validation, chosen.test)
    )
    for split, opened in (("train", train), ("test", test)):
        if opened is None:
            raise settings.Invalid(
                f"data set {chosen.name!r} needs a {split} split, got ''"
            )
    statistics = normalise.statistics(chosen.name, train.shape[-1])
    if composition:
        _fits_digits(chosen, f"composition {chosen.composition!r}", train)
        _ten_classes(chosen, train)
        size = (composition.side, composition.side)
        statistics = composition.statistics or normalise.statistics(
            chosen.name, composition.channels
        )
    elif distortion:
        _fits_digits(chosen, f"distortion {chosen.distortion!r}", train)
        size = (distortion.size, distortion.size)
    else:
        size = _size(chosen, train)
    if chosen.test_draws > 1 and not (distortion or composition):
        raise settings.Invalid(
            f"test_draws={chosen.test_draws} needs a distortion or a composition:"
            " without one every draw shows the same images"
        )
    return Dataset(
        train,
        validation,
        test,
        size,
        distortion,
        augmentation,
        statistics,
        composition,
        chosen.test_draws,
    )


def _composed(config: Config) -> Config:
    """Puts the digits and the composition in the place of a name for both."""
    if config.name not in prepare.COMPOSED:
        return config
    digits, composition = prepare.COMPOSED[config.name]
    if config.composition not in ("none", composition):
        raise settings.Invalid(
            f"data set {config.name!r} is {digits!r} with composition {composition!r},"
            f" got composition {config.composition!r}"
        )
    return dataclasses.replace(config, name=digits, composition=composition)


def _composition(config: Config) -> Composition | None:
    """The composition, if there is one; refuses what only goes with one."""
    if config.composition == "none":
        if config.canvas is not None:
            raise settings.Invalid(
                f"canvas {config.canvas} needs a composition (valid:"
                f" {', '.join(compositions.COMPOSITIONS)})"
            )
        return None
    composition = compositions.create(config.composition, config.canvas)
    if config.distortion != "none":
        raise settings.Invalid(
            f"composition {config.composition!r} distorts digits itself: distortion"
            f" must be 'none', got {config.distortion!r}"
        )
    return composition


def _fits_digits(config: Config, what: str, split: source.Source) -> None:
    """Refuses what a distortion or composition cannot be combined with."""
    if split.shape != (SIDE, SIDE, 1):
        raise settings.Invalid(
            f"{what} is of {SIDE}x{SIDE} grey digits, but images of data set"
            f" {config.name!r} are {_describe(split.shape)}"
        )
    if config.augment != "none" or config.image_size is not None:
        raise settings.Invalid(
            f"{what} settles the image: augment must be 'none' and image_size None, got"
            f" {config.augment!r} and {config.image_size}"
        )


def _ten_classes(config: Config, split: source.Source) -> None:
    if len(split.class_names) != 10:
        raise settings.Invalid(
            f"composition {config.composition!r} is of ten digits, but data set"
            f" {config.name!r} has {len(split.class_names)} classes"
        )


def _size(config: Config, split: source.Source) -> Size:
    """Height and width of the images in a batch."""
    if config.image_size is None:
        if None in split.shape:
            raise settings.Invalid(
                f"images of data set {config.name!r} differ in size: set image_size"
                " (the papers on ImageNet use 224)"
            )
        return split.shape[:2]
    if config.image_size < 1:
        raise settings.Invalid(f"image_size must be positive, got {config.image_size}")
    return config.image_size, config.image_size


def _describe(shape: tuple[int | None, ...]) -> str:
    return "x".join("any" if length is None else str(length) for length in shape)
