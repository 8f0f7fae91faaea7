"""A learned number for each offset on the grid and each head, added to the logits.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021, https://arxiv.org/abs/2103.14030, equation 4. The three numbers of a class
token: Bao et al., "BEiT", ICLR 2022, https://arxiv.org/abs/2106.08254, in its code.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.position.base import Grid, Position, widen
from attn.ops import positions

NORMAL = nn.initializers.truncated_normal(0.02)


class RelativeBias(Position):
    """Adds an entry of a table of offsets to the logits.

    (2H - 1)(2W - 1) N parameters in `table` [2H - 1, 2W - 1, N], interpolated on
    another grid than the one given to `init`. With prefix tokens 3 N more in
    `prefix_table`: from the prefix to the grid, from the grid to the prefix, and
    inside the prefix.

    Attributes:
        prefix, param_dtype: as in Position.
    """

    acts: ClassVar[tuple[str, ...]] = ("bias",)
    of_grid: ClassVar[bool] = True

    @nn.compact
    def bias(
        self, q: jax.Array, k: jax.Array, grid: Grid | None = None
    ) -> jax.Array | None:
        height, width = grid = self._grid(grid, q, k)
        heads, offsets = q.shape[2], (2 * height - 1, 2 * width - 1)
        table = self._table("table", (*offsets, heads), NORMAL)
        table = positions.interpolate_grid(table, offsets).astype(jnp.float32)
        special = None
        if self.prefix:
            special = self._table("prefix_table", (3, heads), NORMAL)
        return widen(positions.relative_bias(table, grid), self.prefix, special)[None]

    def parameters(self, places, *, channels, num_heads, head_dim):
        del channels, head_dim
        height, width = places
        return ((2 * height - 1) * (2 * width - 1) + 3 * (self.prefix > 0)) * num_heads
