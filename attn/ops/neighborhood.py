"""Neighborhood attention: each place of a grid attends to those around it.

Hassani, Walton, Li, Li, Shi, "Neighborhood Attention Transformer", CVPR 2023,
https://arxiv.org/abs/2204.07143, section 3, with the borders of its figures: the
window is moved inwards, so that every place has exactly k x k neighbours. Dilation:
Hassani, Shi, "Dilated Neighborhood Attention Transformer", 2022,
https://arxiv.org/abs/2209.15001, section 3: places that differ by a multiple of
the dilation attend to each other as on a grid of their own. Stride: Hassani et al.,
"Generalized Neighborhood Attention: Multi-dimensional Sparse Attention at the Speed of
Light", 2025, https://arxiv.org/abs/2504.16922, section 3: so many places in a row share
the window of the middle one of them. Causal axes are those of the authors' NATTEN: a
window ends at the place itself, and is shorter where it would begin before the grid;
with a stride it begins where that of the last place of its group does.

Letters used in shapes:
    B batch, H x W grid, N heads, D channels of one head, Dv those of the values, k the
    side of a window. Grids have one, two or three axes; T is the number of places.

The grid is cut into tiles. The windows of a tile lie within one region that is k - 1
longer than the tile, so that a tile is one dense product with a mask, at about twice
the multiply-adds of the windows alone and many times the speed of gathering them; with
a stride as long as the tile, at no more than them. Rows of tiles follow each other in a
loop, recomputed for gradients, so that memory is that of one row of them. Which region
a tile reads is a table made when a program is traced.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from attn.ops.dot_product import masked_softmax
from attn.ops.shapes import known

# Side of a tile, about, on grids of one, two and three axes.
TILES = {1: 16, 2: 4, 3: 2}
NAMES = {1: ("T",), 2: ("H", "W"), 3: ("D", "H", "W")}
# Logits at once, on a CPU to stay in its caches, elsewhere to fill the device.
LOGITS = {"cpu": 2**18}
LOGITS_ELSEWHERE = 2**26


@dataclasses.dataclass(frozen=True)
class Window:
    """What a place sees along one axis.

    Attributes:
        size: k, of the neighbours. Of an even number there is one more before.
        dilation: step between neighbours.
        stride: places in a row that share a window, at most `size`.
        causal: whether no place sees what comes after it.
    """

    size: int
    dilation: int = 1
    stride: int = 1
    causal: bool = False

    def bounds(self, place: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first neighbour of places, and what follows the last one.

        Args:
            place: of one residue class of the dilation, counted within it.
            count: places of this class.
        """
        group = place // self.stride * self.stride
        if self.causal:
            leader = np.minimum(group + self.stride - 1, count - 1)
            return np.maximum(leader - self.size + 1, 0), place + 1
        leader = np.minimum(group + self.stride // 2, count - 1)
        first = np.clip(leader - self.size // 2, 0, count - self.size)
        return first, first + self.size

    def tile(self, about: int) -> int:
        """The multiple of the stride that is closest to `about`."""
        return self.stride * max(1, round(about / self.stride))


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


def cut(length: int, window: Window, tile: int) -> Axis:
    """Cuts an axis, residue class by residue class of the dilation."""
    dilation = window.dilation
    longest = -(-length // dilation)
    tile = min(tile, longest)
    per_class = -(-longest // tile)
    tiles = np.arange(per_class * tile).reshape(per_class, tile)
    classes = []
    for residue in range(dilation):
        count = len(range(residue, length, dilation))
        place = np.minimum(tiles, count - 1)
        classes.append((residue, count, place, *window.bounds(place, count)))
    reach = max(np.max(end[:, -1] - first[:, 0]) for *_, first, end in classes)
    targets, sources, relative = [], [], []
    for residue, count, place, first, end in classes:
        begin = np.minimum(first[:, :1], max(count - reach, 0))
        region = begin + np.arange(reach)
        seen = region[:, None, :] >= first[:, :, None]
        seen &= region[:, None, :] < end[:, :, None]
        offset = region[:, None, :] - place[:, :, None] + window.size - 1
        targets.append(residue + dilation * place)
        sources.append(residue + dilation * np.minimum(region, count - 1))
        relative.append(np.where(seen, offset, -1))
    kinds, index = np.unique(np.concatenate(relative), axis=0, return_inverse=True)
    places = np.arange(length)
    order = places % dilation * per_class * tile + places // dilation
    return Axis(
        np.concatenate(targets), np.concatenate(sources), index.ravel(), kinds, order
    )


def windows(
    grid: Sequence[int],
    window: Sequence[int],
    dilation: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    causal: Sequence[bool] | None = None,
) -> list[Window]:
    """The window of each axis of a grid.

    Raises:
        ValueError: not one number for each axis, or a window, dilation or stride that
            the grid or the window has no room for.
    """
    ones = (1,) * len(grid)
    dilation, stride = dilation or ones, stride or ones
    causal = (False,) * len(grid) if causal is None else causal
    given = {"window": window, "dilation": dilation, "stride": stride, "causal": causal}
    for name, values in given.items():
        if len(values) != len(grid):
            raise ValueError(
                f"{name} must have a value for each of the {len(grid)} axes of the"
                f" grid, got {tuple(values)}"
            )
    made = [Window(*one) for one in zip(*given.values(), strict=True)]
    for name, size, axis in zip(NAMES[len(grid)], grid, made, strict=True):
        _check_axis(name, size, axis, grid)
    return made


def _check_axis(name: str, size: int, axis: Window, grid: Sequence[int]) -> None:
    """Raises ValueError where a window does not fit an axis."""
    k, d = axis.size, axis.dilation
    for what, value in (("window", k), ("dilation", d), ("stride", axis.stride)):
        if value < 1:
            raise ValueError(f"the {what} must be at least 1, got {value}")
    if axis.stride > k:
        raise ValueError(
            f"a stride of {axis.stride} is longer than its window of {k}; up to {k}"
            " would do"
        )
    if k * d > size:
        fit = size // d
        fits = f"a window of up to {fit}" if fit > 0 else "no window"
        sides = " x ".join(map(str, grid))
        raise ValueError(
            f"a window of {k} with dilation {d} spans {k * d}, larger than its grid"
            f" of {sides}, whose {name} is {size}; with this dilation"
            f" {fits} fits, with this window a dilation of up to {size // k}"
        )


def neighborhood_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    window: Sequence[int],
    dilation: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    causal: Sequence[bool] | None = None,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
    tile: int | None = None,
) -> jax.Array:
    """Neighborhood attention on a grid of one to three axes: [B, H, W, N, Dv].

    Args:
        q: queries [B, H, W, N, D], or [B, L, N, D] or [B, Z, H, W, N, D].
        k: keys, as the queries.
        v: values [B, H, W, N, Dv].
        window: sides (kh, kw); times the dilation they must not exceed the grid. The
            papers have odd ones; of an even one there is one place more before.
        dilation: steps (dh, dw) between neighbours; None is 1.
        stride: places (sh, sw) in a row that share a window; None is 1.
        causal: along which axes no place sees what comes after it; None is along none.
        bias: added to the logits by relative place, [N, 2 kh - 1, 2 kw - 1]; the entry
            [n, kh - 1, kw - 1] is for the place itself.
        mask: boolean, True = may attend, broadcastable to [B, N, T, S] with T = S = H W
            after axes of length 1 are put before it. A place all of whose neighbours
            are masked gets zeros.
        scale: factor of the products; None is 1 / sqrt(D).
        tile: side of a tile; for speed only. None is about 4, and a multiple of the
            stride.

    Returns:
        In the dtype of `v`. Logits and softmax are float32.

    Raises:
        ValueError: shapes do not fit, or `window` does not fit the grid.
    """
    axes = q.ndim - 3
    if axes not in TILES or q.shape != k.shape or k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            "queries, keys and values must be [B, H, W, N, D] of one grid of one to"
            f" three axes, got {q.shape}, {k.shape} and {v.shape}"
        )
    grid = q.shape[1:-2]
    seen = windows(grid, window, dilation, stride, causal)
    places = (q.shape[-2], *(2 * one.size - 1 for one in seen))
    if bias is not None and bias.shape != places:
        raise ValueError(f"bias must have the shape {places}, got {bias.shape}")
    if q.shape[0] == 0:
        return jnp.zeros((*q.shape[:-1], v.shape[-1]), v.dtype)
    rows, *inner = (
        cut(length, one, one.tile(TILES[axes]) if tile is None else tile)
        for length, one in zip(grid, seen, strict=True)
    )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    read = functools.partial(
        _read_row, inner=inner, bias=_patches(bias, [rows, *inner])
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
        batch_size=_rows_at_once(q.shape, rows, inner),
    )
    count, batch, size, *rest = y.shape
    y = jnp.moveaxis(y, 0, 1).reshape(batch, count * size, *rest)
    return jnp.take(y, rows.order, axis=1, unique_indices=True)


def _rows_at_once(shape: tuple[int, ...], rows: Axis, inner: Sequence[Axis]) -> int:
    """How many rows of tiles to compute together."""
    logits = max(1, known(shape[0])) * shape[-2]
    for axis in inner:
        logits *= axis.targets.size * axis.sources.shape[1]
    logits *= rows.targets.shape[1] * rows.sources.shape[1]
    most = LOGITS.get(jax.default_backend(), LOGITS_ELSEWHERE)
    return max(1, min(most // logits, len(rows.kinds)))


def _split(x: jax.Array, places: np.ndarray) -> jax.Array:
    """[B, H, ...] to one strip for each row of tiles, [n, B, t, ...]."""
    count, size = places.shape
    x = jnp.take(x, places.ravel(), axis=1)
    return jnp.moveaxis(x.reshape(x.shape[0], count, size, *x.shape[2:]), 1, 0)


def _split_mask(mask: jax.Array, shape: tuple[int, ...], rows: Axis) -> jax.Array:
    """A mask to strips [n, t, R, B, N, W, W], where B, N and the first W may be 1.

    For W stand all inner axes of the grid, or none.
    """
    batch, *grid, heads, _ = shape
    places = math.prod(grid)
    full = (batch, heads, places, places)
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be boolean (True = may attend), got {mask.dtype}")
    own = (1,) * (4 - mask.ndim) + mask.shape
    pairs = zip(own, full, strict=False)
    if len(own) != 4 or any(size not in (1, most) for size, most in pairs):
        raise ValueError(
            f"mask of shape {mask.shape} does not broadcast to [B, N, T, S] = {full}"
        )
    axes = [(1,) * len(grid) if size == 1 else grid for size in own[2:]]
    mask = mask.reshape(*own[:2], *axes[0], *axes[1])
    return _pair_up(mask, rows, 2, len(grid))


def _pair_up(mask: jax.Array, axis: Axis, at: int, apart: int) -> jax.Array:
    """Moves an axis of targets and that of its sources, `apart` after it, to the front.

    There they are tiles, [n, t, R, ...]; an axis of length 1 is repeated.
    """
    targets = np.minimum(axis.targets, mask.shape[at] - 1)[:, :, None]
    sources = np.minimum(axis.sources, mask.shape[at + apart] - 1)[:, None, :]
    mask = jnp.moveaxis(mask, (at, at + apart), (0, 1))
    return mask[targets, sources]


def _tile_mask(strip: jax.Array, inner: Sequence[Axis]) -> jax.Array:
    """A strip of a mask, [t, R, B, N, W, W], to tiles [B, n, N, t t', R R']."""
    for done, axis in enumerate(inner):
        strip = _pair_up(strip, axis, 3 * done + 4, len(inner) - done)
    # Now each inner axis is [n, t, R], the last one first.
    count = len(inner)
    starts = [3 * k for k in reversed(range(count))]
    batch = 3 * count + 2
    order = [batch, *starts, batch + 1]
    order += [3 * count, *(at + 1 for at in starts)]
    order += [3 * count + 1, *(at + 2 for at in starts)]
    strip = strip.transpose(order)
    shape = strip.shape
    sizes = [math.prod(shape[a:b]) for a, b in itertools.pairwise(_parts(count))]
    return strip.reshape(sizes)


def _parts(count: int) -> tuple[int, ...]:
    """Where B, the tiles, N, the targets and the sources begin in a tiled mask."""
    return 0, 1, 1 + count, 2 + count, 3 + 2 * count, 4 + 3 * count


def _patches(bias: jax.Array | None, axes: Sequence[Axis]) -> jax.Array:
    """What is added to the logits of each kind of tile: -inf outside of windows.

    Returns:
        [kinds of rows, kinds of inner tiles, 1 or N, t t', R R'], float32.
    """
    count, relative = len(axes), []
    for k, axis in enumerate(axes):  # to axis k of the kinds, targets and sources
        shape = [1] * (3 * count)
        shape[k::count] = axis.relative.shape
        relative.append(axis.relative.reshape(shape))
    outside = functools.reduce(np.logical_or, [table < 0 for table in relative])
    if bias is None:
        patch = jnp.where(outside, -jnp.inf, 0.0)[None]
    else:
        entries = tuple(np.maximum(table, 0) for table in relative)
        patch = bias.astype(jnp.float32)[:, *entries]
        patch = jnp.where(outside[None], -jnp.inf, patch)
    heads, rows, *shape = patch.shape
    ends = 0, count - 1, 2 * count - 1, 3 * count - 1
    sizes = (math.prod(shape[a:b]) for a, b in itertools.pairwise(ends))
    return jnp.moveaxis(patch.reshape(heads, rows, *sizes), 0, 2)


def _inner_kinds(inner: Sequence[Axis]) -> np.ndarray:
    """The kind of each tile of a row, an index into the second axis of the patches."""
    shape = tuple(len(axis.relative) for axis in inner)
    kinds = np.meshgrid(*(axis.kinds for axis in inner), indexing="ij")
    return np.ravel_multi_index(kinds, shape).ravel() if inner else np.zeros(1, int)


def _read_row(
    kind: jax.Array,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None = None,
    *,
    inner: Sequence[Axis],
    bias: jax.Array,
) -> jax.Array:
    """One row of tiles: q [B, t, W, N, D], k and v [B, R, W, N, D] -> [B, t, W, N, Dv].

    `kind` is the row's index into the first axis of `bias`; for W stand all inner axes.
    """
    tiles = functools.partial(_tiles, places=[axis.targets for axis in inner])
    regions = functools.partial(_tiles, places=[axis.sources for axis in inner])
    logits = jnp.einsum(
        "bcntd,bcnsd->bcnts", tiles(q), regions(k), preferred_element_type=jnp.float32
    )
    logits = logits + bias[kind][_inner_kinds(inner)][None]
    if mask is not None:
        # What lies outside of the window, -inf, must not count where all is masked.
        mask = _tile_mask(mask, inner) & (logits != -jnp.inf)
    weights = masked_softmax(logits, mask)
    y = jnp.einsum(
        "bcnts,bcnsd->bcntd",
        weights.astype(v.dtype),
        regions(v),
        preferred_element_type=jnp.float32,
    )
    return _untile(y.astype(v.dtype), q.shape[1], inner)


def _tiles(x: jax.Array, places: Sequence[np.ndarray]) -> jax.Array:
    """[B, h, W, N, D] to the places of each inner tile, [B, n, N, h t, D]."""
    batch, _, *_, heads, dim = x.shape
    for k, table in enumerate(places):
        at = 2 + 2 * k
        x = jnp.take(x, table.ravel(), axis=at)
        x = x.reshape(*x.shape[:at], *table.shape, *x.shape[at + 1 :])
    last = 2 + 2 * len(places)
    counts, sizes = range(2, last, 2), range(3, last, 2)
    x = x.transpose(0, *counts, last, 1, *sizes, last + 1)
    count = math.prod(len(table) for table in places)
    return x.reshape(batch, count, heads, -1, dim)


def _untile(y: jax.Array, height: int, inner: Sequence[Axis]) -> jax.Array:
    """The inverse of `_tiles`: [B, n, N, h t, D] to [B, h, W, N, D]."""
    batch, _, heads, _, dim = y.shape
    counts = [axis.targets.shape[0] for axis in inner]
    sizes = [axis.targets.shape[1] for axis in inner]
    y = y.reshape(batch, *counts, heads, height, *sizes, dim)
    n = len(inner)
    pairs = [place for k in range(n) for place in (1 + k, 3 + n + k)]
    y = y.transpose(0, 2 + n, *pairs, 1 + n, 3 + 2 * n)
    flat = [count * size for count, size in zip(counts, sizes, strict=True)]
    y = y.reshape(batch, height, *flat, heads, dim)
    for k, axis in enumerate(inner):
        y = jnp.take(y, axis.order, axis=2 + k, unique_indices=True)
    return y


def neighborhood_mask(
    grid: Sequence[int], window: Sequence[int], **options: Sequence[int] | None
) -> np.ndarray:
    """Who attends to whom, boolean [T, T], for maps and small grids.

    Args:
        grid, window: as in `neighborhood_attention`.
        **options: likewise dilation, stride, causal.
    """
    near = relative_places(grid, window, **options)
    return functools.reduce(np.logical_and, [axis >= 0 for axis in near])


def relative_places(
    grid: Sequence[int], window: Sequence[int], **options: Sequence[int] | None
) -> tuple[np.ndarray, ...]:
    """Indices [T, T] into each axis of a bias; -1 where there is no neighbour."""
    seen = windows(grid, window, **options)
    axes, count = [], len(grid)
    for k, (length, one) in enumerate(zip(grid, seen, strict=True)):
        axis = cut(length, one, length)
        dense = np.full((length, length), -1)
        for targets, sources, kind in zip(
            axis.targets, axis.sources, axis.kinds, strict=True
        ):
            table = axis.relative[kind]
            t, s = np.nonzero(table >= 0)
            dense[targets[t], sources[s]] = table[t, s]
        shape = [1] * (2 * count)
        shape[k] = shape[count + k] = length
        full = np.broadcast_to(dense.reshape(shape), (*grid, *grid))
        axes.append(full.reshape(math.prod(grid), -1))
    return tuple(axes)
