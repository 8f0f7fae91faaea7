"""Stand-ins for digits whose ink is a frame of its own in each, and a plain sampler."""

import itertools

import numpy as np


def digits(count=24, fringe=0):
    """uint8 [count, 28, 28, 1]: noise of 64 to 255 in a frame, below `fringe` outside.

    No two frames are alike, and every edge of a frame has ink all along.
    """
    random = np.random.default_rng(3)
    images = random.integers(0, max(fringe, 1), (count, 28, 28, 1)).astype(np.uint8)
    for image in images:
        width, height = random.integers(4, 21, 2)
        left, top = random.integers(3, 27 - width), random.integers(3, 27 - height)
        shape = (height, width, 1)
        ink = random.integers(64, 256, shape)
        image[top : top + height, left : left + width] = ink
    return images


def frame(image):
    """First column, first row, width and height of what is 64 or more."""
    rows, columns = np.nonzero(image[..., 0] >= 64)
    return (
        columns.min(),
        rows.min(),
        columns.max() - columns.min() + 1,
        rows.max() - rows.min() + 1,
    )


def sample(image, x, y):
    """Bilinear, zero outside, by a loop over the four neighbours: image [H, W]."""
    total = 0.0
    corners = [(int(np.floor(v)), int(np.floor(v)) + 1) for v in (x, y)]
    for m, n in itertools.product(*corners):
        if 0 <= m < image.shape[1] and 0 <= n < image.shape[0]:
            total += image[n, m] * (1 - abs(x - m)) * (1 - abs(y - n))
    return total


def others(row, draws, count):
    """The other rows that draws choose, counted on from the row, around the end."""
    rows = [*range(row + 1, count), *range(row)]
    return [rows[int(draw * len(rows))] for draw in draws]
