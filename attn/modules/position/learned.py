"""Learned vectors added to tokens, one for each place.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021,
https://arxiv.org/abs/2010.11929, equation 1 and section 3.2, which fine-tunes at
another resolution with interpolated vectors.

Differs from the paper: interpolation is bicubic and smoothing, as timm's.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.position.base import Grid, Position
from attn.ops import positions

NORMAL = nn.initializers.truncated_normal(0.02)


class Learned(Position):
    """Adds a vector of its own to each token of a sequence, those of a prefix too.

    T C parameters in one array `position` [1, T, C]. It knows no grid: tokens of
    another number are refused, unless `trained_grid` says where the vectors lie.

    Attributes:
        trained_grid: (H, W) of the vectors after the prefix's; for another grid they
            are interpolated. None takes sequences of the length given to `init`.
        prefix, param_dtype: as in Position.
    """

    trained_grid: tuple[int, int] | None = None
    acts: ClassVar[tuple[str, ...]] = ("tokens",)

    @nn.compact
    def tokens(self, x: jax.Array, grid: Grid | None = None) -> jax.Array:
        _, length, channels = x.shape
        wanted = length
        if self.trained_grid is not None:
            grid = self._grid(grid, x)
            wanted = self.prefix + self.trained_grid[0] * self.trained_grid[1]
        kept = self._kept("position", (1, wanted, channels))
        if kept[1] != wanted:
            raise settings.Invalid(
                f"the position embedding is for {kept[1]} tokens, but the image has"
                f" {wanted}: it takes images of the size given to init, unless the"
                f" setting trained_grid tells where its vectors lie"
            )
        table = self._table("position", kept, NORMAL)
        if grid is not None and self.trained_grid not in (None, grid):
            table = self._moved(table, grid)
        return x + table.astype(x.dtype)

    def _moved(self, table: jax.Array, grid: Grid) -> jax.Array:
        """[1, P + H W, C] of the trained grid for another one."""
        channels = table.shape[-1]
        first, rest = table[:, : self.prefix], table[0, self.prefix :]
        rest = rest.reshape(*self.trained_grid, channels)
        rest = positions.interpolate_grid(rest, grid).reshape(1, -1, channels)
        return jnp.concatenate([first, rest], axis=1)

    def parameters(self, places, *, channels, num_heads, head_dim):
        del num_heads, head_dim
        places = places if self.trained_grid is None else self.trained_grid
        length = places[0] if len(places) == 1 else places[0] * places[1] + self.prefix
        return length * channels


class Learned2d(Position):
    """Adds a vector for each place of a grid, interpolated on another grid.

    (P + H W) C parameters: `table` [H, W, C] for the grid given to `init`, and
    `prefix_table` [P, C] for the prefix.

    Attributes:
        prefix, param_dtype: as in Position.
    """

    acts: ClassVar[tuple[str, ...]] = ("tokens",)

    @nn.compact
    def tokens(self, x: jax.Array, grid: Grid | None = None) -> jax.Array:
        grid, channels = self._grid(grid, x), x.shape[-1]
        table = self._table("table", (*grid, channels), NORMAL)
        table = positions.interpolate_grid(table, grid).reshape(-1, channels)
        if self.prefix:
            shape = (self.prefix, channels)
            first = self._table("prefix_table", shape, NORMAL)
            table = jnp.concatenate([first, table])
        return x + table.astype(x.dtype)[None]

    def parameters(self, places, *, channels, num_heads, head_dim):
        del num_heads, head_dim
        height, width = places
        return (self.prefix + height * width) * channels
