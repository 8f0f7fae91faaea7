"""Sequences of unlike length, or images of unlike size, as one array and a mask."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attn.data.source import Batch


def pad(sequences: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences, [n, ...] each, filled up with zeros.

    Args:
        sequences: B arrays of one type.
        length: of the result, at least that of the longest.

    Returns:
        [B, length, ...], and where it holds sequences, bool [B, length].
    """
    first = sequences[0]
    array = np.zeros((len(sequences), length, *first.shape[1:]), first.dtype)
    mask = np.zeros((len(sequences), length), bool)
    for row, sequence in enumerate(sequences):
        array[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = True
    return array, mask


def padded(
    batch: Batch, length: int, lengths: Mapping[str, Callable[[int], int]]
) -> Batch:
    """The batch with each list of sequences as an array, and its mask as NAME_mask.

    Args:
        batch: whose fields are arrays, or lists of sequences.
        length: of the sequences.
        lengths: of some fields, by that of the others (`Source.lengths`).
    """
    found = {}
    for name, value in batch.items():
        if isinstance(value, np.ndarray):
            found[name] = value
        else:
            own = lengths[name](length) if name in lengths else length
            found[name], found[f"{name}_mask"] = pad(value, own)
    return found


def on_canvas(batch: Batch, size: tuple[int, int], *, mirror: bool = False) -> Batch:
    """The batch with each list of images as an array, and "image_mask" of "image".

    Images are in the upper left corner; what is below and right of them is zero, or
    the image mirrored, and not in the mask, bool [B, H, W].

    Args:
        batch: whose fields are arrays, or lists of arrays [h, w, ...]. A field whose
            images are n times as high and wide as those of "image", such as the truth
            of super-resolution, has a canvas n times as large.
        size: of the canvas, at least as high and wide as each of them.
        mirror: whether images are mirrored.
    """
    found = {}
    for name, value in batch.items():
        if isinstance(value, np.ndarray):
            found[name] = value
            if name == "image":
                found["image_mask"] = np.ones(value.shape[:3], bool)
            continue
        images = list(value)
        whole = _canvas(batch, images, size)
        found[name] = np.stack([_placed(image, whole, mirror) for image in images])
        if name == "image":
            real = [np.ones(image.shape[:2], bool) for image in images]
            found["image_mask"] = np.stack([_placed(one, whole, False) for one in real])
    return found


def cut(batch: Batch, size: tuple[int, int]) -> Batch:
    """The batch with each list of images cut off where they exceed a canvas."""
    found = dict(batch)
    for name, value in batch.items():
        if not isinstance(value, np.ndarray):
            height, width = _canvas(batch, value, size)
            found[name] = [image[:height, :width] for image in value]
    return found


def _canvas(
    batch: Batch, images: Sequence[np.ndarray], size: tuple[int, int]
) -> tuple[int, int]:
    """The canvas of the images of a field, given that of "image"."""
    times = max(1, len(images[0]) // len(batch["image"][0]))
    return times * size[0], times * size[1]


def _placed(image: np.ndarray, size: tuple[int, int], mirror: bool) -> np.ndarray:
    """An image [h, w, ...] in the upper left corner of a canvas."""
    sides = zip(size, image.shape, strict=False)
    room = [(0, side - length) for side, length in sides]
    room += [(0, 0)] * (image.ndim - 2)
    return np.pad(image, room, mode="symmetric" if mirror else "constant")
