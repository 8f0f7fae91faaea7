"""Inverses of affine maps, against NumPy in float64, and the points they move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops


def maps(count=6, seed=0):
    """Maps that are not near singular, turned, sheared and mirrored: [B, 2, 3]."""
    rng = np.random.default_rng(seed)
    left, _, right = np.linalg.svd(rng.normal(size=(count, 2, 2)))
    widths = rng.uniform(0.3, 2, (count, 1, 2))
    return np.concatenate([left * widths @ right, rng.normal(size=(count, 2, 1))], -1)


def whole(theta):
    """[B, 2, 3] with a last row of (0, 0, 1)."""
    row = np.broadcast_to([[[0.0, 0, 1]]], (len(theta), 1, 3))
    return np.concatenate([theta, row], axis=1)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_the_inverse_is_numpys(size):
    theta = maps()
    theta[..., :2] *= size
    found = jax.jit(ops.invert_affine)(theta.astype(np.float32))
    want = np.linalg.inv(whole(theta))[:, :2]
    np.testing.assert_allclose(found * size, want * size, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_grid_of_the_inverse_is_the_inverse_of_the_grid(align_corners):
    theta = maps().astype(np.float32)

    @jax.jit
    def there_and_back(theta):
        grid = ops.affine_grid(theta, (5, 8), align_corners=align_corners)
        return ops.move_points(ops.invert_affine(theta), grid)

    want = ops.regular_grid((5, 8), align_corners=align_corners)
    found = there_and_back(theta)
    np.testing.assert_allclose(found, np.broadcast_to(want, found.shape), atol=4e-6)


def test_a_map_read_by_both_is_the_map_again():
    """A quarter turn of a square map meets pixels exactly."""
    theta = np.array([[[0, 1, 0], [-1, 0, 0]]], np.float32)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype(np.float32)

    def read(x, theta):
        grid = ops.affine_grid(theta, x.shape[1:3], align_corners=False)
        return ops.bilinear_sample(x, grid, align_corners=False, padding="zeros")

    turned = read(x, theta)
    assert np.abs(turned - x).max() > 1
    np.testing.assert_allclose(read(turned, ops.invert_affine(theta)), x, atol=1e-5)


def test_points_are_moved_by_the_map_of_their_example():
    theta = maps()
    points = np.random.default_rng(1).normal(size=(6, 4, 3, 2))
    moved = jax.jit(ops.move_points)(theta, points.astype(np.float32))
    want = (
        np.einsum("bij,bklj->bkli", theta[..., :2], points)
        + theta[:, None, None][..., 2]
    )
    np.testing.assert_allclose(moved, want, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    theta, step = maps(), 1e-6
    weight = np.random.default_rng(2).normal(size=theta.shape)
    with jax.enable_x64(True):
        loss = jax.jit(lambda theta: jnp.sum(weight * ops.invert_affine(theta)))
        found = jax.jit(jax.grad(loss))(theta)
        want = np.zeros_like(theta)
        for place in np.ndindex(*theta.shape):
            by = np.zeros_like(theta)
            by[place] = step
            want[place] = (loss(theta + by) - loss(theta - by)) / (2 * step)
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-7)


def test_a_singular_map_has_the_adjugate_over_the_bound():
    line = np.array([[2, 4, 0.5], [1, 2, -0.5]])  # |A|^2 = 25, det(A) = 0
    mirrored = np.array([[1, 0, 0], [0, -1e-7, 0]])  # below the bound, and negative
    theta = np.stack([line, mirrored, np.zeros((2, 3))]).astype(np.float32)
    inverse, pulled = jax.vjp(jax.jit(ops.invert_affine), theta)
    (slope,) = pulled(jnp.ones_like(inverse))

    first = np.array([[2, -4, -3], [-1, 2, 1.5]]) / (25e-6 / 2)
    second = np.array([[-1e-7, 0, 0], [0, 1, 0]]) / -0.5e-6
    np.testing.assert_allclose(inverse[0], first, rtol=1e-5)
    np.testing.assert_allclose(inverse[1], second, rtol=1e-5)
    np.testing.assert_array_equal(inverse[2], 0)
    assert np.all(np.isfinite(slope))


def test_a_map_that_is_narrow_within_the_bound_is_inverted():
    theta = np.array([[[1, 0, 0], [0, 1e-5, 0]]], np.float32)
    want = [[[1, 0, 0], [0, 1e5, 0]]]
    np.testing.assert_allclose(ops.invert_affine(theta), want, rtol=1e-5)


def test_other_shapes_are_refused():
    theta, wrong = jnp.zeros((2, 2, 3)), jnp.zeros((2, 6))
    with pytest.raises(ValueError, match=r"an affine theta is \[B, 2, 3\]"):
        ops.invert_affine(wrong)
    for points in (jnp.zeros((3, 2)), jnp.zeros((2, 4, 3))):
        with pytest.raises(ValueError, match="points are"):
            ops.move_points(theta, points)
