"""Neighborhood attention: each place of a grid attends to the k x k around it.

Hassani, Walton, Li, Li, Shi, "Neighborhood Attention Transformer", CVPR 2023,
https://arxiv.org/abs/2204.07143, section 3, with the borders of its figures: the
window is moved inwards, so that every place has exactly k x k neighbours. Dilation:
Hassani, Shi, "Dilated Neighborhood Attention Transformer", 2022,
https://arxiv.org/abs/2209.15001, section 3: places that differ by a multiple of
the dilation attend to each other as on a grid of their own.

Letters used in shapes:
    B batch, H x W grid, N heads, D channels of one head, Dv those of the values, k the
    side of a window.

The grid is cut into tiles. The windows of a tile lie within one region that is k - 1
longer than the tile, so that a tile is one dense product with a mask, at about twice
the multiply-adds of the windows alone and many times the speed of gathering them. Rows
of tiles follow each other in a loop, recomputed for gradients, so that memory is that
of one row of them. Which region a tile reads is a table made when a program is traced.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from attn.ops.dot_product import masked_softmax
from attn.ops.shapes import known

TILE = 4
# Logits at once, on a CPU to stay in its caches, elsewhere to fill the device.
LOGITS = {"cpu": 2**18}
LOGITS_ELSEWHERE = 2**26


@dataclasses.dataclass(frozen=True)
class Axis:
    """How one axis of a grid is cut into n tiles of t places that read R sources.

    Attributes:
        targets: places of each tile, [n, t]; a ragged tile repeats its last one.
        sources: places of its region, [n, R].
        kinds: [n], for each tile an index into `relative`.
        relative: [u, t, R], place of source minus target in steps of the dilation, plus
            k - 1; -1 where the source is none of the target's.
        order: [length], where in the flat targets each place is.
    """

    targets: np.ndarray
    sources: np.ndarray
    kinds: np.ndarray
    relative: np.ndarray
    order: np.ndarray


def cut(length: int, window: int, dilation: int, tile: int) -> Axis:
    """Cuts an axis, residue class by residue class of the dilation."""
    longest = -(-length // dilation)
    tile = min(tile, longest)
    per_class = -(-longest // tile)
    reach = min(longest, tile + window - 1)
    targets, sources, relative = [], [], []
    for residue in range(dilation):
        count = len(range(residue, length, dilation))
        place = np.arange(per_class * tile).reshape(per_class, tile)
        place = np.minimum(place, count - 1)
        first = np.clip(place - window // 2, 0, count - window)
        begin = np.minimum(first[:, :1], max(count - reach, 0))
        region = begin + np.arange(reach)
        after = region[:, None, :] - first[:, :, None]
        offset = region[:, None, :] - place[:, :, None] + window - 1
        targets.append(residue + dilation * place)
        sources.append(residue + dilation * np.minimum(region, count - 1))
        relative.append(np.where((after >= 0) & (after < window), offset, -1))
    kinds, index = np.unique(np.concatenate(relative), axis=0, return_inverse=True)
    places = np.arange(length)
    order = places % dilation * per_class * tile + places // dilation
    return Axis(
        np.concatenate(targets), np.concatenate(sources), index.ravel(), kinds, order
    )


def check_window(
    grid: Sequence[int], window: Sequence[int], dilation: Sequence[int]
) -> None:
    """Raises ValueError where a window is even, below 1, or larger than its grid."""
    for name, size, k, d in zip(("H", "W"), grid, window, dilation, strict=True):
        if k < 1 or k % 2 == 0:
            raise ValueError(
                f"the window must be odd, got {k}; {max(k - 1, 1)} or {max(k + 1, 3)}"
                " would do"
            )
        if d < 1:
            raise ValueError(f"the dilation must be at least 1, got {d}")
        if k * d > size:
            fit = size // d - (size // d + 1) % 2
            fits = f"a window of up to {fit}" if fit > 0 else "no window"
            raise ValueError(
                f"a window of {k} with dilation {d} spans {k * d}, larger than its grid"
                f" of {grid[0]} x {grid[1]}, whose {name} is {size}; with this dilation"
                f" {fits} fits, with this window a dilation of up to {size // k}"
            )


def neighborhood_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    window: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
    tile: int = TILE,
) -> jax.Array:
    """What each place reads from its neighbours, [B, H, W, N, Dv].

    Args:
        q: queries [B, H, W, N, D].
        k: keys [B, H, W, N, D].
        v: values [B, H, W, N, Dv].
        window: odd sides (kh, kw); times the dilation it must not exceed the grid.
        dilation: steps (dh, dw) between neighbours.
        bias: added to the logits by relative place, [N, 2 kh - 1, 2 kw - 1]; the entry
            [n, kh - 1, kw - 1] is for the place itself.
        mask: boolean, True = may attend, broadcastable to [B, N, T, S] with T = S = H W
            after axes of length 1 are put before it. A place all of whose neighbours
            are masked gets zeros.
        scale: factor of the products; None is 1 / sqrt(D).
        tile: side of a tile; for speed only.

    Returns:
        In the dtype of `v`. Logits and softmax are float32.

    Raises:
        ValueError: shapes do not fit, or `window` does not fit the grid.
    """
    if q.ndim != 5 or q.shape != k.shape or k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            "queries, keys and values must be [B, H, W, N, D] of one grid, got"
            f" {q.shape}, {k.shape} and {v.shape}"
        )
    check_window(q.shape[1:3], window, dilation)
    if q.shape[0] == 0:
        return jnp.zeros((*q.shape[:-1], v.shape[-1]), v.dtype)
    rows, columns = (
        cut(*sizes, tile) for sizes in zip(q.shape[1:3], window, dilation, strict=True)
    )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    read = functools.partial(
        _read_row, rows=rows, columns=columns, bias=_patches(bias, rows, columns)
    )
    strips = [
        _split(q * scale, rows.targets),
        _split(k, rows.sources),
        _split(v, rows.sources),
    ]
    if mask is not None:
        strips.append(_split_mask(mask, q.shape, rows))
    y = jax.lax.map(
        jax.checkpoint(lambda strip: read(*strip), prevent_cse=False),
        (jnp.asarray(rows.kinds), *strips),
        batch_size=_rows_at_once(q.shape, rows, columns),
    )
    count, batch, size, *rest = y.shape
    y = jnp.moveaxis(y, 0, 1).reshape(batch, count * size, *rest)
    return jnp.take(y, rows.order, axis=1, unique_indices=True)


def _rows_at_once(shape: tuple[int, ...], rows: Axis, columns: Axis) -> int:
    """How many rows of tiles to compute together."""
    logits = max(1, known(shape[0])) * shape[3]
    logits *= columns.targets.size * columns.sources.shape[1]
    logits *= rows.targets.shape[1] * rows.sources.shape[1]
    most = LOGITS.get(jax.default_backend(), LOGITS_ELSEWHERE)
    return max(1, min(most // logits, len(rows.kinds)))


def _split(x: jax.Array, places: np.ndarray) -> jax.Array:
    """[B, H, ...] to one strip for each row of tiles, [n, B, t, ...]."""
    count, size = places.shape
    x = jnp.take(x, places.ravel(), axis=1)
    return jnp.moveaxis(x.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)


def _split_mask(mask: jax.Array, shape: tuple[int, ...], rows: Axis) -> jax.Array:
    """A mask to strips [n, t, R, B, N, W, W], where B, N and the first W may be 1."""
    batch, height, width, heads, _ = shape
    full = (batch, heads, height * width, height * width)
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be boolean (True = may attend), got {mask.dtype}")
    own = (1,) * (4 - mask.ndim) + mask.shape
    pairs = zip(own, full, strict=False)
    if len(own) != 4 or any(size not in (1, most) for size, most in pairs):
        raise ValueError(
            f"mask of shape {mask.shape} does not broadcast to [B, N, T, S] = {full}"
        )
    axes = [(1, 1) if size == 1 else (height, width) for size in own[2:]]
    mask = mask.reshape(*own[:2], *axes[0], *axes[1])
    targets = np.minimum(rows.targets, axes[0][0] - 1)
    sources = np.minimum(rows.sources, axes[1][0] - 1)
    return mask[:, :, targets[:, :, None], :, sources[:, None, :]]


def _tile_mask(strip: jax.Array, columns: Axis) -> jax.Array:
    """A strip of a mask, [t, R, B, N, W, W], to tiles [B, n, N, t t', R R']."""
    targets = np.minimum(columns.targets, strip.shape[-2] - 1)
    sources = np.minimum(columns.sources, strip.shape[-1] - 1)
    tiles = strip[..., targets[:, :, None], sources[:, None, :]]
    tiles = tiles.transpose(2, 4, 3, 0, 5, 1, 6)
    *outer, t, own, reach, regions = tiles.shape
    return tiles.reshape(*outer, t * own, reach * regions)


def _patches(bias: jax.Array | None, rows: Axis, columns: Axis) -> jax.Array:
    """What is added to the logits of each kind of tile: -inf outside of windows.

    Returns:
        [kinds of rows, kinds of columns, 1 or N, t t', R R'], float32.
    """
    down, right = rows.relative, columns.relative
    down = down[:, None, :, None, :, None]
    right = right[None, :, None, :, None, :]
    outside = (down < 0) | (right < 0)
    if bias is None:
        patch = jnp.where(outside, -jnp.inf, 0.0)[:, :, None]
    else:
        # The gather's own axes come first: n moves to the third place.
        patch = bias.astype(jnp.float32)[:, np.maximum(down, 0), np.maximum(right, 0)]
        patch = jnp.where(outside[None], -jnp.inf, patch)
        patch = jnp.moveaxis(patch, 0, 2)
    merged = (*patch.shape[:3], -1, patch.shape[-2] * patch.shape[-1])
    return patch.reshape(merged)


def _read_row(
    kind: jax.Array,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None = None,
    *,
    rows: Axis,
    columns: Axis,
    bias: jax.Array,
) -> jax.Array:
    """One row of tiles: q [B, t, W, N, D], k and v [B, R, W, N, D] -> [B, t, W, N, Dv].

    `kind` is the row's index into the first axis of `bias`.
    """
    tiles = functools.partial(_tiles, places=columns.targets)
    regions = functools.partial(_tiles, places=columns.sources)
    logits = jnp.einsum(
        "bcntd,bcnsd->bcnts", tiles(q), regions(k), preferred_element_type=jnp.float32
    )
    logits = logits + bias[kind][columns.kinds][None]
    if mask is not None:
        # What lies outside of the window, -inf, must not count where all is masked.
        mask = _tile_mask(mask, columns) & jnp.isfinite(logits)
    weights = masked_softmax(logits, mask)
    y = jnp.einsum(
        "bcnts,bcnsd->bcntd",
        weights.astype(v.dtype),
        regions(v),
        preferred_element_type=jnp.float32,
    )
    batch, count, heads, _, dim = y.shape
    height = q.shape[1]
    width = columns.targets.shape[1]
    y = y.astype(v.dtype).reshape(batch, count, heads, height, width, dim)
    y = y.transpose(0, 3, 1, 4, 2, 5)
    y = y.reshape(batch, height, count * width, heads, dim)
    return jnp.take(y, columns.order, axis=2, unique_indices=True)


def _tiles(x: jax.Array, places: np.ndarray) -> jax.Array:
    """[B, h, W, N, D] to the places of each tile of columns, [B, n, N, h t, D]."""
    batch, height, _, heads, dim = x.shape
    count, size = places.shape
    x = jnp.take(x, places.ravel(), axis=2)
    x = x.reshape(batch, height, count, size, heads, dim)
    x = x.transpose(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, count, heads, height * size, dim)


def neighborhood_mask(
    grid: tuple[int, int], window: tuple[int, int], dilation: tuple[int, int]
) -> np.ndarray:
    """Who attends to whom, boolean [T, T] with T = H W, for maps and small grids."""
    down, right = relative_places(grid, window, dilation)
    return (down >= 0) & (right >= 0)


def relative_places(
    grid: tuple[int, int], window: tuple[int, int], dilation: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Indices [T, T] into the two axes of a bias; -1 where there is no neighbour."""
    check_window(grid, window, dilation)
    axes = []
    for length, k, d in zip(grid, window, dilation, strict=True):
        axis = cut(length, k, d, length)
        dense = np.full((length, length), -1)
        for targets, sources, kind in zip(
            axis.targets, axis.sources, axis.kinds, strict=True
        ):
            table = axis.relative[kind]
            t, s = np.nonzero(table >= 0)
            dense[targets[t], sources[s]] = table[t, s]
        axes.append(dense)
    height, width = grid
    full = (height, width, height, width)
    down = np.broadcast_to(axes[0][:, None, :, None], full)
    right = np.broadcast_to(axes[1][None, :, None, :], full)
    return tuple(a.reshape(height * width, -1) for a in (down, right))
