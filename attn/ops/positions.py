"""Position encodings without parameters: tables, rotations, biases, indices.

Letters: T targets and S sources in a sequence, or H W of them on a grid, row by row;
C channels of a token, N heads, D channels of a head. A table that depends on sizes
alone is a NumPy array in float64, a constant of the program that uses it.

Sources: sinusoids of Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762) and, in
two dimensions, of DETR (https://arxiv.org/abs/2005.12872, `PositionEmbeddingSine`);
rotations of RoFormer (https://arxiv.org/abs/2104.09864) and, axial, of RoPE-ViT
(https://arxiv.org/abs/2403.13298); ALiBi (https://arxiv.org/abs/2108.12409) and, in
two dimensions, CROMA (https://arxiv.org/abs/2311.00566); indices of relative tables of
Swin (https://arxiv.org/abs/2103.14030) and coordinates of Swin v2
(https://arxiv.org/abs/2111.09883); decomposed logits of BoTNet
(https://arxiv.org/abs/2101.11605).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

Grid = tuple[int, int]


def sinusoidal(length: int, channels: int, *, temperature: float = 1e4) -> np.ndarray:
    """[T, C]: sin and cos of t / temperature^(2i / C) in channels 2i and 2i + 1.

    Raises:
        ValueError: an odd number of channels.
    """
    check_divisible("sinusoidal", channels, 2)
    return _waves(np.arange(length), channels, temperature)


def sinusoidal_2d(
    grid: Grid,
    channels: int,
    *,
    temperature: float = 1e4,
    normalize: bool = True,
    scale: float = 2 * math.pi,
) -> np.ndarray:
    """[H, W, C]: the sinusoids of the row in the first half, of the column after.

    Rows and columns count from 1, as in DETR's code; with `normalize` the last of
    them is at `scale` (but for DETR's 1e-6), so that it is the place in the image
    that is told and not the number of the pixel.

    Raises:
        ValueError: channels that 4 does not divide.
    """
    check_divisible("sinusoidal_2d", channels, 4)
    waves = []
    for length in grid:
        places = np.arange(1, length + 1, dtype=np.float64)
        if normalize:
            places = places / (length + 1e-6) * scale
        waves.append(_waves(places, channels // 2, temperature))
    rows, columns = waves
    shape = (*grid, channels // 2)
    rows, columns = rows[:, None], columns[None]
    return np.concatenate(
        [np.broadcast_to(rows, shape), np.broadcast_to(columns, shape)], axis=-1
    )


def sinusoidal_of_mask(
    mask: jax.Array,
    channels: int,
    *,
    temperature: float = 1e4,
    scale: float = 2 * math.pi,
) -> jax.Array:
    """`sinusoidal_2d` of that part of each map where the image is, [B, H, W, C].

    Rows and columns are counted in the mask, [B, H, W], False for padding: a place in
    the image has the same vector however large the map is padded. Float32. Those of
    padding mean nothing.

    Raises:
        ValueError: channels that 4 does not divide.
    """
    check_divisible("sinusoidal_2d", channels, 4)
    frequencies = jnp.asarray(_frequencies(channels // 2, temperature), jnp.float32)
    waves = []
    for axis in (1, 2):
        places = jnp.cumsum(mask, axis, dtype=jnp.float32)
        last = jax.lax.slice_in_dim(places, -1, None, axis=axis)
        angles = (places / (last + 1e-6) * scale)[..., None] * frequencies[
            None, None, None
        ]
        pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        waves.append(pairs.reshape(*mask.shape, channels // 2))
    return jnp.concatenate(waves, axis=-1)


def _waves(places: np.ndarray, channels: int, temperature: float) -> np.ndarray:
    """[L, C], sin and cos in turn."""
    angles = places[:, None] * _frequencies(channels, temperature)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(-1, channels)


def _frequencies(channels: int, temperature: float) -> np.ndarray:
    """temperature^(-2i / C) for i < C / 2."""
    return temperature ** (-np.arange(0, channels, 2) / channels)


def interpolate_grid(
    table: jax.Array, grid: Grid, *, method: str = "bicubic"
) -> jax.Array:
    """A table [H, W, C] of one grid for another one, [H', W', C], in float32.

    Corners are aligned to corners of pixels, and a smaller grid is smoothed first:
    what `torch.nn.functional.interpolate` does with `antialias=True`, and timm with
    position embeddings. The same grid gives the table itself.
    """
    if tuple(table.shape[:2]) == tuple(grid):
        return table
    table = table.astype(jnp.float32)
    return jax.image.resize(table, (*grid, *table.shape[2:]), method, antialias=True)


def rotary_angles(length: int, dim: int, *, temperature: float = 1e4) -> np.ndarray:
    """[T, D / 2]: t * temperature^(-2i / D), by which `rotate` turns pair i.

    Raises:
        ValueError: odd D.
    """
    check_divisible("rotary", dim, 2, "channels of a head")
    return np.arange(length)[:, None] * _frequencies(dim, temperature)


def rotary_angles_2d(grid: Grid, dim: int, *, temperature: float = 100) -> np.ndarray:
    """[H W, D / 2]: the first half of the pairs turn by the column, the others by row.

    With the order and the temperature of RoPE-ViT's axial code, smaller than that of
    sequences because grids are shorter.

    Raises:
        ValueError: D that 4 does not divide.
    """
    check_divisible("rotary_2d", dim, 4, "channels of a head")
    row, column = _places(grid)
    return np.concatenate(
        [
            place[:, None] * _frequencies(dim // 2, temperature)
            for place in (column, row)
        ],
        axis=-1,
    )


def rotate(x: jax.Array, angles: jax.Array | np.ndarray) -> jax.Array:
    """Turns channels (2i, 2i + 1) of each head at each place by angle i.

    Args:
        x: queries or keys [B, T, N, D].
        angles: [T, D / 2]; of zeros where a token is to stay.

    Returns:
        [B, T, N, D] in the dtype of `x`, computed in at least float32. The product
        of a query and a key so turned depends on the difference of their places.

    Raises:
        ValueError: angles of another shape.
    """
    trigonometry = np if isinstance(angles, np.ndarray) else jnp  # float64 if it can be
    return turn(x, trigonometry.cos(angles), trigonometry.sin(angles))


def turn(
    x: jax.Array, cos: jax.Array | np.ndarray, sin: jax.Array | np.ndarray
) -> jax.Array:
    """What `rotate` gives, of the cosines and sines of the angles, [T, D / 2] each.

    Raises:
        ValueError: these have another shape.
    """
    _, length, _, dim = x.shape
    for numbers in cos, sin:
        if dim % 2 or numbers.shape != (length, dim // 2):
            raise ValueError(
                f"{length} tokens with heads of {dim} channels need angles"
                f" {(length, dim // 2)}, got {tuple(numbers.shape)}"
            )
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    cos, sin = (jnp.asarray(a, dtype)[None, :, None] for a in (cos, sin))
    even, odd = x[..., 0::2].astype(dtype), x[..., 1::2].astype(dtype)
    pairs = [even * cos - odd * sin, even * sin + odd * cos]
    return jnp.stack(pairs, axis=-1).reshape(x.shape).astype(x.dtype)


def alibi_slopes(num_heads: int) -> np.ndarray:
    """[N]: 2^(-8 i / N) for head i = 1 ... N, where N is a power of two.

    Other numbers take those of the power below, and then every second slope of the
    power above, as the authors' code.
    """
    power = 2 ** int(math.log2(num_heads))
    slopes = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    more = 2.0 ** (-8 * np.arange(1, 2 * power + 1, 2) / (2 * power))
    return np.concatenate([slopes, more])[:num_heads]


def alibi(num_targets: int, num_sources: int, num_heads: int) -> np.ndarray:
    """[N, T, S]: - slope |t - s|, a penalty on distance in either direction."""
    distance = np.arange(num_targets)[:, None] - np.arange(num_sources)
    return -alibi_slopes(num_heads)[:, None, None] * np.abs(distance)


def alibi_2d(grid: Grid, num_heads: int) -> np.ndarray:
    """[N, H W, H W]: - slope times the Euclidean distance on the grid, as in CROMA."""
    row, column = _places(grid)
    distance = np.hypot(row[:, None] - row, column[:, None] - column)
    return -alibi_slopes(num_heads)[:, None, None] * distance


def relative_index(grid: Grid) -> np.ndarray:
    """[H W, H W]: the entry of a flat (2H - 1) x (2W - 1) table for target, source.

    As in Swin: (y_t - y_s + H - 1) (2W - 1) + (x_t - x_s + W - 1).
    """
    height, width = grid
    row, column = _places(grid)
    down = row[:, None] - row + height - 1
    right = column[:, None] - column + width - 1
    return down * (2 * width - 1) + right


def relative_bias(table: jax.Array, grid: Grid) -> jax.Array:
    """Spreads a table of offsets over targets and sources: [N, H W, H W].

    Args:
        table: [2H - 1, 2W - 1, N], entry (y_t - y_s + H - 1, x_t - x_s + W - 1) for
            a target and a source that far apart.
        grid: (H, W).

    Raises:
        ValueError: a table of another grid.
    """
    height, width = grid
    if table.shape[:2] != (2 * height - 1, 2 * width - 1):
        raise ValueError(
            f"a grid of {height}x{width} needs a table of"
            f" {2 * height - 1}x{2 * width - 1} offsets, got"
            f" {table.shape[0]}x{table.shape[1]}"
        )
    flat = table.reshape(-1, table.shape[-1])
    return jnp.moveaxis(flat[relative_index(grid)], -1, 0)


def log_offsets(grid: Grid, trained: Grid | None = None) -> np.ndarray:
    """[2H - 1, 2W - 1, 2]: offsets (dy, dx) in the log-spaced units of Swin v2.

    sign(d) log2(1 + |8 d / (L - 1)|) / log2(8), where L is the side of the grid on
    which the weights that read them were trained, None for this grid: offsets of
    that one lie in [-1.06, 1.06], and larger ones not far outside.
    """
    axes = []
    for length, side in zip(grid, grid if trained is None else trained, strict=True):
        offsets = 8 * np.arange(1.0 - length, length) / max(side - 1, 1)
        axes.append(np.sign(offsets) * np.log2(1 + np.abs(offsets)) / np.log2(8))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def decomposed_logits(
    q: jax.Array, rows: jax.Array, columns: jax.Array, grid: Grid
) -> jax.Array:
    """q . (r_dy + r_dx) for the offset of each source from each target, BoTNet's.

    Costs B N H W (H + W) D multiply-adds: the sum over a row and over a column are
    taken apart.

    Args:
        q: queries [B, H W, N, D].
        rows: vectors of vertical offsets y_s - y_t, [2H - 1, D], from 1 - H up.
        columns: vectors of horizontal offsets x_s - x_t, [2W - 1, D].
        grid: (H, W).

    Returns:
        [B, N, H W, H W], float32.
    """
    height, width = grid
    batch, length, heads, dim = q.shape
    q = q.reshape(batch, height, width, heads, dim)
    product = lambda formula, table: jnp.einsum(
        formula, q, table.astype(q.dtype), preferred_element_type=jnp.float32
    )
    vertical = product("bhwnd,hkd->bnhwk", rows[_offset_index(height)])
    horizontal = product("bhwnd,wld->bnhwl", columns[_offset_index(width)])
    logits = vertical[..., :, None] + horizontal[..., None, :]
    return logits.reshape(batch, heads, length, length)


def _offset_index(length: int) -> np.ndarray:
    """[L, L]: the entry of 2L - 1 offsets for target, source."""
    places = np.arange(length)
    return places[None] - places[:, None] + length - 1


def _places(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column of each token, [H W] and [H W]."""
    row, column = np.indices(grid)
    return row.ravel(), column.ravel()


def check_divisible(name: str, channels: int, by: int, what: str = "channels") -> None:
    """Raises ValueError with numbers that fit where `by` does not divide `channels`."""
    if channels % by:
        below, above = channels // by * by, -(-channels // by) * by
        fit = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"{name} positions need a number of {what} that {by} divides, such as"
            f" {fit}, got {channels}"
        )
