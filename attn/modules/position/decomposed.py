"""Logits of a query with the offset of a key: a vector for the row, one for the column.

Srinivas et al., "Bottleneck Transformers for Visual Recognition", CVPR 2021,
https://arxiv.org/abs/2101.11605, figure 4 and its code, after Shaw et al. 2018 and
Bello et al. 2019: softmax((q k^T + q r^T) / sqrt(D)), r = r_dy + r_dx.

Differs from timm's port, which does not divide q r^T by sqrt(D).
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.position.base import Grid, Position
from attn.ops import positions


class Decomposed(Position):
    """Adds q . (r_dy + r_dx) / sqrt(D) to the logits.

    (2H - 1 + 2W - 1) D parameters, shared by the heads: `rows` [2H - 1, D] and
    `columns` [2W - 1, D], interpolated on another grid than the one given to `init`.

    Attributes:
        prefix, param_dtype: as in Position; from and to prefix tokens 0 is added.
    """

    acts: ClassVar[tuple[str, ...]] = ("bias",)
    of_grid: ClassVar[bool] = True

    @nn.compact
    def bias(
        self, q: jax.Array, k: jax.Array, grid: Grid | None = None
    ) -> jax.Array | None:
        grid, dim = self._grid(grid, q, k), q.shape[-1]
        tables = []
        for name, side in zip(("rows", "columns"), grid, strict=True):
            initial = nn.initializers.normal(dim**-0.5)
            table = self._table(name, (2 * side - 1, dim), initial)[:, None]
            table = positions.interpolate_grid(table, (2 * side - 1, 1))
            tables.append(table[:, 0])
        logits = positions.decomposed_logits(q[:, self.prefix :], *tables, grid=grid)
        pad = (self.prefix, 0)
        return jnp.pad(dim**-0.5 * logits, ((0, 0), (0, 0), pad, pad))

    def parameters(self, places, *, channels, num_heads, head_dim):
        del channels, num_heads
        height, width = places
        return (2 * height - 1 + 2 * width - 1) * head_dim
