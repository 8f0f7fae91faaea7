"""Softmax attention by dot products: softmax(q k^T * scale + bias) v.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, equation 1.

Letters used in shapes:
    B batch, T targets (queries), S sources (keys), N heads, D channels of one head,
    Dv channels of one head of the values.

Differs from `jax.nn.dot_product_attention`: a target that may attend to nothing
gets zeros (there the mean of the values), with zero gradients; the values may have
another width than the keys; keys have as many heads as queries.
"""

import jax
import jax.numpy as jnp


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
    logits = logits.astype(jnp.float32)
    if mask is None:
        return jax.nn.softmax(logits, axis=-1)
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be boolean (True = may attend), got {mask.dtype}")
    mask = _broadcastable("mask", mask, logits.shape)
    # The least finite number, not -inf: a row of -inf alone has NaN gradients.
    lowest = jnp.finfo(jnp.float32).min
    weights = jax.nn.softmax(jnp.where(mask, logits, lowest), axis=-1)
    return jnp.where(mask, weights, 0.0)


def attention_weights(
    q: jax.Array,
    k: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """The attention matrix softmax(q k^T * scale + bias), [B, N, T, S], float32.

    Arguments and errors are those of `dot_product_attention`.
    """
    if q.ndim != 4 or k.ndim != 4 or q.shape[0::2] != k.shape[0::2]:
        raise ValueError(
            "queries [B, T, N, D] and keys [B, S, N, D] must agree in B and N, got"
            f" {q.shape} and {k.shape}"
        )
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"heads of queries have {q.shape[-1]} channels, of keys {k.shape[-1]}"
        )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    logits = scale * jnp.einsum(
        "btnd,bsnd->bnts", q, k, preferred_element_type=jnp.float32
    )
    if bias is not None:
        bias = _broadcastable("bias", bias, logits.shape)
        logits = logits + bias.astype(jnp.float32)
    return masked_softmax(logits, mask)


def dot_product_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
    return_weights: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """What each target reads: softmax(q k^T * scale + bias) v, [B, T, N, Dv].

    Logits and softmax are float32 whatever the inputs are. Costs B N T S (D + Dv)
    multiply-adds, and memory for B N T S weights.

    Args:
        q: queries [B, T, N, D].
        k: keys [B, S, N, D].
        v: values [B, S, N, Dv].
        bias: added to the logits, broadcastable to [B, N, T, S].
        mask: boolean, True = may attend, broadcastable to [B, N, T, S]. A target
            that may attend to nothing gets zeros and passes back zero gradients.
        scale: factor of the products; None is 1 / sqrt(D).
        return_weights: whether to return the matrix too.

    Returns:
        The read values, in the dtype of `v`; with `return_weights` a pair of them
        and the weights [B, N, T, S], float32.

    Raises:
        ValueError: shapes do not fit, or `mask` is not boolean.
    """
    if v.shape[:-1] != k.shape[:-1]:
        raise ValueError(
            "keys [B, S, N, D] and values [B, S, N, Dv] must agree in B, S and N, got"
            f" {k.shape} and {v.shape}"
        )
    weights = attention_weights(q, k, bias=bias, mask=mask, scale=scale)
    y = read(weights, v)
    return (y, weights) if return_weights else y


def read(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Sums values [B, S, N, Dv] by weights [B, N, T, S]: [B, T, N, Dv]."""
    y = jnp.einsum(
        "bnts,bsnd->btnd",
        weights.astype(v.dtype),
        v,
        preferred_element_type=jnp.float32,
    )
    return y.astype(v.dtype)


def _broadcastable(name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`array` with axes of length 1 before it, so that it broadcasts to `shape`."""
    try:
        if jnp.broadcast_shapes(array.shape, shape) != shape:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{name} of shape {array.shape} does not broadcast to [B, N, T, S] ="
            f" {shape}"
        ) from None
    return array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
