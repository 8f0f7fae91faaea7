"""Masks that are alike for all targets, for attentions that sum over sources once."""

import jax
import jax.numpy as jnp


def source_mask(mask: jax.Array, shape: tuple[int, int, int, int]) -> jax.Array:
    """Which sources exist, from a mask that does not tell targets apart.

    An attention that never builds the matrix [B, N, T, S] cannot forbid single
    entries of it; it can leave out whole sources, such as padding.

    Args:
        mask: boolean, True = may attend, broadcastable to `shape` after axes of length
            1 are put before it, with a third axis of length 1.
        shape: (B, N, T, S).

    Returns:
        Boolean, [B or 1, N or 1, S].

    Raises:
        ValueError: `mask` is not boolean, does not fit, or tells targets apart.
    """
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be boolean (True = may attend), got {mask.dtype}")
    full = (1,) * (4 - mask.ndim) + mask.shape
    pairs = zip(full, shape, strict=False)
    if len(full) != 4 or any(own not in (1, size) for own, size in pairs):
        raise ValueError(
            f"mask of shape {mask.shape} does not broadcast to [B, N, T, S] = {shape}"
        )
    if full[2] != 1:
        raise ValueError(
            f"this attention sums over sources once for all {shape[2]} targets, so that"
            f" its mask must be [B, N, 1, S], got one of shape {mask.shape}"
        )
    return jnp.broadcast_to(mask.reshape(full), (*full[:3], shape[3]))[:, :, 0]
