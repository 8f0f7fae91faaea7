"""Windows on a grid of tokens: cutting them out, shifting them, what sees what.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021, https://arxiv.org/abs/2103.14030, section 3.2 and figures 2 and 4.

Letters used in shapes:
    B batch, H x W grid of tokens, C channels, L windows, M places of one window.

A grid that the windows do not divide is padded below and on the right. Shifting by
(y, x) moves the windows down and to the right by that much; what they would leave out
at the borders shares windows, and the mask keeps it apart.
"""

import jax
import jax.numpy as jnp
import numpy as np

Pair = tuple[int, int]


def padded_grid(grid: Pair, window: Pair) -> Pair:
    """The smallest grid around `grid` that windows of (rows, columns) divide."""
    height, width = (-(-n // size) * size for n, size in zip(grid, window, strict=True))
    return height, width


def partition_windows(x: jax.Array, window: Pair, shift: Pair = (0, 0)) -> jax.Array:
    """Cuts maps into windows: [B, H, W, C] -> [B, L, M, C].

    Windows and the places in them go row by row. Padding is zero.

    Args:
        x: maps.
        window: (rows, columns) of a window; M is their product.
        shift: (y, x) by which the windows are moved, cyclically.
    """
    batch, *grid, channels = x.shape
    height, width = padded_grid(grid, window)
    x = jnp.pad(x, ((0, 0), (0, height - grid[0]), (0, width - grid[1]), (0, 0)))
    if any(shift):
        x = jnp.roll(x, (-shift[0], -shift[1]), axis=(1, 2))
    rows, columns = window
    count = (height // rows) * (width // columns)
    x = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return x.swapaxes(2, 3).reshape(batch, count, rows * columns, channels)


def merge_windows(
    windows: jax.Array, grid: Pair, window: Pair, shift: Pair = (0, 0)
) -> jax.Array:
    """Puts windows back in their places, [B, L, M, C] -> [B, H, W, C].

    The inverse of `partition_windows`; what lay on padding is dropped.
    """
    batch, _, _, channels = windows.shape
    height, width = padded_grid(grid, window)
    rows, columns = window
    x = windows.reshape(
        batch, height // rows, width // columns, rows, columns, channels
    )
    x = x.swapaxes(2, 3).reshape(batch, height, width, channels)
    if any(shift):
        x = jnp.roll(x, shift, axis=(1, 2))
    return x[:, : grid[0], : grid[1]]


def window_tokens(grid: Pair, window: Pair, shift: Pair = (0, 0)) -> np.ndarray:
    """Which token lies in each place of each window: int [L, M]; H W for padding."""
    tokens = np.full(padded_grid(grid, window), grid[0] * grid[1])
    tokens[: grid[0], : grid[1]] = np.arange(grid[0] * grid[1]).reshape(grid)
    return _cut(np.roll(tokens, (-shift[0], -shift[1]), axis=(0, 1)), window)


def window_mask(
    grid: Pair, window: Pair, shift: Pair = (0, 0), *, see_padding: bool = False
) -> np.ndarray:
    """What may attend to what inside each window: boolean [L, M, M], True = may.

    Places see each other unless the shift has brought them together around the border
    of the grid. Padding is not seen.

    Args:
        grid: (H, W), without padding.
        window: (rows, columns) of a window.
        shift: (y, x) by which the windows are moved.
        see_padding: whether padding is seen as other places are, as the released
            code has it.
    """
    height, width = padded_grid(grid, window)
    # After the shift, what has come around lies in the last rows and columns.
    around = np.add.outer(
        2 * (np.arange(height) >= height - shift[0]),
        1 * (np.arange(width) >= width - shift[1]),
    )
    region = _cut(around, window)
    mask = region[:, :, None] == region[:, None, :]
    if not see_padding:
        real = window_tokens(grid, window, shift) < grid[0] * grid[1]
        mask &= real[:, None, :]
    return mask


def _cut(x: np.ndarray, window: Pair) -> np.ndarray:
    """[H, W] -> [L, M]."""
    (height, width), (rows, columns) = x.shape, window
    x = x.reshape(height // rows, rows, width // columns, columns)
    return x.swapaxes(1, 2).reshape(-1, rows * columns)
