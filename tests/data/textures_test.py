"""Textures against a sum over their knots, exact whatever the order of the sum."""

import math

import numpy as np

from attn.data import textures

DRAWS = np.random.default_rng(0).random((3, textures.DRAWS))


def spline(distance):
    away = abs(distance)
    if away < 1:
        return 2 / 3 - away**2 + away**3 / 2
    return max(0.0, 2 - away) ** 3 / 6


def test_a_cloud_is_a_cubic_spline_over_its_knots():
    rows, columns = textures.pixels(11), textures.pixels(16)
    found = textures.cloud(DRAWS, rows, columns)
    assert found.shape == (3, 3, 11, 16) and found.dtype == np.float32

    knots = DRAWS.reshape(3, 4, 9, 9)
    low, high = textures.KNOTS
    knots = low + (high - low) * (knots[:, :1] + knots[:, 1:]) / 2
    over = lambda side: np.array(
        [[spline(1 + 6 * i / (side - 1) - k) for k in range(9)] for i in range(side)]
    )
    want = np.einsum("hi,bcij,wj->bchw", over(11), knots, over(16))
    np.testing.assert_allclose(found, np.clip(want, *textures.DIM), atol=0.05)
    assert 0 < found.mean() < textures.DIM[1]


def test_sums_are_exact_so_that_no_processor_rounds_otherwise():
    rows, columns = textures.pixels(5), textures.pixels(7)
    found = textures.cloud(DRAWS, rows, columns)

    knots = DRAWS.reshape(3, 4, 9, 9).astype(np.float32)
    knots = np.float32(-100) + np.float32(175) * (knots[:, :1] + knots[:, 1:])
    near = lambda x, places: [round(float(v) * 2**places) / 2**places for v in x]
    for at in np.ndindex(3, 3, 5, 7):
        b, c, h, w = at
        parts = [
            row * knot * column
            for row, line in zip(near(rows[h], 16), knots[b, c], strict=True)
            for knot, column in zip(near(line, 6), near(columns[w], 16), strict=True)
        ]
        assert found[at] == np.float32(np.clip(math.fsum(parts), *textures.DIM))
