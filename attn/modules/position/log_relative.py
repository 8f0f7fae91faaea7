"""A bias that a small network computes from offsets in log-spaced units.

Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022,
https://arxiv.org/abs/2111.09883, section 3.3; the ceiling 16 sigmoid of its code.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.position.base import Grid, Position, widen
from attn.ops import positions

NORMAL = nn.initializers.truncated_normal(0.02)


class LogRelative(Position):
    """Adds 16 sigmoid(W_2 relu(W_1 (dy, dx) + b_1)) to the logits.

    3 hidden + hidden N parameters, for any grid. With prefix tokens 3 N more, which
    stand in the place of the network's outputs: from the prefix to the grid, from
    the grid to the prefix, and inside the prefix.

    Attributes:
        hidden: width of the network.
        ceiling: what the bias cannot exceed.
        trained_grid: (H, W) by whose sides offsets are divided; None takes the grid
            at hand. Weights that go to another grid keep that of their training, so
            that an offset means the same.
        prefix, param_dtype: as in Position.
    """

    hidden: settings.Positive = 512
    ceiling: settings.PositiveFloat = 16.0
    trained_grid: tuple[settings.Positive, settings.Positive] | None = None
    acts: ClassVar[tuple[str, ...]] = ("bias",)
    of_grid: ClassVar[bool] = True

    @nn.compact
    def bias(
        self, q: jax.Array, k: jax.Array, grid: Grid | None = None
    ) -> jax.Array | None:
        grid, heads = self._grid(grid, q, k), q.shape[2]
        offsets = positions.log_offsets(grid, self.trained_grid)
        kinds = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        kinds |= {"kernel_init": NORMAL}
        x = nn.Dense(self.hidden, name="hidden_layer", **kinds)(
            jnp.asarray(offsets, jnp.float32)
        )
        x = nn.Dense(heads, use_bias=False, name="head_layer", **kinds)(nn.relu(x))
        special = None
        if self.prefix:
            zeros = nn.initializers.zeros_init()
            special = self._table("prefix_table", (3, heads), zeros)
        bias = widen(positions.relative_bias(x, grid), self.prefix, special)
        return self.ceiling * nn.sigmoid(bias)[None]

    def parameters(self, places, *, channels, num_heads, head_dim):
        del places, channels, head_dim
        network = 3 * self.hidden + self.hidden * num_heads
        return network + 3 * num_heads * (self.prefix > 0)
