"""Categories drawn by Gumbel noise, and the straight-through gradient of the draw.

Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017,
https://arxiv.org/abs/1611.01144, equations 1 and 2 and section 2.2; Maddison, Mnih,
Teh, 2017, https://arxiv.org/abs/1611.00712. Letters: S categories.
"""

import jax
import jax.numpy as jnp

from attn.ops.dot_product import masked_softmax


def draw_one_hot(
    key: jax.Array, logits: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """One category of each row by the softmax of its logits, as float32 [..., S].

    Args:
        key: of the random numbers.
        logits: [..., S].
        mask: boolean, True = may be drawn, broadcastable to `logits`. A row without
            any is all zeros.
    """
    return _highest(_perturbed(key, logits), mask)


def straight_through_gumbel(
    key: jax.Array,
    logits: jax.Array,
    mask: jax.Array | None = None,
    *,
    temperature: float = 1.0,
) -> jax.Array:
    """`draw_one_hot` with the gradient of softmax((logits + noise) / temperature).

    The value is that of `draw_one_hot` for the same key. Its gradient is biased; the
    lower the temperature, the less it is, and the more it varies.
    """
    noisy = _perturbed(key, logits)
    relaxed = masked_softmax(noisy / temperature, mask)
    # the difference is 0, so that the value is one-hot to the last bit
    return _highest(noisy, mask) + (relaxed - jax.lax.stop_gradient(relaxed))


def _perturbed(key: jax.Array, logits: jax.Array) -> jax.Array:
    logits = logits.astype(jnp.float32)
    return logits + jax.random.gumbel(key, logits.shape, jnp.float32)


def _highest(logits: jax.Array, mask: jax.Array | None) -> jax.Array:
    """1 at the highest logit that may be taken."""
    if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
    chosen = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    return chosen if mask is None else jnp.where(mask, chosen, 0.0)
