"""Attention by features against double sums in float64, and FAVOR+'s statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from attn.ops import kernel_features
from attn.ops.linear_attention import (
    causal_step,
    causal_weights,
    empty_state,
    linear_attention,
    linear_factors,
)

B, T, S, N, R, DV = 2, 3, 5, 2, 7, 4
LOGARITHMS = lambda x: x  # tests give features, not what they are made of


def arrays(size=1.0, seed=0):
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(B, T, N, R)), rng.normal(size=(B, S, N, R))
    v = rng.normal(size=(B, S, N, DV))
    return tuple(a.astype(np.float32) for a in (size * q, size * k, v))


def oracle(q, k, v, seen):
    """q and k are logarithms; their products are summed as logarithms, one by one.

    `seen` is [B, T, S].
    """
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    targets, sources = q.shape[1], k.shape[1]
    y, matrix = np.zeros((B, targets, N, DV)), np.zeros((B, N, targets, sources))
    for b, t, n in np.ndindex(B, targets, N):
        sources = np.flatnonzero(seen[b, t])
        if not len(sources):
            continue
        logs = [np.logaddexp.reduce(q[b, t, n] + k[b, s, n]) for s in sources]
        weights = np.exp(np.array(logs) - np.logaddexp.reduce(logs))
        matrix[b, n, t, sources] = weights
        y[b, t, n] = weights @ v[b, sources, n]
    return y, matrix


@pytest.mark.parametrize("size", [1, 300])  # exp(300) is no float32, exp(-300) is 0
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("block", [None, 2])  # which divides neither T nor S
def test_matches_the_sums_at_any_magnitude(size, masked, block):
    q, k, v = arrays(size)
    seen = np.ones((B, S), bool)
    if masked:
        seen[0, 1::2] = seen[1] = False
    kv_mask = jnp.asarray(seen) if masked else None

    attend = functools.partial(linear_attention, features=LOGARITHMS, block=block)
    y = jax.jit(attend)(q, k, v, kv_mask=kv_mask)
    factors = functools.partial(linear_factors, features=LOGARITHMS)
    left, right = jax.jit(factors)(q, k, kv_mask=kv_mask)

    want, matrix = oracle(q, k, v, np.broadcast_to(seen[:, None], (B, T, S)))
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(left @ right, matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [None, 2])
def test_gradients_pass_through_what_cancels(block):
    q, k, v = arrays()

    def plain(q, k, v):
        weights = jnp.einsum("btnr,bsnr->bnts", jnp.exp(q), jnp.exp(k))
        weights = weights / weights.sum(-1, keepdims=True)
        return jnp.einsum("bnts,bsnd->btnd", weights, v)

    options = {"features": LOGARITHMS, "block": block}
    both = [
        jax.jit(jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2)))
        for f in (functools.partial(linear_attention, **options), plain)
    ]
    for got, want in zip(both[0](q, k, v), both[1](q, k, v), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block", [None, 2])
def test_gradients_are_finite_where_nothing_is_seen(block):
    q, k, v = arrays()
    mask = np.zeros((B, S), bool)
    mask[0] = True
    attend = functools.partial(
        linear_attention, features=LOGARITHMS, kv_mask=mask, block=block
    )
    loss = lambda *a: jnp.sum(jnp.sin(attend(*a)))
    for grad in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v):
        assert np.all(np.isfinite(grad))
        np.testing.assert_array_equal(grad[1], 0)
        assert np.abs(grad[0]).max() > 1e-3


def test_elu_features_are_logarithms_of_elu_plus_one():
    x = np.array([-30.0, -2, -0.1, 0, 0.1, 3, 1e4], np.float32)
    want = np.where(x < 0, np.exp(np.minimum(x, 0.0)), x + 1.0)
    got = np.exp(np.asarray(kernel_features.elu_features(x), np.float64))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_estimate_of_the_softmax_kernel_is_unbiased():
    dim, features, draws = 5, 8, 4000
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 1, 1, dim)).astype(np.float32)

    @jax.jit
    def estimates(projections):
        phi = lambda x, w: jnp.exp(kernel_features.softmax_features(x, w)[0, 0, 0])
        one = lambda w: jnp.sum(phi(q, w) * phi(k, w))
        return jax.vmap(one)(projections)

    want = np.exp(q.ravel() @ k.ravel() / np.sqrt(dim))
    spread = {}
    for orthogonal in (True, False):
        draw = functools.partial(
            kernel_features.random_projection, features, dim, orthogonal=orthogonal
        )
        found = np.asarray(
            estimates(np.stack([draw(seed=3 * i) for i in range(draws)]))
        )
        error = found.std() / np.sqrt(draws)
        assert error < 0.05 * want
        assert abs(found.mean() - want) < 4 * error
        spread[orthogonal] = found.var()
    assert spread[True] < spread[False], "theorem 2: orthogonal rows vary less"


def test_rows_of_the_projection_are_orthogonal_in_blocks_and_normal():
    dim, features = 6, 15
    draws = np.stack(
        [
            kernel_features.random_projection(features, dim, seed=2 * i)
            for i in range(1500)
        ]
    ).astype(np.float64)
    assert draws.shape == (1500, features, dim)
    gram = draws @ draws.swapaxes(1, 2)
    off = ~np.eye(dim, dtype=bool)
    for block in (slice(0, 6), slice(6, 12)):
        np.testing.assert_allclose(gram[:, block, block][:, off], 0, atol=1e-4)
    assert np.abs(gram[:, :6, 6:12]).mean() > 0.5, "blocks are independent"
    covariance = np.einsum("nfd,nfe->de", draws, draws) / (1500 * features)
    np.testing.assert_allclose(covariance, np.eye(dim), atol=0.05)
    np.testing.assert_allclose(draws.mean((0, 1)), 0, atol=0.05)
    squares = np.sum(draws**2, -1)
    assert squares.mean() == pytest.approx(dim, rel=0.02)
    assert squares.var() == pytest.approx(2 * dim, rel=0.1), "chi squared lengths"


FIRST = [[1.814611, -0.746513], [0.966188, 2.348591]]


def test_a_seed_gives_these_numbers_for_ever():
    # A checkpoint keeps the seed alone, so that they must not change.
    got = kernel_features.random_projection(2, 2, seed=0)
    again = kernel_features.random_projection(2, 2, seed=0)
    np.testing.assert_array_equal(got, again)
    np.testing.assert_allclose(got, FIRST, rtol=1e-5)
    assert not np.allclose(got, kernel_features.random_projection(2, 2, seed=1))


def test_relu_features_are_logarithms_of_relu():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 1, 4)), rng.normal(size=(9, 4))
    got = kernel_features.relu_features(jnp.float32(x), jnp.float32(w))
    want = (np.maximum(x @ w.T, 0) + 1e-3) / 3
    np.testing.assert_allclose(np.exp(got), want, rtol=1e-4)


@pytest.mark.parametrize("shape", [(B, S + 1), (B, N, S), (S,)])
def test_says_why_a_mask_does_not_fit(shape):
    with pytest.raises(ValueError, match=r"kv_mask must be \[B, S\] = \(2, 5\), got"):
        linear_attention(*arrays(), LOGARITHMS, kv_mask=np.ones(shape, bool))
    with pytest.raises(ValueError, match="kv_mask must be boolean"):
        linear_attention(*arrays(), LOGARITHMS, kv_mask=np.ones(shape))


LONG = 21  # no multiple of the tile


def in_order(size=1.0):
    rng = np.random.default_rng(5)
    shapes = [(B, LONG, N, R)] * 2 + [(B, LONG, N, DV)]
    q, k, v = (rng.normal(size=shape) for shape in shapes)
    seen = rng.random((B, LONG)) < 0.7
    seen[1, :3] = False  # whose first targets see nothing
    return *(np.float32(a) for a in (size * q, size * k, v)), seen


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("tile", [1, 4, 64])
def test_causal_order_matches_the_sums_at_any_magnitude(monkeypatch, size, tile):
    monkeypatch.setattr("attn.ops.linear_attention.TILES", 2)  # several states are kept
    q, k, v, seen = in_order(size)
    options = {"features": LOGARITHMS, "kv_mask": seen}
    attend = functools.partial(linear_attention, causal=True, block=tile, **options)
    both = np.tril(np.ones((LONG, LONG), bool)) & seen[:, None]
    want, matrix = oracle(q, k, v, both)
    np.testing.assert_allclose(jax.jit(attend)(q, k, v), want, rtol=1e-4, atol=1e-5)
    weights = jax.jit(functools.partial(causal_weights, **options))(q, k)
    np.testing.assert_allclose(weights, matrix, rtol=1e-4, atol=1e-5)


def test_gradients_in_causal_order_are_those_of_the_sums(monkeypatch):
    monkeypatch.setattr("attn.ops.linear_attention.TILES", 2)
    *inputs, seen = in_order()

    def plain(q, k, v):
        weights = jnp.einsum("btnr,bsnr->bnts", jnp.exp(q), jnp.exp(k))
        both = jnp.tril(jnp.ones((LONG, LONG), bool))[None, None]
        both = both & seen[:, None, None]
        weights = jnp.where(both, weights, 0)
        weights = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-30)
        return jnp.einsum("bnts,bsnd->btnd", weights, v)

    options = {"features": LOGARITHMS, "kv_mask": seen, "causal": True, "block": 4}
    both = [
        jax.jit(jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), argnums=(0, 1, 2)))
        for f in (functools.partial(linear_attention, **options), plain)
    ]
    for got, want in zip(both[0](*inputs), both[1](*inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_a_later_source_changes_no_bit_of_an_earlier_target():
    q, k, v, _ = in_order()
    attend = jax.jit(
        functools.partial(linear_attention, features=LOGARITHMS, causal=True)
    )
    y = attend(q, k, v)
    k[:, 11:] += 200  # within the tile of earlier targets, and far larger
    np.testing.assert_array_equal(attend(q, k, v)[:, :11], y[:, :11])


def test_steps_go_on_from_a_state():
    q, k, v, seen = in_order(30)
    attend = functools.partial(linear_attention, features=LOGARITHMS, causal=True)
    whole = jax.jit(functools.partial(attend, kv_mask=seen))(q, k, v)
    state, parts, start = empty_state(q, v, LOGARITHMS), [], 0
    step = jax.jit(functools.partial(causal_step, features=LOGARITHMS))
    for count in (1, 1, 7, 12):
        here = slice(start, start + count)
        inputs = (a[:, here] for a in (q, k, v))
        y, state = step(*inputs, state=state, kv_mask=seen[:, here])
        parts.append(y)
        start += count
    np.testing.assert_allclose(
        jnp.concatenate(parts, axis=1), whole, rtol=1e-5, atol=1e-5
    )


def test_the_gradient_of_elu_features_has_no_gap_at_zero():
    x = np.array([-1e-6, 0.0, 1e-6], np.float32)
    found = jax.grad(lambda x: kernel_features.elu_features(x).sum())(x)
    np.testing.assert_allclose(found, 1, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_differs_between_devices_as_its_arrays_do(causal):
    rng = np.random.default_rng(8)
    q, k, v = (rng.normal(size=(8, 40, 2, 4)).astype(np.float32) for _ in "qkv")

    def loss(q, k, v):
        y = linear_attention(
            q, k, v, kernel_features.elu_features, causal=causal, block=8
        )
        return jnp.sum(jnp.sin(y))

    of_all = jax.grad(loss, argnums=(0, 1, 2))
    spec = (PartitionSpec("data"),) * 3
    mesh = Mesh(jax.devices(), ("data",))
    program = jax.shard_map(of_all, mesh=mesh, in_specs=spec, out_specs=spec)
    for ours, expected in zip(jax.jit(program)(q, k, v), of_all(q, k, v), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"kv_mask": np.ones((B, T), bool)}]
)
def test_what_is_no_number_stays_none(options):
    q, k, v = (np.array(x[:, :T]) for x in arrays())
    q[0, 1] = np.nan
    k[1, 0, 0] = np.nan
    y = linear_attention(q, k, v, features=LOGARITHMS, **options)
    lost = np.zeros((B, T, N), bool)
    lost[0, 1] = lost[1, :, 0] = True
    np.testing.assert_array_equal(np.isnan(y).all(-1), lost)
    np.testing.assert_array_equal(np.isnan(y).any(-1), lost)
