"""Vectors that tell the places of a map, as DETR adds them to tokens or to queries.

Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020,
https://arxiv.org/abs/2005.12872, section A.4, and its code, `PositionEmbeddingSine` and
`PositionEmbeddingLearned`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn.ops import positions
from attn.settings import Invalid

LONGEST = 50  # rows, and columns, that have learned vectors
DIVISORS = {"sine": 4, "learned": 2, "none": 1}  # of the width


class MapPositions(nn.Module):
    """One vector for each place of a map, [B or 1, h w, C] in float32, of each kind.

    Attributes:
        kinds: "sine", sinusoids of the row, then of the column, both counted from 1
            over the height or width of the image, which is 2 pi; "learned", a vector
            for each of 50 columns, then one for each of 50 rows; "none" makes nothing.
        width: C.
        param_dtype: type in which parameters are kept.

    Raises:
        Invalid: learned vectors for a larger map, when it is called.
    """

    kinds: frozenset[str]
    width: int
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, grid: tuple[int, int], mask: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Vectors by kind, of a map of h x w places.

        Args:
            grid: (h, w).
            mask: boolean [B, h, w], False for padding, which "sine" does not count.
        """
        found = {}
        if "sine" in self.kinds and mask is None:
            waves = positions.sinusoidal_2d(grid, self.width)
            found["sine"] = jnp.asarray(waves, jnp.float32)
        elif "sine" in self.kinds:
            found["sine"] = positions.sinusoidal_of_mask(mask, self.width)
        if "learned" in self.kinds:
            found["learned"] = self._learned(grid)
        tokens = grid[0] * grid[1]
        return {kind: v.reshape(-1, tokens, self.width) for kind, v in found.items()}

    def _learned(self, grid: tuple[int, int]) -> jax.Array:
        if max(grid) > LONGEST:
            raise Invalid(
                f"learned positions are for maps up to {LONGEST}x{LONGEST}, got"
                f" {grid[0]}x{grid[1]}; sine positions have no such limit"
            )
        start, half = nn.initializers.uniform(1.0), self.width // 2
        rows, columns = (
            self.param(name, start, (LONGEST, half), self.param_dtype)
            for name in ("rows", "columns")
        )
        halves = (columns[None, : grid[1]], rows[: grid[0], None])
        whole = [jnp.broadcast_to(x, (*grid, half)) for x in halves]
        return jnp.concatenate(whole, axis=-1).astype(jnp.float32)


def shrink_mask(mask: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """A mask at the places of a smaller map, the nearest above and to the left.

    [B, H, W] -> [B, h, w], of the pixels that PyTorch's `interpolate` takes.
    """
    rows, columns = (
        np.floor(np.arange(short, dtype=np.float32) * np.float32(long / short))
        for short, long in zip(grid, mask.shape[1:], strict=True)
    )
    return mask[:, rows.astype(int)][:, :, columns.astype(int)]
