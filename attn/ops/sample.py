"""Bilinear sampling of maps at the places a grid names.

The sampler of Jaderberg et al., "Spatial Transformer Networks", NIPS 2015,
https://arxiv.org/abs/1506.02025, equations 5 to 7, with the conventions of
`torch.nn.functional.grid_sample(mode="bilinear")`, whose values and gradients it
has. `attn.ops.grid` makes grids and says what their units are.

Differs from the paper: it leaves open what lies beyond the edge, which its equation
5 makes 0; and at a place that is exactly a pixel the gradient with respect to the
place is that of the pixels to its right and below (as in PyTorch), where equation 7
would count the pixel itself only.
"""

from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp

PADDINGS = ("zeros", "border", "reflection")


def bilinear_sample(
    x: jax.Array,
    grid: jax.Array,
    *,
    align_corners: bool,
    padding: Literal["zeros", "border", "reflection"],
) -> jax.Array:
    """Reads `x` at the places of `grid`: [B, H, W, C], [B, h, w, 2] -> [B, h, w, C].

    Four gathers of whole pixels and 4 h w C multiply-adds. Places and weights are in
    float32 at least, also where `x` is not. A place that is NaN gives NaN.

    Args:
        x: the maps.
        grid: (x, y) in [-1, 1], of any output size h x w; may lie outside.
        align_corners: -1 and 1 are the centres of the outermost pixels if true,
            and their outer edges if not.
        padding: what lies outside: "zeros"; the nearest pixel of the "border"; or
            the map mirrored at the points -1 and 1, "reflection".

    Returns:
        The values, in the dtype of `x`.

    Raises:
        ValueError: shapes that do not fit, or an unknown padding.
    """
    if x.ndim != 4 or grid.ndim != 4 or grid.shape[::3] != (x.shape[0], 2):
        raise ValueError(
            "x must be [B, H, W, C] and the grid [B, h, w, 2], got"
            f" {list(x.shape)} and {list(grid.shape)}"
        )
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}, got {padding!r}")
    batch, height, width, channels = x.shape
    pixels = x.reshape(batch, height * width, channels)
    grid = grid.astype(jnp.promote_types(grid.dtype, jnp.float32))
    columns = _positions(grid[..., 0], width, align_corners, padding)
    rows = _positions(grid[..., 1], height, align_corners, padding)
    y = 0
    for row, row_weight in _neighbours(rows, height):
        for column, column_weight in _neighbours(columns, width):
            weight = row_weight * column_weight
            y += weight[..., None] * _take(pixels, row * width + column)
    return y.astype(x.dtype)


@jax.vmap
def _take(pixels: jax.Array, index: jax.Array) -> jax.Array:
    """Pixels of one map, [P, C], at flat positions [h, w] that it has: [h, w, C]."""
    return pixels.at[index].get(mode="promise_in_bounds")


def _neighbours(
    position: jax.Array, size: int
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The two pixels beside each position, and their weights.

    A pixel that the map lacks has weight 0, and stands for one that it has.
    """
    before = jnp.floor(position)
    after_weight = position - before
    for pixel, weight in ((before, 1 - after_weight), (before + 1, after_weight)):
        inside = (pixel >= 0) & (pixel <= size - 1) | jnp.isnan(pixel)
        # Clipped before the cast: a far place does not fit an int32.
        index = jnp.clip(pixel, 0, size - 1).astype(jnp.int32)
        yield index, jnp.where(inside, weight, 0)


def _positions(
    place: jax.Array, size: int, align_corners: bool, padding: str
) -> jax.Array:
    """Places in [-1, 1] as positions in pixels, inside the map unless for "zeros"."""
    if align_corners:
        position = (place + 1) * ((size - 1) / 2)
    else:
        position = (place + 1) * (size / 2) - 0.5
    if padding == "zeros":
        return position
    if padding == "reflection":
        position = _reflect(position, size, align_corners)
    # Not jnp.clip, which halves the gradient at the border itself; PyTorch has none.
    position = jnp.where(position <= 0, 0, position)
    return jnp.where(position >= size - 1, size - 1, position)


def _reflect(position: jax.Array, size: int, align_corners: bool) -> jax.Array:
    """Positions mirrored into the map at its outermost centres, or its edges."""
    low, span = (0, size - 1) if align_corners else (-0.5, size)
    if span == 0:
        return jnp.zeros_like(position)
    distance = jnp.mod(position - low, 2 * span)
    return jnp.where(distance > span, 2 * span - distance, distance) + low
