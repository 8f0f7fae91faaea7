"""Masks at the places of smaller maps; the vectors are tested with `detr`."""

import numpy as np

from attn.models.layers.map_positions import shrink_mask


def test_a_mask_shrinks_to_the_nearest_pixels_above_and_to_the_left():
    mask = np.random.default_rng(0).random((2, 23, 41)) < 0.5
    found = shrink_mask(mask, (5, 7))
    for row, column in np.ndindex(5, 7):
        at = mask[:, row * 23 // 5, column * 41 // 7]
        np.testing.assert_array_equal(found[:, row, column], at)
    np.testing.assert_array_equal(shrink_mask(mask, (23, 41)), mask)
