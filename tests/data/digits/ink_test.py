"""Frames of ink."""

import numpy as np

from attn.data.digits import ink
from tests.data.digits import pool


def test_frames_are_those_of_a_loop():
    digits = pool.digits(fringe=64)
    found = ink.frames(digits[..., 0])
    np.testing.assert_array_equal(found, [pool.frame(digit) for digit in digits])


def test_one_pixel_and_none_in_an_image_that_is_not_square():
    images = np.zeros((3, 5, 7), np.uint8)
    images[0, 4, 2], images[1, 0, 6], images[2, 1, 1] = 64, 255, 63
    expected = [[2, 4, 1, 1], [6, 0, 1, 1], [0, 0, 7, 5]]
    np.testing.assert_array_equal(ink.frames(images), expected)
