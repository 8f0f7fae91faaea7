"""The frame of a digit: the smallest that holds its ink."""

import numpy as np

# A pixel from which on it counts as ink. MNIST's strokes fade out over a pixel, and a
# frame around the last trace of grey would look too wide.
INK = 64


def frames(digits: np.ndarray) -> np.ndarray:
    """The frame of the ink of each image.

    Args:
        digits: uint8 [N, H, W].

    Returns:
        int [N, 4], first column and row, width and height; the whole image where
        there is no ink.
    """
    ink = digits >= INK
    columns, rows = ink.any(axis=1), ink.any(axis=2)
    left, top = columns.argmax(axis=1), rows.argmax(axis=1)
    right = columns.shape[1] - columns[:, ::-1].argmax(axis=1)
    bottom = rows.shape[1] - rows[:, ::-1].argmax(axis=1)
    return np.stack([left, top, right - left, bottom - top], axis=1)
