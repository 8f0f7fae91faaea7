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


def on_canvas(batch: Batch, size: tuple[int, int]) -> Batch:
    """The batch with each list of images as an array, and "image_mask" of "image".

    Images are in the upper left corner; what is below and right of them is zero, and
    not in the mask, bool [B, H, W].

    Args:
        batch: whose fields are arrays, or lists of arrays [h, w, ...].
        size: of the canvas, at least as high and wide as each of them.
    """
    found = {}
    for name, value in batch.items():
        if isinstance(value, np.ndarray):
            found[name] = value
            continue
        images = list(value)
        shape = (len(images), *size)
        canvas = np.zeros((*shape, *images[0].shape[2:]), images[0].dtype)
        mask = np.zeros(shape, bool)
        for row, image, real in zip(canvas, images, mask, strict=True):
            place = tuple(map(slice, image.shape[:2]))
            row[place], real[place] = image, True
        found[name] = canvas
        if name == "image":
            found["image_mask"] = mask
    return found
