"""Glimpses: patches round a place, each twice as wide as the one before.

The retina of Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention",
NIPS 2014, https://arxiv.org/abs/1406.6247, section 3.1.A. Letters: B examples, H x W
pixels of C channels, P places of each example, k scales, h x w pixels of a patch.
"""

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST  # a pixel is taken as it is


def glimpses(
    x: jax.Array, places: jax.Array, size: tuple[int, int], scales: int
) -> jax.Array:
    """Patches of all scales at some places of each map: -> [B, P, k, h, w, C].

    The patch of scale j covers h 2^j x w 2^j whole pixels, the middle of which is as
    near to the place as pixels allow, and is brought to h x w by averages of 2^j x 2^j.
    Beyond the map there are zeros. As rows and columns are read by products with
    matrices of the averages, accelerators do it at the speed of products. There is no
    gradient by the places.

    Args:
        x: the maps, [B, H, W, C].
        places: (x, y), [B, P, 2]; -1 and 1 are the outer edges of the map. They may
            lie outside.
        size: (h, w).
        scales: k.

    Raises:
        ValueError: shapes that do not fit.
    """
    if x.ndim != 4 or places.ndim != 3 or places.shape[::2] != (x.shape[0], 2):
        raise ValueError(
            "x must be [B, H, W, C] and places [B, P, 2], got"
            f" {list(x.shape)} and {list(places.shape)}"
        )
    rows = _averages(places[..., 1], x.shape[1], size[0], scales)
    columns = _averages(places[..., 0], x.shape[2], size[1], scales)
    kinds = {"precision": HIGHEST, "preferred_element_type": jnp.float32}
    real = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)
    read = jnp.einsum("bpkih,bhwc->bpkiwc", rows.astype(real.dtype), real, **kinds)
    read = jnp.einsum("bpkjw,bpkiwc->bpkijc", columns, read, **kinds)
    return read.astype(real.dtype)


def glimpse_grid(
    places: jax.Array, shape: tuple[int, int], size: tuple[int, int], scale: int
) -> jax.Array:
    """Where the pixels of one patch have their middles: [B, 2] -> [B, h, w, 2].

    Args:
        places: (x, y), one of each example.
        shape: (H, W).
        size: (h, w).
        scale: j, from 0 on.
    """
    axes = []
    for axis in (0, 1):
        length, side = shape[1 - axis], size[1 - axis]
        first = _first(places[:, axis], length, side << scale)
        middle = first[:, None] + (jnp.arange(side) + 0.5)[None] * 2**scale
        axes.append(2 * middle / length - 1)
    columns, rows = axes
    return jnp.stack(
        jnp.broadcast_arrays(columns[:, None, :], rows[:, :, None]), axis=-1
    )


def _first(place: jax.Array, length: int, width: int) -> jax.Array:
    """The first pixel, as a float, of `width` ones round places in [-1, 1]."""
    place = jax.lax.stop_gradient(place.astype(jnp.float32))
    return jnp.floor((place + 1) * (length / 2) - width / 2 + 0.5)


def _averages(place: jax.Array, length: int, side: int, scales: int) -> jax.Array:
    """Weights of pixels in the cells of patches: [B, P, k, side, length].

    A pixel counts in the cell of 2^j pixels in which it lies.
    """
    found = []
    for scale in range(scales):
        first = _first(place, length, side << scale)[..., None, None]
        pixel = jnp.arange(length)[None, None, None]
        cell = jnp.floor((pixel - first) / 2**scale)
        inside = cell == jnp.arange(side)[None, None, :, None]
        found.append(inside / jnp.float32(2**scale))
    return jnp.stack(found, axis=2)
