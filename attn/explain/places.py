"""Captured attention as shares of an image: each kind of map as [B, H, W] of sum 1.

    spatial_map, pixel_gate   the size of the gates, mean over channels
    token_matrix, factors     what the class token reads, where there is one before the
                              grid; otherwise what all tokens read in the mean. Heads
                              are averaged; weights that may be negative (non-local's
                              dot products, Linformer's factors) count by their size
    sampling_grid             how densely the image is sampled: each sample is shared
                              by the four pixels that bilinear sampling reads
    channel_gate,             no places: what to look at, not where. For these
    channel_matrix            `attn.explain.attention_maps` goes another way

A share of a coarse map is spread evenly over the pixels that its cell covers, so that
no mass is gained or lost. Pictures of the same maps are the matter of
`attn.report.draw.maps`, which reads files and needs no JAX.

Letters used in shapes:
    B examples, H x W the image, h x w a map or grid of tokens, C channels, N heads, T
    targets, S sources, R rank.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.modules import Map

MOST_PREFIX = 2  # tokens before the grid, as DeiT has them


def relevance(found: Map, size: tuple[int, int]) -> jax.Array | None:
    """What share of its attention a captured map gives to each pixel of the image.

    Args:
        found: one of the maps that `attn.capture` returns.
        size: (H, W) of the image.

    Returns:
        float32 [B, H, W], each example of sum 1; or None for a map without places:
        gates and matrices of channels, and tokens that lie on no known grid.
    """
    if found.kind not in REDUCTIONS:
        return None
    exact = jax.tree.map(lambda values: values.astype(jnp.float32), found)
    maps = REDUCTIONS[found.kind](exact, size)
    return None if maps is None else spread(normalise(maps), size)


def normalise(maps: jax.Array) -> jax.Array:
    """Maps [B, h, w] in float32, each divided by its sum; a map without any is even.

    Raises:
        ValueError: not three axes.
    """
    if maps.ndim != 3:
        raise ValueError(f"maps must be [B, h, w], got {list(maps.shape)}")
    maps = jnp.asarray(maps, jnp.float32)
    total = maps.sum(axis=(1, 2), keepdims=True)
    even = jnp.full_like(maps, 1 / max(1, math.prod(maps.shape[1:])))
    nothing = total <= 0  # which NaN is not
    return jnp.where(nothing, even, maps / jnp.where(nothing, 1, total))


def spread(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Maps [B, h, w] at another resolution, [B, H, W], with the same sums.

    Both lie over the same frame; each cell's mass is spread evenly over its area.
    """
    if maps.shape[1:] == tuple(size):
        return maps
    rows, columns = (
        jnp.asarray(_overlap(fine, coarse), maps.dtype)
        for fine, coarse in zip(size, maps.shape[1:], strict=True)
    )
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("Hh,bhw,Ww->bHW", rows, maps, columns, precision=exact)


def _overlap(fine: int, coarse: int) -> np.ndarray:
    """Which share of each cell of `coarse` lies in each of `fine`, [fine, coarse]."""
    to, of = np.arange(fine)[:, None] / fine, np.arange(coarse) / coarse
    inside = np.minimum(to + 1 / fine, of + 1 / coarse) - np.maximum(to, of)
    return np.maximum(inside, 0) * coarse


def read_rows(values: Any, targets: slice) -> jax.Array:
    """What some targets read, head by head: [B, N, T', S].

    Args:
        values: a matrix [B, N, T, S], or two factors of it, [B, N, T, R] and
            [B, N, R, S], whose product is not built for other targets.
        targets: which of the T targets.
    """
    if isinstance(values, tuple | list):
        left, right = values
        return left[:, :, targets] @ right
    return values[:, :, targets]


def matrix_shape(found: Map) -> tuple[int, int]:
    """Targets and sources of a recorded matrix, or of its two factors: T and S."""
    both = found.values if found.kind == "factors" else (found.values, found.values)
    return both[0].shape[2], both[1].shape[3]


def on_grid(rows: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Rows [..., S] on their grid, [..., h, w], without the tokens before it.

    Raises:
        ValueError: fewer sources than places.
    """
    prefix = prefix_of(rows.shape[-1], grid)
    return rows[..., prefix:].reshape(*rows.shape[:-1], *grid)


def prefix_of(tokens: int, grid: tuple[int, int]) -> int:
    """How many tokens, such as a class token, stand before those of the grid.

    Raises:
        ValueError: fewer tokens than places.
    """
    prefix = tokens - math.prod(grid)
    if prefix < 0:
        raise ValueError(f"a grid {grid[0]}x{grid[1]} has more places than {tokens}")
    return prefix


def grid_of(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """The grid of square patches of an image on which tokens lie, if there is one.

    Args:
        tokens: their number, up to MOST_PREFIX of which stand before the grid.
        size: (H, W) of the image.
    """
    side = math.gcd(*size)
    for patch in range(1, side + 1):
        if side % patch == 0:
            grid = (size[0] // patch, size[1] // patch)
            if 0 <= tokens - math.prod(grid) <= MOST_PREFIX:
                return grid
    return None


def bilinear_weights(
    grid: jax.Array, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """How much each sample reads of each row and each column of a map.

    Equation 5 of Jaderberg et al., "Spatial Transformer Networks", 2015,
    https://arxiv.org/abs/1506.02025: the weight of pixel (n, m) is
    max(0, 1 - |y - n|) max(0, 1 - |x - m|).

    Args:
        grid: (x, y) [B, h, w, 2], -1 and 1 being the outer edges of the map.
        size: (H, W) of the map.

    Returns:
        [B, h w, H] and [B, h w, W].
    """
    places = grid.reshape(len(grid), -1, 2).astype(jnp.float32)
    both = []
    for axis, length in ((1, size[0]), (0, size[1])):
        centre = ((places[..., axis] + 1) * length - 1) / 2
        apart = jnp.abs(
            centre[..., None] - jnp.arange(length, dtype=jnp.float32)[None, None]
        )
        both.append(jnp.maximum(0, 1 - apart))
    return both[0], both[1]


def _sizes_of_gates(found: Map, size: tuple[int, int]) -> jax.Array:
    del size
    sizes = jnp.abs(found.values)
    return sizes.mean(axis=-1) if found.kind == "pixel_gate" else sizes


def _tokens(found: Map, size: tuple[int, int]) -> jax.Array | None:
    targets, sources = matrix_shape(found)
    grid = found.grid or grid_of(sources, size)
    if grid is None:
        return None
    prefix = prefix_of(sources, grid)
    ask = slice(0, prefix) if prefix and targets == sources else slice(None)
    rows = jnp.abs(read_rows(found.values, ask)).mean(axis=(1, 2))
    return on_grid(rows, grid)


def _density(found: Map, size: tuple[int, int]) -> jax.Array:
    rows, columns = bilinear_weights(found.values, size)
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("bnh,bnw->bhw", rows, columns, precision=exact)


REDUCTIONS: dict[str, Callable[[Map, tuple[int, int]], jax.Array | None]] = {
    "factors": _tokens,
    "pixel_gate": _sizes_of_gates,
    "sampling_grid": _density,
    "spatial_map": _sizes_of_gates,
    "token_matrix": _tokens,
}
