"""The penalty by which attention over time pays every place its due.

Xu et al., "Show, Attend and Tell", 2015, https://arxiv.org/abs/1502.03044, equation 14
and section 4.2.1. Letters: B examples, T targets, S sources.
"""

import jax
import jax.numpy as jnp


def doubly_stochastic_penalty(
    weights: jax.Array, mask: jax.Array | None = None, *, total: float = 1.0
) -> jax.Array:
    """sum_s (total - sum_t a_ts)^2 of each example: [B, T, S] -> [B], float32.

    Args:
        weights: what each target reads of each source; rows sum to 1.
        mask: bool [B, T], True = a real target; padding reads nothing.
        total: what all targets together should read of each source. The paper has 1,
            which they can do if there are as many targets as sources.

    Raises:
        ValueError: a mask of another shape.
    """
    weights = weights.astype(jnp.float32)
    if mask is not None:
        if mask.shape != weights.shape[:2]:
            raise ValueError(
                f"mask must be [B, T] = {weights.shape[:2]}, got {mask.shape}"
            )
        weights = jnp.where(mask[..., None], weights, 0.0)
    return jnp.sum(jnp.square(total - jnp.sum(weights, axis=1)), axis=-1)
