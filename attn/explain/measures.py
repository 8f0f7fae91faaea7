"""Numbers for where a map of an image puts its mass.

Maps are [B, H, W] and not negative; they are divided by their sums. Objects are
masks, bool [B, H, W]. Each measure is an array [B], or [B, N] for N heads.

    share_inside     what share of the mass lies in the object
    pointing_game    whether the highest point does: Zhang, Lin, Brandt, Shen, Sclaroff,
                     "Top-down Neural Attention by Excitation Backprop", ECCV 2016,
                     https://arxiv.org/abs/1608.00507, section 4.1
    entropy          how spread out it is, 0 for one place and 1 for an even map
    mean_distance    how far tokens read: Dosovitskiy et al., "An Image is Worth 16x16
                     Words", ICLR 2021, https://arxiv.org/abs/2010.11929, figure 7
                     right and appendix D.7
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.explain.places import normalise, on_grid, prefix_of, read_rows


def share_inside(maps: jax.Array, objects: jax.Array) -> jax.Array:
    """The share of the mass inside the object, [B] in [0, 1]; NaN without an object.

    An even map has the share of the area that the object has: compare with it.
    """
    _check(maps, objects)
    inside = (normalise(maps) * objects).sum(axis=(1, 2))
    return jnp.where(objects.any(axis=(1, 2)), inside, jnp.nan)


def pointing_game(
    maps: jax.Array, objects: jax.Array, *, tolerance: float = 0.0
) -> jax.Array:
    """Whether the highest point lies in the object, [B]; NaN without an object.

    Args:
        maps: [B, H, W].
        objects: bool [B, H, W].
        tolerance: how far from the object it may lie, in pixels, between centres. The
            paper has 15, for images some 300 to 500 pixels wide.

    Returns:
        1 or 0; where several points are equally high, the share of them that hit.
    """
    _check(maps, objects)
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    hit = highest & _near(objects, tolerance)
    share = hit.sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return jnp.where(objects.any(axis=(1, 2)), share, jnp.nan)


def entropy(maps: jax.Array) -> jax.Array:
    """-sum p log p over the log of the number of places, [B]: 1 for an even map.

    Maps of a single place have 0.
    """
    p = normalise(maps)
    places = math.prod(maps.shape[1:])
    if places == 1:
        return jnp.zeros(len(maps))
    return -jax.scipy.special.xlogy(p, p).sum(axis=(1, 2)) / math.log(places)


def mean_distance(
    matrix: Any, grid: tuple[int, int], *, spacing: tuple[float, float] = (1.0, 1.0)
) -> jax.Array:
    """How far tokens read in the mean, head by head, [B, N].

    Distances are between the centres of the cells, weighted by what is read. Tokens
    before the grid, such as a class token, neither ask nor are read here; rows are
    divided by what is left of them.

    Args:
        matrix: [B, N, T, S] with T = S, or two factors of it.
        grid: (h, w), on which the tokens lie.
        spacing: of rows and of columns; the sides of a patch give pixels, 1 patches.

    Raises:
        ValueError: targets that are not the sources.
    """
    whole = jnp.abs(read_rows(matrix, slice(None))).astype(jnp.float32)
    targets, sources = whole.shape[2:]
    if targets != sources:
        raise ValueError(
            f"distances are between tokens of one grid, got {targets} targets and"
            f" {sources} sources"
        )
    rows = on_grid(whole[:, :, prefix_of(targets, grid) :], grid)
    total = rows.sum(axis=(-2, -1))
    y, x = (step * np.arange(n) for n, step in zip(grid, spacing, strict=True))
    places = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 1, 1, 2)
    apart = np.linalg.norm(places - places.reshape(1, *grid, 2), axis=-1)
    apart = jnp.asarray(apart, jnp.float32)
    far = jnp.einsum("bnthw,thw->bnt", rows, apart, precision="highest")
    nothing = total <= 0
    return jnp.where(nothing, 0, far / jnp.where(nothing, 1, total)).mean(axis=-1)


def _near(objects: jax.Array, tolerance: float) -> jax.Array:
    """The pixels that are no farther than `tolerance` from the object."""
    reach = int(tolerance)
    near = jnp.asarray(objects, bool)
    if not reach:
        return near
    height, width = near.shape[1:]
    padded = jnp.pad(near, ((0, 0), (reach, reach), (reach, reach)))
    steps = range(-reach, reach + 1)
    for down in steps:
        for right in steps:
            if 0 < down**2 + right**2 <= tolerance**2:
                rows = slice(reach + down, reach + down + height)
                columns = slice(reach + right, reach + right + width)
                near = near | padded[:, rows, columns]
    return near


def _check(maps: jax.Array, objects: jax.Array) -> None:
    if maps.shape != objects.shape or objects.dtype != bool:
        raise ValueError(
            f"objects must be boolean masks of shape {list(maps.shape)}, as the maps,"
            f" got {objects.dtype} {list(objects.shape)}"
        )
