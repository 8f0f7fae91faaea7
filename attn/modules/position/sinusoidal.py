"""Sinusoids added to tokens: nothing learned, and any length.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, section 3.5. In two dimensions: Carion et al.,
"End-to-End Object Detection with Transformers", ECCV 2020,
https://arxiv.org/abs/2005.12872, appendix A.4, with its code's order and scale.
"""

import math
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from attn import settings
from attn.modules.position.base import Grid, Position, part
from attn.ops import positions


class Sinusoidal(Position):
    """Adds sin and cos of the number of a token; C is even.

    Attributes:
        temperature: the wave lengths go from 2 pi to 2 pi times this.
        order: whether sin and cos are "interleaved" (the paper), or all sin are in the
            first of two "halves", as in tensor2tensor and in Marian.
        prefix, param_dtype: as in Position; prefix tokens are the first numbers.
    """

    temperature: settings.PositiveFloat = 1e4
    order: Literal["interleaved", "halves"] = "interleaved"
    acts: ClassVar[tuple[str, ...]] = ("tokens",)
    divisor: ClassVar[int] = 2

    def tokens(self, x: jax.Array, grid: Grid | None = None) -> jax.Array:
        del grid
        return x + self._rows(x, x.shape[1])

    def part_tokens(
        self, x: jax.Array, grid: Grid | None, start: jax.Array, length: int
    ) -> jax.Array:
        del grid
        return x + part(self._rows(x, length), start, x.shape[1])

    def _rows(self, x: jax.Array, length: int) -> jax.Array:
        """Of so many places, [1, T, C], for tokens such as x."""
        channels = self._divisible(x)
        table = positions.sinusoidal(length, channels, temperature=self.temperature)
        if self.order == "halves":
            table = np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)
        return jnp.asarray(table, x.dtype)[None]


class Sinusoidal2d(Position):
    """Adds sinusoids of the row and of the column; 4 divides C.

    Attributes:
        temperature: the ratio of the wave lengths.
        normalize: whether places are shares of the image, times `scale`, and not
            numbers of rows and columns; DETR does so.
        scale: the place of the last row and column, with `normalize`.
        prefix, param_dtype: as in Position; prefix tokens stay as they are.
    """

    temperature: settings.PositiveFloat = 1e4
    normalize: bool = True
    scale: settings.PositiveFloat = 2 * math.pi
    acts: ClassVar[tuple[str, ...]] = ("tokens",)
    of_grid: ClassVar[bool] = True
    divisor: ClassVar[int] = 4

    def tokens(self, x: jax.Array, grid: Grid | None = None) -> jax.Array:
        grid = self._grid(grid, x)
        channels = self._divisible(x)
        table = positions.sinusoidal_2d(
            grid,
            channels,
            temperature=self.temperature,
            normalize=self.normalize,
            scale=self.scale,
        ).reshape(-1, channels)
        table = jnp.pad(jnp.asarray(table, x.dtype), ((self.prefix, 0), (0, 0)))
        return x + table[None]
