"""Neighborhood attention against a loop over places, residue class by class."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import neighborhood
from attn.ops.neighborhood import neighborhood_attention

B, N, D, DV = 2, 2, 3, 4


def neighbours(place, length, window, dilation):
    """(neighbour, relative place + window - 1) by the definition of NATTEN.

    Places of one residue class are a line of their own; the window of `window` places
    is centred, and where it would stick out, moved inwards.
    """
    line = [i for i in range(length) if i % dilation == place % dilation]
    own = line.index(place)
    first = own - window // 2
    while first < 0:
        first += 1
    while first + window > len(line):
        first -= 1
    return [(line[i], i - own + window - 1) for i in range(first, first + window)]


def oracle(q, k, v, window, dilation, bias=None, mask=None):
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    _, height, width, heads, dim = q.shape
    y = np.zeros(v.shape)
    matrix = np.zeros((len(q), heads, height * width, height * width))
    for b, i, j, n in np.ndindex(q.shape[:4]):
        found = []
        for (r, down), (c, right) in itertools.product(
            neighbours(i, height, window[0], dilation[0]),
            neighbours(j, width, window[1], dilation[1]),
        ):
            own = bias[n, down, right] if bias is not None else 0
            logit = q[b, i, j, n] @ k[b, r, c, n] / np.sqrt(dim) + own
            target, source = i * width + j, r * width + c
            if mask is None or mask[b, n, target, source]:
                found.append((r, c, source, logit))
        if not found:
            continue
        weights = np.exp([f[3] for f in found] - np.max([f[3] for f in found]))
        for (r, c, source, _), weight in zip(
            found, weights / weights.sum(), strict=True
        ):
            y[b, i, j, n] += weight * v[b, r, c, n]
            matrix[b, n, i * width + j, source] = weight
    return y, matrix


def arrays(grid, window, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(B, *grid, N, d) for d in (D, D, DV)]
    shapes.append((N, 2 * window[0] - 1, 2 * window[1] - 1))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("grid", "window", "dilation", "tile"),
    [
        ((7, 11), (3, 5), (1, 1), 4),  # ragged tiles
        ((7, 11), (3, 5), (2, 2), 2),  # residue classes of two lengths
        ((9, 14), (3, 3), (3, 4), 4),
        ((5, 13), (5, 3), (1, 4), 1),  # the window is the grid on one axis
        ((6, 6), (1, 1), (1, 1), 3),  # only itself
        ((20, 3), (7, 3), (2, 1), 8),
    ],
    ids=str,
)
def test_matches_the_loop(grid, window, dilation, tile):
    q, k, v, bias = arrays(grid, window)
    sizes = {"window": window, "dilation": dilation}
    attend = functools.partial(neighborhood_attention, **sizes, tile=tile)

    y = jax.jit(attend)(q, k, v, bias=bias)

    want, matrix = oracle(q, k, v, *sizes.values(), bias=bias)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    near = neighborhood.neighborhood_mask(grid, **sizes)
    np.testing.assert_array_equal(near, matrix[0, 0] > 0)
    assert np.all(near.sum(-1) == window[0] * window[1])


@pytest.mark.parametrize("shape", [(B, N, 54, 54), (B, 1, 1, 54), (54, 1)])
def test_masks_of_targets_and_of_sources(shape):
    grid, window, dilation = (6, 9), (3, 3), (2, 1)
    q, k, v, bias = arrays(grid, window)
    mask = np.random.default_rng(1).random(shape) < 0.6
    full = np.broadcast_to(mask, (B, N, 54, 54))

    attend = functools.partial(
        neighborhood_attention, window=window, dilation=dilation, bias=bias
    )
    y = jax.jit(attend)(q, k, v, mask=mask)

    want, _ = oracle(q, k, v, window, dilation, bias, full)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_a_place_without_neighbours_gets_zeros_and_finite_gradients():
    q, k, v, bias = arrays((4, 5), (3, 3))
    mask = np.ones((20, 20), bool)
    mask[7] = False

    def loss(q, k, v, bias):
        y = neighborhood_attention(q, k, v, window=(3, 3), bias=bias, mask=mask)
        return jnp.sum(jnp.sin(y)), y

    grads, y = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(
        q, k, v, bias
    )
    np.testing.assert_array_equal(y[:, 1, 2], 0)
    assert all(np.all(np.isfinite(grad)) for grad in grads)


def test_gradients_are_those_of_dense_attention():
    grid, sizes = (6, 9), {"window": (3, 5), "dilation": (2, 1)}
    q, k, v, bias = arrays(grid, sizes["window"])
    near = neighborhood.neighborhood_mask(grid, **sizes)
    down, right = neighborhood.relative_places(grid, **sizes)

    def dense(q, k, v, bias):
        q, k, v = (x.reshape(B, -1, N, x.shape[-1]) for x in (q, k, v))
        logits = jnp.einsum("btnd,bsnd->bnts", q, k) * D**-0.5
        logits = jnp.where(near[None, None], logits + bias[:, down, right], -jnp.inf)
        return jnp.einsum("bnts,bsnd->btnd", jax.nn.softmax(logits), v)

    def gradients(attend):
        loss = lambda *args: jnp.sum(jnp.sin(attend(*args)))
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(q, k, v, bias)

    near_by = lambda q, k, v, bias: neighborhood_attention(q, k, v, bias=bias, **sizes)
    jax.config.update("jax_numpy_rank_promotion", "allow")
    try:
        want = gradients(dense)
    finally:
        jax.config.update("jax_numpy_rank_promotion", "raise")
    for got, expected in zip(gradients(near_by), want, strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_place_itself_reads_the_middle_of_the_bias():
    down, right = neighborhood.relative_places((5, 8), (3, 5), (1, 1))
    assert np.all(np.diagonal(down) == 2)
    assert np.all(np.diagonal(right) == 4)


def test_never_builds_a_matrix_of_all_pairs():
    grid = (64, 64)
    shape = jax.ShapeDtypeStruct((1, *grid, 1, 2), jnp.float32)
    run = functools.partial(neighborhood_attention, window=(5, 5))
    grad = jax.grad(lambda *qkv: jnp.sum(run(*qkv)), argnums=(0, 1, 2))
    memory = jax.jit(grad).lower(shape, shape, shape).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 64**4 / 8


@pytest.mark.parametrize(
    ("grid", "window", "dilation", "says"),
    [
        (
            (5, 9),
            (7, 7),
            (1, 1),
            "window of 7 with dilation 1 spans 7, larger .* 5 x 9",
        ),
        ((5, 9), (7, 7), (1, 1), "a window of up to 5 fits"),
        ((9, 6), (3, 3), (2, 3), "a window of up to 1 fits.* dilation of up to 2"),
        ((8, 8), (4, 3), (1, 1), "must be odd, got 4; 3 or 5"),
        ((8, 8), (3, 3), (1, 0), "dilation must be at least 1, got 0"),
    ],
)
def test_says_what_does_not_fit(grid, window, dilation, says):
    q, k, v, _ = arrays(grid, window)
    with pytest.raises(ValueError, match=says):
        neighborhood_attention(q, k, v, window=window, dilation=dilation)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.ones((20, 20)), "mask must be boolean"),
        (np.ones((20, 19), bool), r"\(20, 19\) does not broadcast"),
    ],
)
def test_says_what_is_wrong_with_a_mask(mask, says):
    q, k, v, _ = arrays((4, 5), (3, 3))
    with pytest.raises(ValueError, match=says):
        neighborhood_attention(q, k, v, window=(3, 3), mask=mask)
