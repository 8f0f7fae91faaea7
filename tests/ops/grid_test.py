"""Sampling grids against PyTorch, the paper's equations, and each other."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import grid as ops

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "grid_sample.npz")
ALIGN = {"corners": True, "edges": False}

either = pytest.mark.parametrize("align_corners", [True, False])


def places(size, align_corners):
    """[H, W, 3] homogeneous places of the pixels, from the definition, in loops."""
    found = np.ones((*size, 3))
    for row, column in np.ndindex(*size):
        for i, (at, length) in enumerate(((column, size[1]), (row, size[0]))):
            if align_corners:
                found[row, column, i] = 2 * at / (length - 1) - 1
            else:
                found[row, column, i] = (at + 0.5) / length * 2 - 1
    return found


@pytest.mark.parametrize("size", [(4, 7), (1, 5)])
@pytest.mark.parametrize("corners", ["corners", "edges"])
def test_affine_equals_torch(size, corners):
    prefix = f"affine/{size[0]}x{size[1]}"
    theta, weight = GOLDEN[f"{prefix}/theta"], GOLDEN[f"{prefix}/weight"]

    @functools.partial(jax.grad, has_aux=True)
    def grad(theta):
        grid = ops.affine_grid(theta, size, align_corners=ALIGN[corners])
        return jnp.sum(grid * weight), grid

    dtheta, grid = jax.jit(grad)(theta)

    want = GOLDEN[f"{prefix}/{corners}/grid"]
    np.testing.assert_allclose(grid, want, rtol=1e-5, atol=1e-6)
    want = GOLDEN[f"{prefix}/{corners}/dtheta"]
    np.testing.assert_allclose(dtheta, want, rtol=1e-5, atol=1e-5)


@either
def test_projective_matches_the_definition(align_corners):
    rng = np.random.default_rng(0)
    theta = np.eye(3) + 0.2 * rng.normal(size=(2, 3, 3))
    size = (4, 7)
    moved = np.einsum("bij,hwj->bhwi", theta, places(size, align_corners))
    want = moved[..., :2] / moved[..., 2:]
    make = functools.partial(
        ops.projective_grid, size=size, align_corners=align_corners
    )

    grid = jax.jit(make)(theta.astype(np.float32))
    eight = (theta / theta[:, 2:, 2:]).reshape(2, 9)[:, :8]  # the same map

    np.testing.assert_allclose(grid, want, rtol=1e-4, atol=1e-5)
    grid = jax.jit(make)(eight.astype(np.float32))
    np.testing.assert_allclose(grid, want, rtol=1e-4, atol=1e-5)


def test_projective_with_a_last_row_of_001_is_affine():
    theta = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    theta[:, 2] = [0, 0, 1]

    @jax.jit
    def both(theta):
        affine = ops.affine_grid(theta[:, :2], (3, 5), align_corners=False)
        return affine, ops.projective_grid(theta, (3, 5), align_corners=False)

    np.testing.assert_allclose(*both(theta), rtol=1e-6)


def test_projective_stays_finite_at_infinity():
    # The denominator is 0 in the middle column, and negative left of it.
    theta = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)[None]

    @functools.partial(jax.grad, has_aux=True)
    def grad(theta):
        grid = ops.projective_grid(theta, (3, 5), align_corners=True)
        return jnp.sum(grid), grid

    slope, grid = jax.jit(grad)(theta)

    assert np.all(np.isfinite(grid)) and np.all(np.isfinite(slope))
    np.testing.assert_allclose(grid[0, :, [0, 1, 3, 4], 0], 1)  # x / x


@either
@pytest.mark.parametrize("side", [2, 4])
def test_thin_plate_with_affinely_moved_points_is_affine(side, align_corners):
    theta = np.random.default_rng(0).normal(size=(2, 2, 3))
    control = np.concatenate([ops.control_grid(side), np.ones((side**2, 1))], axis=1)
    points = np.einsum("bij,kj->bki", theta, control).astype(np.float32)
    make = functools.partial(
        ops.thin_plate_grid, size=(4, 7), align_corners=align_corners
    )

    grid = jax.jit(make)(points)

    want = np.einsum("bij,hwj->bhwi", theta, places((4, 7), align_corners))
    np.testing.assert_allclose(grid, want, rtol=1e-5, atol=1e-5)


def test_thin_plate_takes_control_points_to_their_places():
    rng = np.random.default_rng(0)
    points = (ops.control_grid(4) + 0.3 * rng.normal(size=(2, 16, 2))).astype(
        np.float32
    )

    make = functools.partial(ops.thin_plate_grid, size=(7, 10), align_corners=True)
    grid = np.asarray(jax.jit(make)(points))

    hit = grid[:, ::2, ::3].reshape(2, 16, 2)  # (7 - 1) / 3 and (10 - 1) / 3 apart
    np.testing.assert_allclose(hit, points, rtol=1e-5, atol=1e-5)


def test_thin_plate_between_control_points_solves_the_spline_equations():
    rng = np.random.default_rng(0)
    control = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    points = rng.normal(size=(1, 9, 2))

    def bend(a, b):
        r = np.hypot(a[0] - b[0], a[1] - b[1])
        return r**2 * np.log(r) if r else 0.0

    system = np.zeros((12, 12))  # the spline equations of Bookstein, with r^2 log r
    for i, a in enumerate(control):
        system[i, 9:] = system[9:, i] = 1, *a
        for j, b in enumerate(control):
            system[i, j] = bend(a, b)
    solved = np.linalg.solve(system, np.concatenate([points[0], np.zeros((3, 2))]))
    want = np.zeros((4, 5, 2))
    for row, column, i in np.ndindex(4, 5, 2):
        at = places((4, 5), False)[row, column]
        weights = [bend(at, b) for b in control] + [1, at[0], at[1]]
        want[row, column, i] = weights @ solved[:, i]

    make = functools.partial(ops.thin_plate_grid, size=(4, 5), align_corners=False)
    grid = jax.jit(make)(points.astype(np.float32))

    np.testing.assert_allclose(grid[0], want, rtol=1e-4, atol=1e-5)


@either
def test_identities_are_exactly_the_regular_grid(align_corners):
    size = (28, 21)
    want = places(size, align_corners)[..., :2].astype(np.float32)
    regular = ops.regular_grid(size, align_corners=align_corners)

    @jax.jit
    def grids(theta, points):
        return (
            ops.affine_grid(theta[:, :2], size, align_corners=align_corners),
            ops.projective_grid(theta, size, align_corners=align_corners),
            ops.thin_plate_grid(points, size, align_corners=align_corners),
        )

    eye = np.eye(3, dtype=np.float32)[None]
    for grid in grids(eye, ops.control_grid(4).astype(np.float32)[None]):
        np.testing.assert_allclose(grid[0], want, rtol=0, atol=6e-8)
        np.testing.assert_array_equal(grid[0], regular.astype(np.float32))


def test_bfloat16_parameters_give_float32_grids():
    theta = np.eye(3)[None, :2].astype(jnp.bfloat16)
    make = functools.partial(ops.affine_grid, size=(1, 300), align_corners=False)
    grid = jax.jit(make)(theta)
    assert grid.dtype == jnp.float32
    assert len(np.unique(grid[..., 0])) == 300  # bfloat16 would merge neighbours


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (ops.affine_grid, (2, 3, 3)),
        (ops.affine_grid, (2, 6)),
        (ops.projective_grid, (2, 9)),
        (ops.thin_plate_grid, (2, 6, 2)),
        (ops.thin_plate_grid, (2, 1, 2)),
        (ops.thin_plate_grid, (2, 32)),
    ],
)
def test_says_which_shape_it_wants(make, shape):
    with pytest.raises(ValueError, match=r"\[B, .* got \[2, "):
        make(np.zeros(shape), (3, 4), align_corners=True)
