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


def known(size: Any) -> int:
    """A size for estimates: a symbolic one, as `jax.export` has them, counts as 1."""
    return size if isinstance(size, int) else 1
