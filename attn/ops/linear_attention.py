"""Attention in linear time: phi(q) (phi(k)^T v) / phi(q) (phi(k)^T 1).

Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with
Linear Attention", ICML 2020, https://arxiv.org/abs/2006.16236, equation 5; the same
with random features: Choromanski et al., "Rethinking Attention with Performers", ICLR
2021, https://arxiv.org/abs/2009.14794, section 2.2.

Letters used in shapes:
    B batch, T targets, S sources, N heads, D channels of one head, R features, Dv
    channels of the values.

Differs from both papers' code, which adds 1e-6 to the denominator or the features:
features come as logarithms. For each feature the largest over all sources is taken out
of the keys and put into the queries, and for each target the largest over all features
taken out of the queries. Both cancel, and every denominator is at least 1: rows sum to
1 at any magnitude.

Where features of all tokens would be many, they are made, summed and forgotten block by
block of tokens, and made again for gradients.

In causal order (equations 16 to 20 of the first paper) the sums of all earlier tiles of
tokens are one state, and the pairs inside a tile are added one by one, each in units of
the largest term of its target: a later source changes no bit of an earlier target.
Memory is that of the tokens, of one tile, and of a state every few tiles.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from attn.ops import varying
from attn.ops.dot_product import masked_softmax
from attn.ops.shapes import check_kv_mask, known

Features = Callable[[jax.Array], jax.Array]
# Up to how many features are made all at once, and how many in a block where they are
# more: on a CPU to stay in its caches (measured), elsewhere to spare memory.
FEATURES = {"cpu": (2**20, 2**15)}
FEATURES_ELSEWHERE = (2**26, 2**26)
# The logarithm of a feature that no source has, or less: its differences are finite.
LOWEST = -1e30
# Tokens of a tile in causal order, and tiles between two states kept for gradients.
TILE, TILES = 16, 16


class LinearState(NamedTuple):
    """What targets need to know of sources, however many these are."""

    peak: jax.Array
    """[B, N, R], the largest logarithm of each feature"""
    total: jax.Array
    """[B, N, R], the sum of features in units of their peak"""
    values: jax.Array
    """[B, N, R, Dv], the sum of features times values"""


def linear_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    features: Features,
    *,
    kv_mask: jax.Array | None = None,
    causal: bool = False,
    block: int | None = None,
) -> jax.Array:
    """Linear attention. Returns [B, T, N, Dv], in B N (T + S) R Dv multiply-adds.

    Args:
        q: queries [B, T, N, D].
        k: keys [B, S, N, D].
        v: values [B, S, N, Dv].
        features: makes of x [B, L, N, D] the logarithms of its features,
            [B, L, N, R], float32, token by token.
        kv_mask: boolean [B, S], True = a real source. Where no source is left, targets
            get zeros and pass back zero gradients.
        causal: whether target t sees the sources s <= t only; then T is S.
        block: tokens at once; for speed and memory only. None chooses it.

    Returns:
        In the dtype of `v`; sums are float32.

    Raises:
        ValueError: `kv_mask` does not fit.
    """
    if causal:
        state = empty_state(q, v, features)
        return causal_step(q, k, v, features, state, kv_mask=kv_mask, tile=block)[0]
    block = block or _block(q, max(q.shape[1], k.shape[1]), features)
    state = linear_state(k, v, features, kv_mask=kv_mask, block=block)
    sure = kv_mask is None and k.shape[1] > 0
    return linear_read(q, state, features, block=block, sure=sure).astype(v.dtype)


def linear_read(
    q: jax.Array,
    state: LinearState,
    features: Features,
    *,
    block: int | None = None,
    sure: bool = False,
) -> jax.Array:
    """Values [B, T, N, Dv], float32, that queries read from the state of all sources.

    Args:
        q: [B, T, N, D].
        state: from `linear_state`.
        features: as in `linear_attention`.
        block: as there.
        sure: whether there are sources in every example.
    """
    targets = q.shape[1]
    block = block or _block(q, targets, features)

    def read(q):
        q = _scaled(features(q), state.peak[:, None])
        below = jnp.einsum("btnr,bnr->btn", q, state.total)[..., None]
        return _divide(jnp.einsum("btnr,bnrd->btnd", q, state.values), below, sure)

    if block >= targets:
        return read(q)
    y = jax.lax.map(jax.checkpoint(read, prevent_cse=False), _blocks(q, block))
    return _unblocked(y)[:, :targets]


def linear_state(
    k: jax.Array,
    v: jax.Array,
    features: Features,
    *,
    kv_mask: jax.Array | None = None,
    block: int | None = None,
) -> LinearState:
    """The state of all sources; arguments as in `linear_attention`."""
    sources = k.shape[1]
    block = block or _block(k, sources, features)
    seen = _seen(kv_mask, k)

    def summed(k, v, seen, before):
        k = _hidden(features(k), seen)
        peak = jnp.maximum(_largest(k), before)
        k = jnp.exp(k - peak[:, None])
        values = jnp.einsum("bsnr,bsnd->bnrd", k, v.astype(jnp.float32))
        return LinearState(peak, jnp.sum(k, axis=1), values)

    if block >= sources:
        return summed(k, v, seen, jnp.float32(LOWEST))

    def step(state, strip):
        more = summed(*strip, state.peak)
        decay = jnp.exp(state.peak - more.peak)
        total = state.total * decay + more.total
        values = state.values * decay[..., None] + more.values
        return LinearState(more.peak, total, values), None

    if seen is None:
        seen = jnp.ones((1, sources, 1, 1), bool)
    strips = tuple(_blocks(x, block) for x in (k, v, seen))
    start = empty_state(k, v, features)
    return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), start, strips)[0]


def empty_state(x: jax.Array, v: jax.Array, features: Features) -> LinearState:
    """The state of no source, for queries or keys like x and values like v."""
    batch, heads, size = v.shape[0], *_feature_shape(x, features)
    total = jnp.zeros((batch, heads, size))
    values = jnp.zeros((batch, heads, size, v.shape[-1]))
    state = LinearState(jnp.full_like(total, LOWEST), total, values)
    return varying.like(state, (x, v))


def causal_step(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    features: Features,
    state: LinearState,
    *,
    kv_mask: jax.Array | None = None,
    tile: int | None = None,
) -> tuple[jax.Array, LinearState]:
    """Causal linear attention that goes on from the state of all earlier sources.

    Args:
        q, k, v, features, kv_mask: as in `linear_attention`, with S = T.
        state: of the sources before these, at first `empty_state`.
        tile: tokens whose pairs are added one by one; for speed and memory only.

    Returns:
        Values [B, T, N, Dv] in the dtype of `v`, and the state with these sources.
    """
    batch, length = q.shape[:2]
    if k.shape[1] != length:
        raise ValueError(
            f"causal linear attention has as many sources as targets, got {k.shape[1]}"
            f" and {length}"
        )
    if length == 0:
        return jnp.zeros((batch, 0, *v.shape[2:]), v.dtype), state
    tile = tile or TILE
    seen = _seen(kv_mask, k)

    def one(state, strip):
        return _causal_tile(features, state, *strip)

    if length <= tile:
        state, y = one(state, (q, k, v, seen))
        return y.astype(v.dtype), state
    if seen is None:
        seen = jnp.ones((1, length, 1, 1), bool)

    def several(state, strip):
        strips = tuple(_blocks(x, tile) for x in strip)
        state, y = jax.lax.scan(jax.checkpoint(one, prevent_cse=False), state, strips)
        return state, _unblocked(y)

    strips = tuple(_blocks(x, min(tile * TILES, length)) for x in (q, k, v, seen))
    state, y = jax.lax.scan(jax.checkpoint(several, prevent_cse=False), state, strips)
    return _unblocked(y)[:, :length].astype(v.dtype), state


def _causal_tile(features, state, q, k, v, seen):
    """Pairs of one tile, and what its targets read from the state before it."""
    q, k, v = features(q), _hidden(features(k), seen), v.astype(jnp.float32)
    peaks = jnp.maximum(jax.lax.cummax(k, axis=1), state.peak[:, None])
    peaks = jax.lax.stop_gradient(peaks)
    # The largest term of each target, [B, t, N, 1]: it is 1 in the sums below.
    top = jnp.max(jax.lax.stop_gradient(q) + peaks, axis=-1, keepdims=True)
    before = jnp.exp(q + state.peak[:, None] - top)
    place = jnp.arange(q.shape[1])
    may = (place[None] <= place[:, None])[None, :, :, None, None]
    pairs = q[:, :, None] + k[:, None] - top[:, :, None]
    weights = jnp.sum(jnp.exp(jnp.where(may, pairs, -jnp.inf)), axis=-1)  # [B, t, s, N]
    below = jnp.einsum("btnr,bnr->btn", before, state.total) + jnp.sum(weights, axis=2)
    above = jnp.einsum("btnr,bnrd->btnd", before, state.values)
    above = above + jnp.einsum("btsn,bsnd->btnd", weights, v)
    peak = peaks[:, -1]
    decay, k = jnp.exp(state.peak - peak), jnp.exp(k - peak[:, None])
    total = state.total * decay + jnp.sum(k, axis=1)
    values = state.values * decay[..., None] + jnp.einsum("bsnr,bsnd->bnrd", k, v)
    return LinearState(peak, total, values), _divide(above, below[..., None], False)


def linear_factors(
    q: jax.Array, k: jax.Array, features: Features, *, kv_mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The matrix of `linear_attention` as two factors, [B, N, T, R] and [B, N, R, S].

    The rows of their product sum to 1.
    """
    k = _hidden(features(k), _seen(kv_mask, k))
    peak = _largest(k)[:, None]
    q, k = _scaled(features(q), peak), jnp.exp(k - peak)
    below = jnp.einsum("btnr,bnr->btn", q, jnp.sum(k, axis=1))[..., None]
    left = _divide(q, below, kv_mask is None and k.shape[1] > 0)
    return left.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1)


def causal_weights(
    q: jax.Array, k: jax.Array, features: Features, *, kv_mask: jax.Array | None = None
) -> jax.Array:
    """The matrix of causal linear attention, [B, N, T, S], target by target."""
    k = _hidden(features(k), _seen(kv_mask, k))
    place = jnp.arange(k.shape[1])

    def row(numbered):
        t, q = numbered
        logits = jax.nn.logsumexp(q[:, None] + k, axis=-1)  # [B, S, N]
        return masked_softmax(logits.swapaxes(1, 2), (place <= t)[None, None])

    rows = jax.lax.map(row, (place, jnp.moveaxis(features(q), 1, 0)))
    return jnp.moveaxis(rows, 0, 2)


def _hidden(k: jax.Array, seen: jax.Array | None) -> jax.Array:
    return k if seen is None else jnp.where(seen, k, -jnp.inf)


def _largest(k: jax.Array) -> jax.Array:
    """[B, S, N, R] -> [B, N, R]."""
    return jax.lax.stop_gradient(jnp.max(k, axis=1, initial=LOWEST))


def _scaled(q: jax.Array, peak: jax.Array) -> jax.Array:
    """Features of queries in units of the keys', and of the largest of each target."""
    q = q + peak
    top = jax.lax.stop_gradient(jnp.max(q, axis=-1, keepdims=True))
    return jnp.exp(q - top)


def _seen(kv_mask: jax.Array | None, k: jax.Array) -> jax.Array | None:
    """Which sources are real, [B or 1, S, 1, 1]."""
    if kv_mask is None:
        return None
    check_kv_mask(kv_mask, *k.shape[:2])
    return kv_mask[:, :, None, None]


def _feature_shape(x: jax.Array, features: Features) -> tuple[int, int]:
    """(N, R) of the features of x [B, L, N, D]."""
    one = jax.ShapeDtypeStruct((1, 1, *x.shape[2:]), x.dtype)
    return jax.eval_shape(features, one).shape[2:]


def _block(x: jax.Array, length: int, features: Features) -> int:
    """How many of `length` tokens such as x [B, L, N, D] to take at once."""
    heads, size = _feature_shape(x, features)
    one = known(x.shape[0]) * heads * size
    whole, part = FEATURES.get(jax.default_backend(), FEATURES_ELSEWHERE)
    return length if one * length <= whole else max(1, part // one)


def _blocks(x: jax.Array, block: int) -> jax.Array:
    """[B, L, ...] to [n, B, block, ...], with zeros (or False) after the end."""
    count = -(-x.shape[1] // block)
    pad = [(0, 0)] * x.ndim
    pad[1] = (0, count * block - x.shape[1])
    x = jnp.pad(x, pad).reshape(x.shape[0], count, block, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)


def _unblocked(y: jax.Array) -> jax.Array:
    """[n, B, block, ...] to [B, n block, ...]."""
    count, batch, block, *rest = y.shape
    return jnp.moveaxis(y, 0, 1).reshape(batch, count * block, *rest)


def _divide(y: jax.Array, below: jax.Array, sure: bool) -> jax.Array:
    """y / below, and zeros where there is nothing below, unless that is `sure`."""
    if sure:
        return y / below
    nothing = below <= 0  # which NaN is not
    return jnp.where(nothing, 0, y / jnp.where(nothing, 1, below))
