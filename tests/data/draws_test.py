"""Distributions of random numbers."""

import numpy as np
import pytest

from attn.data import draws

LAST = 1 - 2**-53


def test_ranges_hold_their_ends():
    numbers = np.array([0, 0.25, LAST])
    np.testing.assert_allclose(draws.uniform(numbers, -2.0, 6.0), [-2, 0, 6])
    assert draws.integers(numbers, np.array([3, 4, 5])).tolist() == [0, 1, 4]


def test_others_are_every_row_but_ones_own():
    grid = (np.arange(6)[None] + 0.5).repeat(7, 0) / 6
    found = draws.other_rows(grid, np.arange(7), 7)
    for row in range(7):
        assert sorted(found[row]) == [n for n in range(7) if n != row]
    assert draws.other_rows(grid[:1], np.zeros(1, int), 1).tolist() == [[0] * 6]


def test_normals_are_normal_and_independent():
    numbers = np.random.default_rng(0).random((20000, 4))
    found = draws.normal(numbers)
    np.testing.assert_allclose(np.cov(found.T), np.eye(4), atol=0.03)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=0.03)
    assert np.mean(np.abs(found) < 1.96) == pytest.approx(0.95, abs=0.005)


def test_named_draws_are_consecutive():
    found = draws.named(np.arange(12.0).reshape(2, 6), {"a": 1, "b": 3, "c": 2})
    assert {name: part[1].tolist() for name, part in found.items()} == {
        "a": [6],
        "b": [7, 8, 9],
        "c": [10, 11],
    }
    with pytest.raises(ValueError, match="zip"):
        draws.named(np.zeros((2, 6)), {})
