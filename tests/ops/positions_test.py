"""Tables, rotations and indices against loops from the papers' formulas and codes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import positions

GRID = H, W = (3, 5)
PLACES = [(y, x) for y in range(H) for x in range(W)]
RNG = np.random.default_rng(0)


def test_sinusoids_of_the_transformer():
    table = positions.sinusoidal(11, 6, temperature=1e3)
    for t, i in np.ndindex(11, 3):
        angle = t / 1e3 ** (2 * i / 6)
        assert table[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-12)
        assert table[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-12)


def test_sinusoids_of_a_mask_are_those_of_the_image_in_it():
    mask = np.zeros((3, 7, 9), bool)
    sides = [(7, 9), (4, 9), (5, 2)]
    for example, (rows, columns) in zip(mask, sides, strict=True):
        example[:rows, :columns] = True
    found = jax.jit(positions.sinusoidal_of_mask, static_argnums=1)(mask, 8)
    assert found.shape == (3, 7, 9, 8)
    assert np.all(np.isfinite(found))
    for vectors, (rows, columns) in zip(found, sides, strict=True):
        want = positions.sinusoidal_2d((rows, columns), 8)
        np.testing.assert_allclose(vectors[:rows, :columns], want, atol=2e-6)
    with pytest.raises(ValueError, match="that 4 divides, such as 4 or 8, got 6"):
        positions.sinusoidal_of_mask(mask, 6)


@pytest.mark.parametrize("normalize", [True, False])
def test_sinusoids_of_detr(normalize):
    """PositionEmbeddingSine, line by line, for images without padding."""
    half = 6
    y_embed = np.cumsum(np.ones(GRID), axis=0)
    x_embed = np.cumsum(np.ones(GRID), axis=1)
    if normalize:
        y_embed = y_embed / (y_embed[-1:, :] + 1e-6) * 2 * math.pi
        x_embed = x_embed / (x_embed[:, -1:] + 1e-6) * 2 * math.pi
    dim_t = np.arange(half)
    dim_t = 10000 ** (2 * (dim_t // 2) / half)
    pos_x, pos_y = x_embed[:, :, None] / dim_t, y_embed[:, :, None] / dim_t
    flat = lambda p: np.stack(
        (np.sin(p[:, :, 0::2]), np.cos(p[:, :, 1::2])), axis=3
    ).reshape(*GRID, half)
    want = np.concatenate((flat(pos_y), flat(pos_x)), axis=2)
    got = positions.sinusoidal_2d(GRID, 2 * half, normalize=normalize)
    np.testing.assert_allclose(got, want, atol=1e-12)


def cubic(x):
    """The convolution kernel of Keys, a = -1/2."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resample(length, new):
    """[new, length]: weights of a smoothing bicubic interpolation, edges of pixels."""
    scale = max(length / new, 1)
    weights = np.zeros((new, length))
    for i, j in np.ndindex(new, length):
        weights[i, j] = cubic(((i + 0.5) * length / new - j - 0.5) / scale)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("grid", [(7, 9), (2, 3), (4, 4)])
def test_interpolates_to_another_grid(grid):
    table = RNG.normal(size=(*GRID, 4)).astype(np.float32)
    rows, columns = resample(H, grid[0]), resample(W, grid[1])
    want = np.einsum("hy,wx,yxc->hwc", rows, columns, table)
    np.testing.assert_allclose(positions.interpolate_grid(table, grid), want, atol=1e-5)
    assert positions.interpolate_grid(table, GRID) is table


def turn(x, angle):
    """A pair of channels as a complex number, turned."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def test_rotates_pairs_by_the_place():
    x = RNG.normal(size=(2, 7, 3, 6))
    got = positions.rotate(
        jnp.asarray(x, jnp.float32), positions.rotary_angles(7, 6, temperature=50)
    )
    for t in range(7):
        angle = t * 50 ** (-np.array([0, 2, 4]) / 6)
        np.testing.assert_allclose(got[:, t], turn(x[:, t], angle), atol=1e-5)


def test_rotates_half_of_the_pairs_by_column_and_half_by_row():
    x = RNG.normal(size=(2, H * W, 3, 8))
    got = positions.rotate(
        jnp.asarray(x, jnp.float32), positions.rotary_angles_2d(GRID, 8)
    )
    for t, (row, column) in enumerate(PLACES):
        angle = np.array([column, column * 0.1, row, row * 0.1])
        np.testing.assert_allclose(got[:, t], turn(x[:, t], angle), atol=1e-5)


def test_rotated_products_depend_on_the_offset_alone_even_in_bfloat16_far_out():
    q, k = RNG.normal(size=(2, 1, 1, 1, 8))
    angles = positions.rotary_angles(30_000, 8)
    far = lambda x, t: positions.rotate(jnp.asarray(x, jnp.float32), angles[t : t + 1])
    near = np.sum(far(q, 3) * far(k, 8))
    np.testing.assert_allclose(np.sum(far(q, 29_990) * far(k, 29_995)), near, rtol=1e-5)
    low = positions.rotate(jnp.asarray(q, jnp.bfloat16), angles[29_990:29_991])
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low, far(q, 29_990), atol=0.03)


def test_slopes_of_alibi():
    eight = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    np.testing.assert_allclose(positions.alibi_slopes(8), eight)
    more = [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    np.testing.assert_allclose(positions.alibi_slopes(12), eight + more)
    np.testing.assert_allclose(positions.alibi_slopes(1), [2**-8])
    np.testing.assert_allclose(positions.alibi_slopes(3), [2**-4, 2**-8, 2**-2])


def test_alibi_falls_with_distance():
    bias = positions.alibi(5, 7, num_heads=4)
    for n, t, s in np.ndindex(4, 5, 7):
        assert bias[n, t, s] == -(4.0 ** -(n + 1)) * abs(t - s)


def test_alibi_on_a_grid_falls_with_euclidean_distance():
    bias = positions.alibi_2d(GRID, num_heads=2)
    for n, t, s in np.ndindex(2, H * W, H * W):
        distance = math.dist(PLACES[t], PLACES[s])
        assert bias[n, t, s] == pytest.approx(-(16.0 ** -(n + 1)) * distance)


def test_index_of_swin():
    """Its code, line by line."""
    coords = np.stack(np.meshgrid(np.arange(H), np.arange(W), indexing="ij"))
    flat = coords.reshape(2, -1)
    relative = (flat[:, :, None] - flat[:, None, :]).transpose(1, 2, 0).copy()
    relative[:, :, 0] += H - 1
    relative[:, :, 1] += W - 1
    relative[:, :, 0] *= 2 * W - 1
    np.testing.assert_array_equal(positions.relative_index(GRID), relative.sum(-1))


def test_bias_of_swin():
    table = RNG.normal(size=(2 * H - 1, 2 * W - 1, 2)).astype(np.float32)
    bias = positions.relative_bias(jnp.asarray(table), GRID)
    assert bias.shape == (2, H * W, H * W)
    for t, s in np.ndindex(H * W, H * W):
        (y, x), (v, u) = PLACES[t], PLACES[s]
        np.testing.assert_array_equal(
            bias[:, t, s], table[y - v + H - 1, x - u + W - 1]
        )


@pytest.mark.parametrize("trained", [None, (8, 12)])
def test_log_spaced_offsets_of_swin_v2(trained):
    """Its code, line by line, which calls the sides of training `pretrained`."""
    sides = GRID if trained is None else trained
    table = np.stack(
        np.meshgrid(np.arange(-(H - 1), H), np.arange(-(W - 1), W), indexing="ij"), -1
    ).astype(np.float64)
    table[..., 0] /= sides[0] - 1
    table[..., 1] /= sides[1] - 1
    table *= 8
    table = np.sign(table) * np.log2(np.abs(table) + 1.0) / np.log2(8)
    np.testing.assert_allclose(positions.log_offsets(GRID, trained), table, atol=1e-12)
    assert np.all(np.isfinite(positions.log_offsets((1, 1))))


def test_logits_of_botnet():
    q = RNG.normal(size=(2, H * W, 3, 4))
    rows, columns = RNG.normal(size=(2 * H - 1, 4)), RNG.normal(size=(2 * W - 1, 4))
    got = jax.jit(positions.decomposed_logits, static_argnames="grid")(
        *(jnp.asarray(a, jnp.float32) for a in (q, rows, columns)), grid=GRID
    )
    for t, s in np.ndindex(H * W, H * W):
        (y, x), (v, u) = PLACES[t], PLACES[s]
        r = rows[v - y + H - 1] + columns[u - x + W - 1]
        np.testing.assert_allclose(got[:, :, t, s], q[:, t] @ r, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: positions.sinusoidal(3, 5), "2 divides, such as 4 or 6, got 5"),
        (lambda: positions.sinusoidal_2d(GRID, 6), "4 divides, such as 4 or 8, got 6"),
        (lambda: positions.rotary_angles(3, 7), "channels of a head that 2.*got 7"),
        (lambda: positions.rotary_angles_2d(GRID, 2), "4 divides, such as 4, got 2"),
        (
            lambda: positions.relative_bias(np.zeros((5, 5, 1)), GRID),
            "3x5 needs a table of 5x9 offsets, got 5x5",
        ),
        (
            lambda: positions.rotate(np.zeros((1, 4, 1, 6)), np.zeros((4, 2))),
            r"4 tokens with heads of 6 .*\(4, 3\), got \(4, 2\)",
        ),
    ],
)
def test_says_what_would_fit(call, says):
    with pytest.raises(ValueError, match=says):
        call()
