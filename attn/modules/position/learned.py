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
from attn.modules.position.base import Grid, Position, part
from attn.ops import positions

NORMAL = nn.initializers.truncated_normal(0.02)


class Learned(Position):
    """Adds a vector of its own to each token of a sequence, those of a prefix too.

    T C parameters in one array `position` [1, T, C]. It knows no grid: tokens of
    another number are refused, unless `trained_grid` says where the vectors lie or
    `max_length` how many tokens there may be.

    Attributes:
        max_length: T, of which shorter sequences use the first. None takes sequences
            of the length given to `init`.
        trained_grid: (H, W) of the vectors after the prefix's; for another grid they
            are interpolated; not beside `max_length`.
        prefix, param_dtype: as in Position.
    """

    max_length: settings.Positive | None = None
    trained_grid: tuple[settings.Positive, settings.Positive] | None = None
    acts: ClassVar[tuple[str, ...]] = ("tokens",)

    def tokens(self, x: jax.Array, grid: Grid | None = None) -> jax.Array:
        return x + self._rows(x, x.shape[1], grid)

    def part_tokens(
        self, x: jax.Array, grid: Grid | None, start: jax.Array, length: int
    ) -> jax.Array:
        return x + part(self._rows(x, length, grid), start, x.shape[1])

    @nn.compact
    def _rows(self, x: jax.Array, length: int, grid: Grid | None) -> jax.Array:
        """Vectors of so many places, [1, T, C], for tokens such as x."""
        channels = x.shape[-1]
        if self.trained_grid is not None:
            # of steps there are fewer tokens than places
            grid = self._grid(
                grid, jax.ShapeDtypeStruct((1, length, channels), x.dtype)
            )
            length = self.prefix + self.trained_grid[0] * self.trained_grid[1]
        kept = self._kept("position", (1, self.max_length or length, channels))
        self._check_length(kept[1], length)
        table = self._table("position", kept, NORMAL)[:, :length]
        if grid is not None and self.trained_grid not in (None, grid):
            table = self._moved(table, grid)
        return table.astype(x.dtype)

    def _check_length(self, most: int, length: int) -> None:
        if self.max_length is not None:
            if self.trained_grid is not None:
                raise settings.Invalid(
                    "a learned position has max_length or trained_grid, got both"
                )
            if length > most:
                raise settings.Invalid(
                    f"the position embedding is for at most max_length={most} tokens,"
                    f" got {length}"
                )
        elif most != length:
            raise settings.Invalid(
                f"the position embedding is for {most} tokens, but the image has"
                f" {length}: it takes images of the size given to init, unless the"
                f" setting trained_grid tells where its vectors lie"
            )

    def _moved(self, table: jax.Array, grid: Grid) -> jax.Array:
        """[1, P + H W, C] of the trained grid for another one."""
        channels = table.shape[-1]
        first, rest = table[:, : self.prefix], table[0, self.prefix :]
        rest = rest.reshape(*self.trained_grid, channels)
        rest = positions.interpolate_grid(rest, grid).reshape(1, -1, channels)
        return jnp.concatenate([first, rest], axis=1)

    def parameters(self, places, *, channels, num_heads, head_dim):
        del num_heads, head_dim
        if self.max_length is not None:
            return self.max_length * channels
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
    of_grid: ClassVar[bool] = True

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
