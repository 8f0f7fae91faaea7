"""Data sets as deterministic streams of batches, without TensorFlow.

dataset = attn.data.open({"name": "mnist_5k", "distortion": "r"})
with dataset.train(128, seed=0) as batches:      # endless; batch k depends on (0, k)
    batch = next(batches)                        # image, label, index
for batch in dataset.test(250):                  # image, label, index, weight
    ...

Batches are NumPy arrays that threads make ahead of time. `Dataset` says more.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.data import normalise, source
from attn.data.augment import AUGMENTATIONS, Size
from attn.data.distortions import DISTORTIONS, SIDE
from attn.data.pipeline import Batches, Dataset

__all__ = ["Batches", "Config", "Dataset", "open"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train and test on.

    Attributes:
        name: "mnist_5k", which prepares itself on first use, or any prepared
            image-classification set of TensorFlow Datasets ("cifar10",
            "imagenet2012"). `attn.data.prepare` says where it looks.
        train, test: splits in the words of TFDS: "train[:90%]", "validation".
        distortion: of both splits, of 28x28 digits: "none" or one of
            `attn.data.distortions`.
        augment: of the training split: "none" or one of `attn.data.augment`.
        image_size: side in pixels to which images are cropped and resized; None
            leaves them as they are, if all have one size.
        directory: where data sets lie; "" for $TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
    """

    name: str = ""
    train: str = "train"
    test: str = "test"
    distortion: str = "none"
    augment: str = "none"
    image_size: int | None = None
    directory: str = ""


def open(config: Mapping[str, Any]) -> Dataset:
    """Opens the data set that `config`, the fields of `Config`, describes.

    The first opening in a process decodes sets that fit into memory; mnist_5k takes
    a quarter of a second, and some seconds once, when it is prepared.

    Raises:
        ValueError: an unknown field, data set, split, distortion or augmentation, a
            wrong type, settings that do not go together, or a set that is not
            prepared; the message is one line.
    """
    rest = dict(config)
    name = rest.pop("name", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"the data set needs a name such as 'mnist_5k', got {name!r}")
    chosen = settings.build(Config, "data set", name, rest)
    chosen = dataclasses.replace(chosen, name=name)
    distortions = {"none": None, **DISTORTIONS}
    if chosen.distortion not in distortions:
        raise settings.unknown("distortion", chosen.distortion, distortions)
    if chosen.augment not in AUGMENTATIONS:
        raise settings.unknown("augmentation", chosen.augment, AUGMENTATIONS)
    distortion = distortions[chosen.distortion]
    augmentation = AUGMENTATIONS[chosen.augment]
    train, test = (
        source.open_split(chosen.name, split, chosen.directory)
        for split in (chosen.train, chosen.test)
    )
    if distortion:
        _fits_distortion(chosen, train)
        size = (distortion.size, distortion.size)
    else:
        size = _size(chosen, train)
    statistics = normalise.statistics(chosen.name, train.shape[-1])
    return Dataset(train, test, size, distortion, augmentation, statistics)


def _fits_distortion(config: Config, split: source.Source) -> None:
    """Refuses what a distortion cannot be combined with."""
    if split.shape != (SIDE, SIDE, 1):
        raise ValueError(
            f"distortion {config.distortion!r} is of {SIDE}x{SIDE} grey digits, but"
            f" images of data set {config.name!r} are {_describe(split.shape)}"
        )
    if config.augment != "none" or config.image_size is not None:
        raise ValueError(
            f"distortion {config.distortion!r} settles the image: augment must be"
            f" 'none' and image_size None, got {config.augment!r} and"
            f" {config.image_size}"
        )


def _size(config: Config, split: source.Source) -> Size:
    """Height and width of the images in a batch."""
    if config.image_size is None:
        if None in split.shape:
            raise ValueError(
                f"images of data set {config.name!r} differ in size: set image_size"
                " (the papers on ImageNet use 224)"
            )
        return split.shape[:2]
    if config.image_size < 1:
        raise ValueError(f"image_size must be positive, got {config.image_size}")
    return config.image_size, config.image_size


def _describe(shape: tuple[int | None, ...]) -> str:
    return "x".join("any" if length is None else str(length) for length in shape)
