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
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from attn.ops.padding import source_mask

Features = Callable[[jax.Array], jax.Array]
# Up to how many features are made all at once, and how many in a block where they are
# more: on a CPU to stay in its caches (measured), elsewhere to spare memory.
FEATURES = {"cpu": (2**20, 2**15)}
FEATURES_ELSEWHERE = (2**26, 2**26)
# The logarithm of a feature that no source has, or less: its differences are finite.
LOWEST = -1e30


def linear_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    features: Features,
    *,
    mask: jax.Array | None = None,
    block: int | None = None,
) -> jax.Array:
    """What each target reads, [B, T, N, Dv], in B N (T + S) R Dv multiply-adds.

    Args:
        q: queries [B, T, N, D].
        k: keys [B, S, N, D].
        v: values [B, S, N, Dv].
        features: makes of x [B, L, N, D] the logarithms of its features,
            [B, L, N, R], float32, token by token.
        mask: boolean, True = may attend, broadcastable to [B, N, 1, S]. Where no
            source is left, targets get zeros and pass back zero gradients.
        block: tokens at once; for speed and memory only. None chooses it.

    Returns:
        In the dtype of `v`; sums are float32.

    Raises:
        ValueError: `mask` does not fit or tells targets apart.
    """
    batch, targets, heads, _ = q.shape
    block = block or _block(q, max(targets, k.shape[1]), features)
    seen = _seen(mask, q, k)
    most, total, values = _sum_keys(k, v, seen, features, block)

    def read(q):
        q = _scaled(features(q), most)
        below = jnp.einsum("btnr,bnr->btn", q, total)[..., None]
        return _divide(jnp.einsum("btnr,bnrd->btnd", q, values), below, mask)

    if block >= targets:
        return read(q).astype(v.dtype)
    y = jax.lax.map(jax.checkpoint(read, prevent_cse=False), _blocks(q, block))
    y = jnp.moveaxis(y, 0, 1).reshape(batch, -1, heads, v.shape[-1])
    return y[:, :targets].astype(v.dtype)


def linear_factors(
    q: jax.Array, k: jax.Array, features: Features, *, mask: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The matrix of `linear_attention` as two factors, [B, N, T, R] and [B, N, R, S].

    The rows of their product sum to 1.
    """
    seen, k = _seen(mask, q, k), features(k)
    k = k if seen is None else jnp.where(seen, k, -jnp.inf)
    most = _largest(k)
    q, k = _scaled(features(q), most), jnp.exp(k - most)
    below = jnp.einsum("btnr,bnr->btn", q, jnp.sum(k, axis=1))[..., None]
    left = _divide(q, below, mask)
    return left.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1)


def _sum_keys(
    k: jax.Array, v: jax.Array, seen: jax.Array | None, features: Features, block: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What targets need to know of the sources.

    Returns:
        The largest logarithm of each feature, [B, 1, N, R]; the sum of features in
        units of it, [B, N, R]; and that of features times values, [B, N, R, Dv].
    """

    def summed(k, v, seen, before):
        k = features(k)
        k = k if seen is None else jnp.where(seen, k, -jnp.inf)
        most = jnp.maximum(_largest(k), before)
        k = jnp.exp(k - most)
        values = jnp.einsum("bsnr,bsnd->bnrd", k, v.astype(jnp.float32))
        return most, jnp.sum(k, axis=1), values

    sources = k.shape[1]
    if block >= sources:
        return summed(k, v, seen, jnp.float32(LOWEST))

    def step(carry, strip):
        before, total, values = carry
        most, more, product = summed(*strip, before)
        decay = jnp.exp(before - most)[:, 0]
        total = total * decay + more
        return (most, total, values * decay[..., None] + product), None

    if seen is None:
        seen = jnp.ones((1, sources, 1, 1), bool)
    strips = [_blocks(x, block) for x in (k, v, seen)]
    shapes = jax.eval_shape(
        summed, *(x[0] for x in strips), jax.ShapeDtypeStruct((), jnp.float32)
    )
    start = [jnp.zeros(shape.shape) for shape in shapes]
    start[0] = start[0] + LOWEST
    step = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(step, tuple(start), tuple(strips))[0]


def _largest(k: jax.Array) -> jax.Array:
    most = jnp.max(k, axis=1, keepdims=True)
    return jax.lax.stop_gradient(jnp.maximum(most, LOWEST))


def _scaled(q: jax.Array, most: jax.Array) -> jax.Array:
    """Features of queries in units of the keys', and of the largest of each target."""
    q = q + most
    top = jax.lax.stop_gradient(jnp.max(q, axis=-1, keepdims=True))
    return jnp.exp(q - top)


def _seen(mask: jax.Array | None, q: jax.Array, k: jax.Array) -> jax.Array | None:
    """Which sources exist, [B or 1, S, N or 1, 1]."""
    if mask is None:
        return None
    shape = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    return source_mask(mask, shape).swapaxes(1, 2)[..., None]


def _block(x: jax.Array, length: int, features: Features) -> int:
    """How many of `length` tokens such as x [B, L, N, D] to take at once."""
    one = jax.eval_shape(
        features, jax.ShapeDtypeStruct((len(x), 1, *x.shape[2:]), x.dtype)
    ).size
    whole, part = FEATURES.get(jax.default_backend(), FEATURES_ELSEWHERE)
    return length if one * length <= whole else max(1, part // one)


def _blocks(x: jax.Array, block: int) -> jax.Array:
    """[B, L, ...] to [n, B, block, ...], with zeros (or False) after the end."""
    count = -(-x.shape[1] // block)
    pad = [(0, 0)] * x.ndim
    pad[1] = (0, count * block - x.shape[1])
    x = jnp.pad(x, pad).reshape(len(x), count, block, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)


def _divide(y: jax.Array, below: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return y / below
    return jnp.where(below > 0, y / jnp.where(below > 0, below, 1), 0)
