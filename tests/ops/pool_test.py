"""Pooling against means of cells and places of maxima, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops.pool import adaptive_average_pool, largest


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


@pytest.mark.parametrize("axis", [0, -1, (1, 2), (2, 1), (-3, -2), (0, 1, 2, 3)])
def test_the_largest_and_its_place(axis):
    x, dy = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6))
    y, back = jax.vjp(functools.partial(largest, axis=axis), x.astype(np.float32))
    np.testing.assert_allclose(y, x.max(axis), rtol=1e-6)
    dy = dy.max(axis)
    there = x == x.max(axis, keepdims=True)
    (dx,) = back(dy.astype(np.float32))
    want = np.where(there, np.expand_dims(dy, axis), 0)
    np.testing.assert_allclose(dx, want, rtol=1e-6)


def test_axes_with_another_between_them_are_refused():
    with pytest.raises(ValueError, match=r"follow one another, got \(0, 2\)"):
        largest(jnp.ones((2, 3, 4)), (0, 2))


def test_of_equal_values_the_first_has_the_gradient():
    x = jnp.array([[1.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    slope = jax.grad(lambda x: largest(x, -1).sum())(x)
    np.testing.assert_array_equal(slope, [[0, 1, 0], [1, 0, 0]])


def test_the_largest_is_differentiated_forward_and_twice():
    x = jnp.array([[0.5, 2.0, 1.0], [3.0, -1.0, 0.1]])
    cube = lambda x: (largest(x, 1) ** 3).sum()
    curves = jax.hessian(cube)(x).reshape(6, 6)
    np.testing.assert_allclose(curves, np.diag([0, 12, 0, 18, 0, 0]))


def test_no_place_is_lost_where_x_is_made_anew():
    # after a normalisation, as in a network: XLA makes x again for the gradient
    raw = jax.random.normal(jax.random.key(0), (2, 7, 7, 4))

    @jax.jit
    @jax.grad
    def slope(raw):
        pool = functools.partial(jnp.mean, axis=(0, 1, 2), keepdims=True)
        mean, square = pool(raw), pool(raw * raw)
        x = (raw - mean) * jax.lax.rsqrt(square - mean**2 + 1e-5) + 0.1
        return jnp.sin(largest(x, -1)).sum()

    with jax.enable_x64(True):
        exact = slope(raw.astype(jnp.float64))
    np.testing.assert_allclose(slope(raw), exact, rtol=1e-4, atol=1e-5)
