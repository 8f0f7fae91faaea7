"""Bilinear sampling against PyTorch and against the paper's double sum."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import grid as grids
from attn.ops.sample import PADDINGS, bilinear_sample

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "grid_sample.npz")
ALIGN = {"corners": True, "edges": False}
CASES = [key.rpartition("/")[0] for key in GOLDEN if key.endswith("/y")]


def oracle(x, grid, align_corners):
    """Equation 5: every output sums over every pixel, in float64."""
    x, grid = np.asarray(x, np.float64), np.asarray(grid, np.float64)
    _, height, width, channels = x.shape
    y = np.zeros((*grid.shape[:3], channels))
    for b, row, column in np.ndindex(*grid.shape[:3]):
        place = grid[b, row, column]
        if align_corners:
            at_x, at_y = (place + 1) / 2 * np.array([width - 1, height - 1])
        else:
            at_x, at_y = ((place + 1) * np.array([width, height]) - 1) / 2
        for n, m in np.ndindex(height, width):
            near = max(0, 1 - abs(at_x - m)) * max(0, 1 - abs(at_y - n))
            y[b, row, column] += x[b, n, m] * near
    return y


def test_goldens_cover_every_convention():
    conventions = {case.rpartition("/")[2] for case in CASES}
    assert conventions == {f"{c}-{p}" for c in ALIGN for p in PADDINGS}
    assert len(CASES) == 2 * 6 + 2 * 3


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_torch(case):
    inputs, _, convention = case.rpartition("/")
    corners, _, padding = convention.partition("-")
    x, grid, weight = (GOLDEN[f"{inputs}/{name}"] for name in ("x", "grid", "weight"))

    def loss(x, grid):
        y = bilinear_sample(x, grid, align_corners=ALIGN[corners], padding=padding)
        return jnp.sum(y * weight), y

    (dx, dgrid), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, grid)

    for name, found in {"y": y, "dx": dx, "dgrid": dgrid}.items():
        want = GOLDEN[f"{case}/{name}"]
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("align_corners", [True, False])
def test_zeros_is_the_double_sum_of_the_paper(align_corners):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3, 2)).astype(np.float32)
    grid = rng.uniform(-1.6, 1.6, (2, 4, 6, 2)).astype(np.float32)

    sample = functools.partial(
        bilinear_sample, align_corners=align_corners, padding="zeros"
    )
    y = jax.jit(sample)(x, grid)

    np.testing.assert_allclose(y, oracle(x, grid, align_corners), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("align_corners", [True, False])
def test_gradients_are_finite_differences(align_corners, padding):
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(1, 4, 3, 2)), rng.normal(size=(1, 2, 5, 2))
    # In pixels, a quarter of one or more away from each kink.
    pixel = np.floor(rng.uniform(-4, 7, (1, 2, 5, 2))) + rng.choice(
        [0.25, 0.75], (1, 2, 5, 2)
    )
    size = np.array([3, 4])
    grid = 2 * pixel / (size - 1) - 1 if align_corners else (2 * pixel + 1) / size - 1
    with jax.enable_x64(True):

        @jax.jit
        def loss(x, grid):
            y = bilinear_sample(x, grid, align_corners=align_corners, padding=padding)
            return jnp.sum(y * weight)

        grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, grid)
        for which, grad in enumerate(grads):
            for _ in range(4):
                step = [np.zeros_like(x), np.zeros_like(grid)]
                step[which] = rng.choice([-1.0, 1.0], step[which].shape) * 1e-4
                up, down = (
                    loss(x + sign * step[0], grid + sign * step[1]) for sign in (1, -1)
                )
                want = np.sum(np.asarray(grad) * step[which])
                np.testing.assert_allclose((up - down) / 2, want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_regular_grid_returns_the_input(align_corners, padding):
    x = np.random.default_rng(0).normal(size=(1, 28, 45, 3)).astype(np.float32)
    grid = grids.regular_grid((28, 45), align_corners=align_corners)[None]
    sample = functools.partial(
        bilinear_sample, align_corners=align_corners, padding=padding
    )
    y = jax.jit(sample)(x, jnp.asarray(grid, jnp.float32))
    np.testing.assert_allclose(y, x, rtol=0, atol=2e-5)  # 45 / 2 roundings of a place


def test_half_the_size_without_corners_is_the_mean_of_two_by_two():
    x = np.random.default_rng(0).normal(size=(2, 6, 10, 3)).astype(np.float32)
    grid = np.repeat(grids.regular_grid((3, 5), align_corners=False)[None], 2, axis=0)
    sample = functools.partial(bilinear_sample, align_corners=False, padding="zeros")
    y = jax.jit(sample)(x, grid.astype(np.float32))
    want = x.reshape(2, 3, 2, 5, 2, 3).mean((2, 4))
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_bfloat16_maps_are_read_at_float32_places():
    # In bfloat16 a place near 1 has steps of 1/256, which is 1.3 pixels here.
    x = (np.arange(640) % 7)[None, None, :, None].astype(jnp.bfloat16)
    grid = grids.regular_grid((1, 640), align_corners=False)[None].astype(np.float32)
    sample = functools.partial(bilinear_sample, align_corners=False, padding="border")
    y = jax.jit(sample)(x, grid)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(float), x.astype(float), atol=0.01)


@pytest.mark.parametrize("padding", PADDINGS)
def test_places_far_away_are_finite_and_nan_is_seen(padding):
    # A mirrored place at infinity is nowhere.
    far = [1e30, -1e30] if padding == "reflection" else [1e30, -1e30, np.inf, -np.inf]
    grid = np.stack([far, np.zeros(len(far))], axis=-1)[None, None]

    @functools.partial(jax.value_and_grad, has_aux=True)
    def sample(grid):
        x = jnp.ones((1, 3, 4, 1))
        y = bilinear_sample(x, grid, align_corners=False, padding=padding)
        return jnp.sum(y), y

    sample = jax.jit(sample)
    (_, y), slope = sample(grid.astype(np.float32))
    np.testing.assert_array_equal(y, 0 if padding == "zeros" else 1)
    np.testing.assert_array_equal(slope, 0)
    (_, y), _ = sample(np.full_like(grid, np.nan, np.float32))
    assert np.all(np.isnan(y))


@pytest.mark.parametrize(
    ("x", "grid", "padding", "says"),
    [
        ((2, 4, 5, 3), (1, 4, 5, 2), "zeros", "got .2, 4, 5, 3. and .1, 4, 5, 2."),
        ((2, 4, 5, 3), (2, 4, 5, 3), "zeros", "must be .B, H, W, C."),
        ((1, 4, 5, 3), (1, 4, 5, 2), "wrap", "padding must be one of .*'wrap'"),
    ],
)
def test_says_what_does_not_fit(x, grid, padding, says):
    sample = functools.partial(bilinear_sample, align_corners=True, padding=padding)
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(sample, jnp.ones(x), jnp.ones(grid))
