"""Dot-product attention with everything materialised, in float32: the oracle.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, equation 1. Memory for B N T S numbers.
"""

import jax
import jax.numpy as jnp

from attn.ops.dot_product import dropout, problem, visible
from attn.ops.dot_product.problem import Asked, Inputs
from attn.ops.sparsemax import entmax15, sparsemax

FUNCTIONS = {
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
    "sparsemax": sparsemax,
    "entmax15": entmax15,
}


def attend(inputs: Inputs, asked: Asked) -> tuple[jax.Array, jax.Array]:
    """The read values [B, T, N, Dv] and the weights [B, N, T, S], at least float32."""
    matrix = weights(inputs, asked)
    used = matrix
    if asked.dropout_rate > 0:
        assert inputs.dropout_rng is not None
        batch, heads, targets, sources = matrix.shape
        seeds = dropout.seeds(inputs.dropout_rng, batch, heads)[:, :, None, None]
        t = jnp.arange(targets)[None, None, :, None]
        s = jnp.arange(sources)[None, None, None, :]
        keep = dropout.kept(seeds, t, s, asked.dropout_rate)
        used = jnp.where(keep, matrix / (1 - asked.dropout_rate), 0)
    key_heads = inputs.v.shape[2]
    used = _grouped(used, key_heads)
    y = jnp.einsum("bkgts,bskd->btkgd", used, inputs.v.astype(used.dtype))
    return y.reshape(*inputs.q.shape[:3], inputs.v.shape[3]), matrix


def weights(inputs: Inputs, asked: Asked) -> jax.Array:
    """The attention matrix [B, N, T, S], before dropout, at least float32."""
    dtype = jnp.promote_types(inputs.q.dtype, jnp.float32)
    batch, targets, heads, channels = inputs.q.shape
    sources, key_heads = inputs.k.shape[1:3]
    q = inputs.q.reshape(batch, targets, key_heads, heads // key_heads, channels)
    logits = asked.scale * jnp.einsum(
        "btkgd,bskd->bkgts", q.astype(dtype), inputs.k.astype(dtype)
    )
    logits = logits.reshape(batch, heads, targets, sources)
    if inputs.bias is not None:
        logits = logits + inputs.bias.astype(dtype)
    if asked.logits_cap is not None:
        logits = asked.logits_cap * jnp.tanh(logits / asked.logits_cap)
    if asked.score_mod is not None:
        sizes = logits.shape
        logits = asked.score_mod.matrix(inputs.score_captured, logits, sizes=sizes)
    mask = visible.combined(inputs, asked)
    if inputs.sinks is None:
        return normalized(logits, mask, asked.normalize)
    sinks = inputs.sinks.astype(dtype)[:, None, None]
    logits = jnp.concatenate(
        [logits, jnp.broadcast_to(sinks, (*logits.shape[:3], 1))], axis=3
    )
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:3], sources))
        mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=True)
    return normalized(logits, mask, asked.normalize)[..., :sources]


def normalized(
    logits: jax.Array, mask: jax.Array | None, normalize: str = "softmax"
) -> jax.Array:
    """Weights over the last axis; zeros where `mask` is False or a logit is -inf.

    A row in which nothing is allowed is all zeros and passes back zero gradients.
    """
    hidden = jnp.isneginf(logits)
    if mask is not None:
        hidden = hidden | ~mask
    # The least finite number, not -inf: a row of -inf alone has NaN gradients.
    logits = jnp.where(hidden, jnp.finfo(logits.dtype).min, logits)
    return jnp.where(hidden, 0, FUNCTIONS[normalize](logits))


def masked_softmax(logits: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Softmax over the last axis, in float32, of the entries that `mask` allows.

    Args:
        logits: [..., S].
        mask: boolean, True = may attend, broadcastable to `logits` after axes of
            length 1 are put before it.

    Returns:
        Weights of the shape of `logits`, float32. Rows sum to 1; a row of which
        nothing is allowed is all zeros and passes back zero gradients.

    Raises:
        ValueError: `mask` is not boolean, or does not fit.
    """
    if mask is not None:
        if mask.dtype != jnp.bool_:
            raise ValueError(
                f"mask must be boolean (True = may attend), got {mask.dtype}"
            )
        mask = problem.broadcastable("mask", mask, logits.shape)
    return normalized(logits.astype(jnp.float32), mask)


def read(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums values [B, S, N, Dv] by weights [B, N, T, S]: [B, T, N, Dv]."""
    y = jnp.einsum(
        "bnts,bsnd->btnd",
        weights.astype(v.dtype),
        v,
        preferred_element_type=jnp.float32,
    )
    return y.astype(v.dtype)


def _grouped(matrix: jax.Array, key_heads: int) -> jax.Array:
    """[B, N, T, S] -> [B, K, N / K, T, S]."""
    batch, heads, *rest = matrix.shape
    return matrix.reshape(batch, key_heads, heads // key_heads, *rest)
