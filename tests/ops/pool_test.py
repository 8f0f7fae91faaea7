"""Adaptive pooling against the means of its cells, in float64."""

import functools

import jax
import numpy as np
import pytest

from attn.ops.pool import adaptive_average_pool


def cell(index, cells, length):
    return slice(index * length // cells, -(-(index + 1) * length // cells))


@pytest.mark.parametrize("size", [(8, 9), (2, 3), (1, 7)])
def test_cells_are_means_of_their_pixels(size):
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    got = jax.jit(functools.partial(adaptive_average_pool, size=size))(x)
    assert got.shape == (2, *size, 3)
    for i, j in np.ndindex(size):
        pixels = x[:, cell(i, size[0], 5), cell(j, size[1], 7)].astype(np.float64)
        np.testing.assert_allclose(got[:, i, j], pixels.mean(axis=(1, 2)), atol=1e-6)


def test_is_torchs_on_a_row():
    # torch.nn.functional.adaptive_avg_pool2d(torch.arange(5.).view(1, 1, 1, 5), (1, 3))
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1)
    got = adaptive_average_pool(x, (1, 3))
    np.testing.assert_allclose(got[0, 0, :, 0], [0.5, 2, 3.5])
    # and to 8 places: cells of one pixel or two
    got = adaptive_average_pool(x, (1, 8))
    want = [0, 0.5, 1, 1.5, 2.5, 3, 3.5, 4]
    np.testing.assert_allclose(got[0, 0, :, 0], want)
