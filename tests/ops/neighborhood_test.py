"""Neighborhood attention against a loop over places, residue class by class."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import neighborhood
from attn.ops.neighborhood import neighborhood_attention

B, N, D, DV = 2, 2, 3, 4


def neighbours(place, length, window, dilation=1, stride=1, causal=False):
    """(neighbour, relative place + window - 1) by the definition of NATTEN.

    Places of one residue class are a line of their own, cut into groups of `stride`.
    The window is centred on the middle place of the group, the later one of two, and
    where it would stick out, moved inwards. A causal one ends at the place, and begins
    where that of the last place of the group would.
    """
    line = [i for i in range(length) if i % dilation == place % dilation]
    own = line.index(place)
    group = [i for i in range(len(line)) if i // stride == own // stride]
    if causal:
        seen = range(max(group[-1] - window + 1, 0), own + 1)
    else:
        first = min(group[0] + stride // 2, len(line) - 1) - window // 2
        while first < 0:
            first += 1
        while first + window > len(line):
            first -= 1
        seen = range(first, first + window)
    return [(line[i], i - own + window - 1) for i in seen]


def oracle(q, k, v, *options, bias=None, mask=None):
    """The loop; `options` are window, dilation, stride, causal, as far as given."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    grid, heads, dim = q.shape[1:-2], *q.shape[-2:]
    flat = lambda place: int(np.ravel_multi_index(place, grid))
    y = np.zeros(v.shape)
    matrix = np.zeros((len(q), heads, math.prod(grid), math.prod(grid)))
    for b, *place, n in np.ndindex(q.shape[:-1]):
        found = []
        lines = [
            neighbours(own, length, *axis)
            for own, length, *axis in zip(place, grid, *options, strict=True)
        ]
        for near in itertools.product(*lines):
            source, relative = zip(*near, strict=True)
            own = bias[n, *relative] if bias is not None else 0
            logit = q[b, *place, n] @ k[b, *source, n] / np.sqrt(dim) + own
            if mask is None or mask[b, n, flat(place), flat(source)]:
                found.append((source, logit))
        if not found:
            continue
        weights = np.exp([f[1] for f in found] - np.max([f[1] for f in found]))
        for (source, _), weight in zip(found, weights / weights.sum(), strict=True):
            y[b, *place, n] += weight * v[b, *source, n]
            matrix[b, n, flat(place), flat(source)] = weight
    return y, matrix


def arrays(grid, window, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(B, *grid, N, d) for d in (D, D, DV)]
    shapes.append((N, *(2 * k - 1 for k in window)))
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


NONE, ONES = (False, False), (1, 1)


@pytest.mark.parametrize(
    ("grid", "window", "dilation", "stride", "causal", "tile"),
    [
        ((9, 11), (3, 5), ONES, (2, 4), NONE, None),  # even strides, ragged groups
        ((12, 10), (4, 5), ONES, (4, 5), NONE, None),  # blocks; an even window
        ((9, 14), (3, 3), (2, 3), (3, 1), NONE, 2),  # groups of residue classes
        ((7, 11), (3, 5), ONES, ONES, (True, False), None),
        ((7, 12), (3, 4), (2, 1), (1, 3), (False, True), 4),
        ((8, 9), (4, 3), ONES, (2, 2), (True, True), 3),
        ((23,), (5,), (2,), (3,), (False,), None),
        ((23,), (6,), (1,), (1,), (True,), 5),
        ((4, 5, 6), (3, 2, 5), (1, 2, 1), (1, 1, 2), (False, False, True), None),
    ],
    ids=str,
)
def test_strides_causal_axes_lines_and_volumes(
    grid, window, dilation, stride, causal, tile
):
    q, k, v, bias = arrays(grid, window)
    sizes = {"dilation": dilation, "stride": stride, "causal": causal}
    attend = functools.partial(
        neighborhood_attention, window=window, **sizes, tile=tile
    )
    places = math.prod(grid)
    mask = np.random.default_rng(1).random((B, N, places, places)) < 0.8

    run = jax.jit(
        lambda *given: (
            attend(*given[:3]),
            attend(*given[:3], bias=given[3], mask=given[4]),
        )
    )
    plain, full = run(q, k, v, bias, mask)

    want, matrix = oracle(q, k, v, window, *sizes.values())
    np.testing.assert_allclose(plain, want, rtol=1e-5, atol=1e-5)
    near = neighborhood.neighborhood_mask(grid, window, **sizes)
    np.testing.assert_array_equal(near, matrix[0, 0] > 0)
    want, _ = oracle(q, k, v, window, *sizes.values(), bias=bias, mask=mask)
    np.testing.assert_allclose(full, want, rtol=1e-5, atol=1e-5)


def test_a_stride_as_long_as_a_tile_runs_nothing_outside_of_windows():
    axis = neighborhood.cut(32, neighborhood.Window(8, stride=4), 4)
    assert axis.sources.shape == (8, 8)
    assert np.all(axis.relative >= 0)


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

    want, _ = oracle(q, k, v, window, dilation, bias=bias, mask=full)
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
    down, right = neighborhood.relative_places((5, 8), (3, 5))
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
        ((9, 6), (3, 3), (2, 3), "a window of up to 2 fits.* dilation of up to 2"),
        ((8, 8), (0, 3), (1, 1), "window must be at least 1, got 0"),
        ((8, 8), (3, 3), (1, 0), "dilation must be at least 1, got 0"),
    ],
)
def test_says_what_does_not_fit(grid, window, dilation, says):
    q, k, v, _ = arrays(grid, (1, 1))
    with pytest.raises(ValueError, match=says):
        neighborhood_attention(q, k, v, window=window, dilation=dilation)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stride": (1, 4)}, "stride of 4 is longer than its window of 3; up to 3"),
        ({"stride": (0, 1)}, "stride must be at least 1, got 0"),
        ({"causal": (True,)}, "causal must have a value for each of the 2 axes"),
        ({"bias": np.zeros((N, 3, 5))}, r"bias must have the shape \(.*, 5, 5\), got"),
    ],
)
def test_says_what_does_not_fit_a_window(options, says):
    q, k, v, _ = arrays((8, 8), (3, 3))
    with pytest.raises(ValueError, match=says):
        neighborhood_attention(q, k, v, window=(3, 3), **options)


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


def test_what_is_no_number_stays_none_behind_a_mask():
    q, k, v, _ = arrays((5, 6), (3, 3))
    k[0, 2, 2] = np.nan
    q[1, 0, 0] = np.nan
    options = {"window": (3, 3)}
    plain = neighborhood_attention(q, k, v, **options)
    mask = np.ones((30, 30), bool)
    masked = neighborhood_attention(q, k, v, mask=mask, **options)
    np.testing.assert_allclose(masked, plain, atol=1e-6)
    assert np.isnan(masked[0, 1:4, 1:4]).all() and np.isnan(masked[1, 0, 0]).all()
    assert np.isfinite(masked[1, 1:]).all()
