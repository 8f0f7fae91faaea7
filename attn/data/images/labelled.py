"""Labelled images of one split, by row, without TensorFlow.

They come of any prepared image-classification set of TFDS: one with an "image" of 1 or
3 channels of 8 bits and a "label"; or of files (`attn.data.images.folder`). Sets of one
image size that fit are decoded once and kept; the others (ImageNet) are read and
decoded at each access.
"""

import functools
import io
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from attn import settings
from attn.data import prepare
from attn.data.images import augment
from attn.data.images.picture_files import readable, shown_size
from attn.data.source import Batch, Source, Statistics

RESIDENT_BYTES = 1 << 30  # up to which a split is kept decoded in memory
BLOCK = 1024  # records read at a time while decoding a whole split


class Images(NamedTuple):
    """Labelled images of one split.

    shape: (H, W, C) of the images; H and W are None where they differ.
    class_names: by label.
    size: how many examples.
    records: the encoded examples, read by `__getitems__(rows)`: dicts of "image", the
        bytes of a file, "label", and perhaps "name" for errors, and "upright" where it
        is to be turned as its EXIF says.
    pixels: all images, uint8 [size, H, W, C], or None where they are not kept.
    labels: int32 [size], or None likewise.
    """

    shape: tuple[int | None, int | None, int]
    class_names: tuple[str, ...]
    size: int
    records: Any
    pixels: np.ndarray | None
    labels: np.ndarray | None

    def read(self, rows: np.ndarray) -> tuple[Iterable[np.ndarray], np.ndarray]:
        """Images of some rows, and their labels, int32 [B].

        The images are uint8 [B, H, W, C], or an iterable that decodes one after the
        other where they have no one size. Threads may call this at the same time.
        """
        if self.pixels is not None:
            return self.pixels[rows], self.labels[rows]
        records = self.records.__getitems__(rows.tolist())
        labels = np.array([record["label"] for record in records], np.int32)
        _check_labels(labels, self.class_names)
        images = (decoded(record, self.shape[-1]) for record in records)
        return images if None in self.shape else np.stack(list(images)), labels

    def source(self, statistics: Statistics, side: int | None = None) -> Source:
        """The split as fields "image", uint8, and "label".

        Args:
            statistics: by which images are normalised.
            side: of the squares to which images are cropped and resized; None
                leaves them as they are.
        """

        def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
            del draws
            image, label = self.read(rows)
            batch = {"image": image, "label": label}
            return augment.centre_crops(batch, (side, side)) if side else batch

        # one thread where images are in memory, else one a core
        threads = 1 if self.pixels is not None else min(16, os.cpu_count() or 1)
        return Source(
            self.size,
            read,
            facts(self.class_names),
            threads=threads,
            statistics=statistics,
        )

    def kept(self) -> "Images":
        """The split with all images decoded, where they have one size and fit."""
        if None in self.shape or self.size * np.prod(self.shape) > RESIDENT_BYTES:
            return self
        return self._replace(**_decoded(self))


def facts(class_names: tuple[str, ...]) -> dict[str, Any]:
    """Facts about labels."""
    return {"num_classes": len(class_names), "class_names": class_names}


def open_split(name: str, split: str, directory: str) -> Images:
    """Opens a split ("train", "train[:90%]") of a data set that is prepared.

    Raises:
        Invalid: an unknown set or split, one that is not prepared, or a set that
            is not one of image classification.
    """
    return _open(name, split, prepare.builder(name, directory).data_path)


@functools.lru_cache(maxsize=4)
def _open(name: str, split: str, path: Any) -> Images:
    """The split of `open_split`; remembers the last few, as decoding takes seconds."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    shape, class_names = _features(name, builder.info.features)
    size = check_split(name, split, builder.info.splits)
    encoded = {"image": tfds.decode.SkipDecoding()}  # Pillow is quicker without TFDS
    records = builder.as_data_source(split, decoders=encoded)
    return Images(shape, class_names, size, records, None, None).kept()


def check_split(name: str, split: str, splits: Any) -> int:
    """The examples of a split of TFDS, such as "train[:90%]".

    Raises:
        Invalid: no such split, or an empty one.
    """
    try:
        size = splits[split].num_examples
    except (KeyError, ValueError, AssertionError):
        valid = [*sorted(splits), "parts such as train[:90%]"]
        raise settings.unknown(f"split of data set {name!r}", split, valid) from None
    if size <= 0:  # of "train[50:20]" it is -30
        raise settings.Invalid(f"split {split!r} of data set {name!r} is empty")
    return size


def decode(encoded: bytes, channels: int, *, upright: bool = False) -> np.ndarray:
    """A PNG or JPEG file as uint8 [H, W, channels], grey for 1 and RGB for 3.

    Args:
        encoded: the file.
        channels: see above.
        upright: whether it is turned as its EXIF says. Files of folders are; those of
            prepared sets are not, as boxes and other tools know them as they lie.
    """
    return pixels(Image.open(io.BytesIO(encoded)), channels, upright=upright)


def pixels(image: Image.Image, channels: int, *, upright: bool) -> np.ndarray:
    """An image that was opened, as `decode` gives it."""
    image = _eight_bit(ImageOps.exif_transpose(image) if upright else image)
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(image).reshape(image.height, image.width, channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits as one of 8, which Pillow would cut off at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) / 257 + 0.5).astype(np.uint8))


def decoded(record: Mapping[str, Any], channels: int) -> np.ndarray:
    """The image of a record, as `decode` gives it, or an Invalid that names it."""
    with readable(f"the image {record.get('name', 'in the data set')}"):
        return decode(record["image"], channels, upright=record.get("upright", False))


def read(path: pathlib.Path) -> np.ndarray:
    """A file as `decode` gives it in RGB, or an Invalid that names it."""
    with readable(f"the image {path}"):
        return decode(path.read_bytes(), 3)


def size_of(encoded: bytes, called: str, *, upright: bool = False) -> tuple[int, int]:
    """Width and height of an image by the head of its file, or an Invalid."""
    with readable(f"the image of {called}"), Image.open(io.BytesIO(encoded)) as image:
        return shown_size(image) if upright else image.size


def _decoded(source: Images) -> dict[str, np.ndarray]:
    """All pixels and labels of a split whose images have one size, read-only."""
    pixels = np.empty((source.size, *source.shape), np.uint8)
    labels = np.empty(source.size, np.int32)
    for first in range(0, source.size, BLOCK):
        rows = np.arange(first, min(first + BLOCK, source.size))
        images, labels[rows] = source.read(rows)
        for row, image in zip(rows, images, strict=True):
            pixels[row] = image
    pixels.setflags(write=False)
    labels.setflags(write=False)
    return {"pixels": pixels, "labels": labels}


def _check_labels(labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Refuses labels that are none of the classes; TFDS has -1 for unknown ones."""
    wrong = labels[(labels < 0) | (labels >= len(class_names))]
    if wrong.size:
        raise settings.Invalid(
            f"label {wrong[0]} is none of the {len(class_names)} classes 0 to"
            f" {len(class_names) - 1} of the data set; leave its split out"
        )


def _features(
    name: str, features: Any
) -> tuple[tuple[int | None, int | None, int], tuple[str, ...]]:
    """Shape of the images and names of the classes, or an Invalid."""
    import tensorflow_datasets as tfds

    parts = dict(features.items()) if hasattr(features, "items") else {}
    image, label = parts.get("image"), parts.get("label")
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or image.np_dtype != np.uint8
        or image.shape[-1] not in (1, 3)
    ):
        raise settings.Invalid(
            f"data set {name!r} is not one of image classification: it needs an"
            " 'image' of 1 or 3 channels of 8 bits and a 'label' of one class, and has"
            f" {', '.join(sorted(parts)) or features}"
        )
    return tuple(image.shape), tuple(label.names)
