"""Cross-covariance attention: channels attend to channels, over all tokens at once.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021,
https://arxiv.org/abs/2106.09681, equation 2.

Letters used in shapes:
    B batch, T tokens, N heads, D channels of one head, Dv those of the values.
"""

import jax
import jax.numpy as jnp

from attn.ops.shapes import check_kv_mask

# Channels shorter than this over all tokens are not stretched to length 1.
SMALLEST_NORM = 1e-6


def cross_covariance_weights(
    q: jax.Array,
    k: jax.Array,
    temperature: jax.Array,
    *,
    kv_mask: jax.Array | None = None,
) -> jax.Array:
    """softmax_e(temperature sum_t q_td k_te / (|q_d| |k_e|)), float32.

    Args:
        q, k: queries and keys of the same tokens, [B, T, N, D].
        temperature: factor of the products, [N].
        kv_mask: boolean [B, T], True = a real token; others are left out of norms and
            products.

    Returns:
        [B, N, D, D]; each row, over the channels of `k`, sums to 1.

    Raises:
        ValueError: queries and keys of different shapes, or a mask that does not fit.
    """
    if q.shape != k.shape:
        raise ValueError(
            "cross-covariance sums products over tokens, so that queries and keys need"
            f" one shape [B, T, N, D], got {q.shape} and {k.shape}"
        )
    if kv_mask is not None:
        check_kv_mask(kv_mask, *k.shape[:2])
        seen = kv_mask[:, :, None, None]
        q, k = jnp.where(seen, q, 0), jnp.where(seen, k, 0)
    q, k = _normalise(q), _normalise(k)
    cosines = jnp.einsum("btnd,btne->bnde", q, k, preferred_element_type=jnp.float32)
    factor = temperature.astype(jnp.float32)[None, :, None, None]
    return jax.nn.softmax(factor * cosines, axis=-1)


def cross_covariance_read(weights: jax.Array, v: jax.Array) -> jax.Array:
    """Mixes the channels of each token by weights [B, N, D, Dv]: [B, T, N, D]."""
    y = jnp.einsum(
        "bnde,btne->btnd",
        weights.astype(v.dtype),
        v,
        preferred_element_type=jnp.float32,
    )
    return y.astype(v.dtype)


def _normalise(x: jax.Array) -> jax.Array:
    """Divides each channel by its length over all tokens, in float32."""
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, SMALLEST_NORM**2))
