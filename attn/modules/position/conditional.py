"""Positions from the neighbourhood: a depth-wise convolution with zeros at the border.

Chu et al., "Conditional Positional Encodings for Vision Transformers", ICLR 2023,
https://arxiv.org/abs/2102.10882, section 3.2: PEG. It is the border that tells where a
token is, and so any size works.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.position.base import Grid, Position


class Conditional(Position):
    """Adds a depth-wise convolution of the map of tokens, k^2 C + C parameters.

    A model applies it after its first block, as the paper found best.

    Attributes:
        kernel_size: k.
        prefix, param_dtype: as in Position; prefix tokens stay as they are.
    """

    kernel_size: settings.Positive = 3
    acts: ClassVar[tuple[str, ...]] = ("tokens",)
    of_grid: ClassVar[bool] = True
    blocks_before: ClassVar[int] = 1
    causal: ClassVar[bool] = False

    @nn.compact
    def tokens(self, x: jax.Array, grid: Grid | None = None) -> jax.Array:
        height, width = self._grid(grid, x)
        batch, _, channels = x.shape
        first, rest = x[:, : self.prefix], x[:, self.prefix :]
        y = nn.Conv(
            channels,
            (self.kernel_size, self.kernel_size),
            padding="SAME",
            feature_group_count=channels,
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )(rest.reshape(batch, height, width, channels))
        rest = rest + y.reshape(rest.shape)
        return jnp.concatenate([first, rest], axis=1)

    def parameters(self, places, *, channels, num_heads, head_dim):
        del places, num_heads, head_dim
        return self.kernel_size**2 * channels + channels
