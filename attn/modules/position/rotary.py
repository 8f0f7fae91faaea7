"""Rotated queries and keys: their products know how far apart they are.

Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
https://arxiv.org/abs/2104.09864, equation 34. On a grid, axial: Heo et al., "Rotary
Position Embedding for Vision Transformer", ECCV 2024,
https://arxiv.org/abs/2403.13298, section 3.2.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from attn import settings
from attn.modules.position.base import Grid, Position, part
from attn.ops import positions


class Rotary(Position):
    """Turns pairs of channels by angles proportional to the number of a token.

    Targets and sources may differ in number; both count from 0. D is even.

    Attributes:
        temperature: the wave lengths go from 2 pi to 2 pi times this.
        prefix, param_dtype: as in Position; prefix tokens are the first numbers.
    """

    temperature: settings.PositiveFloat = 1e4
    acts: ClassVar[tuple[str, ...]] = ("rotate",)
    divisor: ClassVar[int] = 2

    def rotate(
        self, q: jax.Array, k: jax.Array, grid: Grid | None = None
    ) -> tuple[jax.Array, jax.Array]:
        del grid
        angles = self._angles(max(q.shape[1], k.shape[1]), self._divisible(q))
        q, k = (positions.rotate(x, angles[: x.shape[1]]) for x in (q, k))
        return q, k

    def part_rotate(
        self,
        q: jax.Array,
        k: jax.Array,
        grid: Grid | None,
        start: jax.Array,
        length: int,
    ) -> tuple[jax.Array, jax.Array]:
        del grid
        angles = self._angles(length, q.shape[-1])
        dtype = jnp.promote_types(q.dtype, jnp.float32)
        # of angles in float64, which float32 would round to some of a later place
        cos, sin = (
            part(jnp.asarray(f(angles), dtype), start, q.shape[1], axis=0)
            for f in (np.cos, np.sin)
        )
        return positions.turn(q, cos, sin), positions.turn(k, cos, sin)

    def _angles(self, length: int, dim: int) -> np.ndarray:
        return positions.rotary_angles(length, dim, temperature=self.temperature)


class Rotary2d(Position):
    """Turns half of the pairs by the column, the others by the row; 4 divides D.

    Attributes:
        temperature: the ratio of the wave lengths; 100 in RoPE-ViT.
        prefix, param_dtype: as in Position; prefix tokens are not turned.
    """

    temperature: settings.PositiveFloat = 100.0
    acts: ClassVar[tuple[str, ...]] = ("rotate",)
    of_grid: ClassVar[bool] = True
    divisor: ClassVar[int] = 4

    def rotate(
        self, q: jax.Array, k: jax.Array, grid: Grid | None = None
    ) -> tuple[jax.Array, jax.Array]:
        grid, dim = self._grid(grid, q, k), self._divisible(q)
        angles = positions.rotary_angles_2d(grid, dim, temperature=self.temperature)
        angles = np.pad(angles, ((self.prefix, 0), (0, 0)))
        return positions.rotate(q, angles), positions.rotate(k, angles)
