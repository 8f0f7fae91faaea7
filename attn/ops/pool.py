"""Average pooling to a size that is given, from maps of any size, larger or smaller."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def adaptive_average_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Means of the cells of a grid over a map, as torch's `adaptive_avg_pool2d`.

    Cell i of h along H pixels are those from floor(i H / h) to ceil((i + 1) H / h), so
    that cells overlap where h does not divide H, and repeat pixels where h > H.

    Args:
        x: [B, H, W, C].
        size: (h, w).

    Returns:
        [B, h, w, C], of the type of x, summed in at least float32.
    """
    exact = jnp.promote_types(x.dtype, jnp.float32)
    rows, columns = (
        jnp.asarray(_cells(to, of), exact)
        for to, of in zip(size, x.shape[1:3], strict=True)
    )
    precise = {"precision": jax.lax.Precision.HIGHEST}
    y = jnp.einsum("hH,bHWc->bhWc", rows, x.astype(exact), **precise)
    return jnp.einsum("wW,bhWc->bhwc", columns, y, **precise).astype(x.dtype)


@functools.cache
def _cells(cells: int, length: int) -> np.ndarray:
    """The share of each pixel in each cell, [cells, length]; rows sum to 1."""
    first = np.arange(cells) * length // cells
    end = -(-(np.arange(cells) + 1) * length // cells)
    place = np.arange(length)
    inside = (place >= first[:, None]) & (place < end[:, None])
    return inside / inside.sum(axis=1, keepdims=True)
