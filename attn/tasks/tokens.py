"""What tasks on tokens share: cross-entropy by token, and sums over real tokens."""

import jax
import jax.numpy as jnp

from attn.tasks.base import Mean


def cross_entropy(
    logits: jax.Array, tokens: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """The cross-entropy of each token in nats, float32: [..., V] and [...] -> [...].

    It is that of `optax.smooth_labels`, which needs no array of targets here.

    Args:
        logits: of the V tokens.
        tokens: the right ones.
        smoothing: the share of the target that is spread evenly over all V tokens
            (Szegedy et al. 2015, https://arxiv.org/abs/1512.00567, section 7).
    """
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    wanted = (1 - smoothing) * own
    if smoothing:
        wanted += smoothing * logits.mean(axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - wanted


def over(values: jax.Array, mask: jax.Array) -> Mean:
    """One of each example, a mean over its real tokens: [B, T] and bool [B, T]."""
    kept = jnp.where(mask, values, 0.0)
    return Mean(kept.sum(axis=1), mask.sum(axis=1, dtype=jnp.float32))


def wrong(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Percent, 0 or 100, of each token: [..., V] and [...] -> [...]."""
    return 100.0 * (jnp.argmax(logits, axis=-1) != tokens)
