"""A penalty on distance, of another slope in each head; nothing learned.

Press, Smith & Lewis, "Train Short, Test Long: Attention with Linear Biases Enables
Input Length Extrapolation", ICLR 2022, https://arxiv.org/abs/2108.12409, section 3.
On a grid: Fuller, Millard & Green, "CROMA", NeurIPS 2023,
https://arxiv.org/abs/2311.00566, section 3, whose distance is Euclidean.

Differs from the first: it looks back only; here both directions cost the same.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from attn.modules.position.base import Grid, Position, widen
from attn.ops import positions


class Alibi(Position):
    """Adds - slope |t - s| to the logits; targets and sources count from 0.

    Attributes:
        prefix, param_dtype: as in Position; prefix tokens are the first numbers.
    """

    acts: ClassVar[tuple[str, ...]] = ("bias",)

    def bias(
        self, q: jax.Array, k: jax.Array, grid: Grid | None = None
    ) -> jax.Array | None:
        del grid
        bias = positions.alibi(q.shape[1], k.shape[1], num_heads=q.shape[2])
        return jnp.asarray(bias, jnp.float32)[None]

    def part_bias(
        self, q: jax.Array, k: jax.Array, grid: Grid | None, start: jax.Array
    ) -> jax.Array:
        del grid  # without a matrix of all places
        slopes = jnp.asarray(positions.alibi_slopes(q.shape[2]), jnp.float32)
        targets = start + jnp.arange(q.shape[1])
        distance = jnp.abs(targets[:, None] - jnp.arange(k.shape[1])[None])
        return -slopes[None, :, None, None] * distance[None, None].astype(jnp.float32)


class Alibi2d(Position):
    """Adds - slope times the Euclidean distance on the grid to the logits.

    Attributes:
        prefix, param_dtype: as in Position; from and to prefix tokens 0 is added.
    """

    acts: ClassVar[tuple[str, ...]] = ("bias",)
    of_grid: ClassVar[bool] = True

    def bias(
        self, q: jax.Array, k: jax.Array, grid: Grid | None = None
    ) -> jax.Array | None:
        bias = positions.alibi_2d(self._grid(grid, q, k), num_heads=q.shape[2])
        return widen(jnp.asarray(bias, jnp.float32), self.prefix, None)[None]
