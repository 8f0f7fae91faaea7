"""Checks of shapes that several operations share."""

from typing import Any

import jax
import jax.numpy as jnp


def check_kv_mask(kv_mask: jax.Array, batch: Any, sources: int) -> None:
    """Raises ValueError unless `kv_mask` is boolean [B, S], of which B may be 1."""
    if kv_mask.dtype != jnp.bool_:
        raise ValueError(
            f"kv_mask must be boolean (True = a real source), got {kv_mask.dtype}"
        )
    if kv_mask.shape not in ((batch, sources), (1, sources)):
        raise ValueError(
            f"kv_mask must be [B, S] = {(batch, sources)}, got {kv_mask.shape}"
        )


def as_map(x: jax.Array, dtype: Any = None) -> jax.Array:
    """A map [B, H, W, C] in the type in which it is computed.

    Args:
        x: the map.
        dtype: that type; None for that of `x`.

    Raises:
        ValueError: `x` has other than four axes, such as an image that is no batch,
            or the type is none of floating point, in which gates would be 0 or 1.
    """
    if x.ndim != 4:
        raise ValueError(f"x must be a map [B, H, W, C], got an array of {x.shape}")
    dtype = jnp.dtype(x.dtype if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"a map must be of floating point numbers, got {dtype}")
    return x.astype(dtype)


def known(size: Any) -> int:
    """A size for estimates: a symbolic one, as `jax.export` has them, counts as 1."""
    return size if isinstance(size, int) else 1
