"""Swin Transformer, with slots for attention.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021, https://arxiv.org/abs/2103.14030, section 3 and table 7: four stages of
blocks that attend in windows, shifted in every second one; between stages, neighbours
of 2x2 are merged into one token of twice the width.
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.layers.patches import embed_patches, patch_grid
from attn.models.layers.transformer import (
    NORMAL,
    Block,
    check_rates,
    check_sizes,
    classify,
    drop,
    layer_norm,
    mean_pool,
)

# Width of the first stage, depths and numbers of heads of the four.
SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
# How many scopes may narrow each slot.
PLACES = {"block.pre": 2, "mixer": 2, "block.post": 2, "stage.end": 1, "pool": 0}
EPSILON = 1e-5  # of all layer norms, as torch has it


class Stage(nn.Module):
    """The blocks of one resolution: tokens [B, H W, C] -> [B, H W, C].

    Attributes:
        rates: the `drop_path` of each block; there are as many blocks.
        others: as in `Block` and `Swin`, `fill` narrowed to this stage.
    """

    rates: tuple[float, ...]
    given: Mapping[str, Any]
    fill: Mapping[str, Any]
    mlp_ratio: float
    dropout: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    axis_name: str | None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, grid: tuple[int, int], train: bool
    ) -> jax.Array:
        for index, rate in enumerate(self.rates):
            mixer = {"name": "shifted_window" if index % 2 else "window"}
            fill = slots.narrow(self.fill, f"block{index}")
            block = Block(
                fill=FrozenDict({"mixer": mixer, **fill}),
                given=self.given,
                mlp_ratio=self.mlp_ratio,
                epsilon=EPSILON,
                dropout=self.dropout,
                drop_path=rate,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                axis_name=self.axis_name,
                name=f"block{index}",
            )
            x = block(x, grid=grid, train=train)
        end = slots.build(self, "stage.end", **self.given)
        return x if end is None else slots.on_tokens(end, x, grid=grid, train=train)


class Merge(nn.Module):
    """Joins neighbours of 2x2 to one token: [B, H W, C] -> [B, H W / 4, 2 C].

    A row or column without neighbour gets zeros.
    """

    param_dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, grid: tuple[int, int]
    ) -> tuple[jax.Array, tuple[int, int]]:
        """Returns the tokens and their grid."""
        batch, _, channels = x.shape
        x = x.reshape(batch, *grid, channels)
        x = jnp.pad(x, ((0, 0), (0, grid[0] % 2), (0, grid[1] % 2), (0, 0)))
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        x = x.reshape(batch, rows, 2, columns, 2, channels)
        # Of the four, left before right and then upper before lower, as released.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, rows * columns, 4 * channels)
        x = layer_norm(self, "norm", x, EPSILON)
        linear = nn.Dense(
            2 * channels,
            use_bias=False,
            kernel_init=NORMAL,
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="reduction",
        )
        return linear(x), (rows, columns)


class Swin(nn.Module):
    """Swin Transformer: images [B, H, W, C] -> logits [B, num_classes], float32.

    A window larger than the grid of its stage is made as large as it, axis by axis, and
    not shifted, as in the released code; the bias tables then fit that size of images.
    Grids that windows do not divide are padded, see `window`, and so are odd ones
    before a merge. LayerNorm has eps 1e-5 and GELU is exact.

    Slots, the first three of which may be narrowed, "stage3/mixer" or
    "stage3/block5/mixer", stages counting from 1 and blocks from 0:

        block.pre    all tokens, before a block
        mixer        the token attention of a block: `window` in even blocks and
                     `shifted_window` in odd ones unless it is filled; "none" leaves a
                     block its MLP alone
        block.post   all tokens, after a block
        stage.end    all tokens after a stage, before they are merged
        pool         a token attention that makes the vector to classify: its query is
                     the mean token, its keys and values are all tokens after the last
                     LayerNorm; a map attention gets their map, before the mean

    An attention with settings `num_heads` or `window` gets those of the stage, unless
    the filling gives one: a window that is larger than its grid is then refused.

    Attributes:
        num_classes: number of logits.
        size: "tiny", "small", "base" or "large": width, depths and heads in SIZES.
        patch_size: side of a patch, in pixels; it must divide the image.
        window: side of a window, in tokens. The paper has 7, and 12 at 384 pixels.
        width, depths, num_heads: instead of what `size` has; the width of the first
            stage, and tuples with an entry a stage.
        mlp_ratio: hidden width of the MLP over the width.
        dropout: rate after the embedding, the mixer and both layers of the MLP.
        drop_path: rate at which branches of the last block are left out of an example
            in training, from 0 at the first and linear between; the paper trains tiny,
            small and base with 0.2, 0.3 and 0.5.
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes it
            as `slots`.
        dtype: computation type; None takes the type of the images. LayerNorm's
            statistics and the classifier are float32.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which attentions synchronise batch statistics.

    Raises:
        Invalid: when it is made, heads that do not divide a width, a size below 1,
            tuples of different lengths, an unknown slot, attention or setting; when it
            is called, an image that the patches do not divide.
    """

    num_classes: int
    size: Literal["tiny", "small", "base", "large"] = "tiny"
    patch_size: int = 4
    window: int = 7
    width: int | None = None
    depths: tuple[int, ...] | None = None
    num_heads: tuple[int, ...] | None = None
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0
    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if self.size not in SIZES:
            raise settings.unknown("size of a Swin", self.size, SIZES)
        for name in ("depths", "num_heads"):  # lists, as JSON has them
            if getattr(self, name) is not None:
                setattr(self, name, tuple(getattr(self, name)))
        _, depths, heads = self._sizes()
        self._check()
        self.fill = slots.check(
            self.fill,
            places=PLACES,
            scopes={
                f"stage{stage}": {f"block{block}": {} for block in range(depth)}
                for stage, depth in enumerate(depths, 1)
            },
            given={"num_heads": heads[0], "window": self.window},
        )
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots, in the order in which tokens meet them."""
        return list(PLACES)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        width, depths, num_heads = self._sizes()
        grid = patch_grid(x, self.patch_size)
        x = embed_patches(self, x.astype(self.dtype or x.dtype), width)
        x = drop(self, layer_norm(self, "embed_norm", x, EPSILON), train)
        rates = [
            self.drop_path * i / max(1, sum(depths) - 1) for i in range(sum(depths))
        ]
        for index, depth in enumerate(depths):
            if index > 0:
                merge = Merge(self.param_dtype, name=f"merge{index}")
                x, grid = merge(x, grid)
            here, rates = rates[:depth], rates[depth:]
            window = tuple(min(self.window, side) for side in grid)
            stage = Stage(
                rates=tuple(here),
                given=FrozenDict({"num_heads": num_heads[index], "window": window}),
                fill=slots.narrow(self.fill, f"stage{index + 1}"),
                mlp_ratio=self.mlp_ratio,
                dropout=self.dropout,
                dtype=x.dtype,
                param_dtype=self.param_dtype,
                axis_name=self.axis_name,
                name=f"stage{index + 1}",
            )
            x = stage(x, grid=grid, train=train)
        x = layer_norm(self, "norm", x, EPSILON)
        given = {"num_heads": num_heads[-1]}
        return classify(self, mean_pool(self, x, given, grid, train))

    def _sizes(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Width, depths and numbers of heads."""
        given = (self.width, self.depths, self.num_heads)
        pairs = zip(given, SIZES[self.size], strict=True)
        return tuple(usual if own is None else own for own, usual in pairs)

    def _check(self) -> None:
        width, depths, num_heads = self._sizes()
        if len(depths) != len(num_heads) or not depths:
            raise settings.Invalid(
                f"depths and num_heads of a Swin have an entry a stage, got {depths}"
                f" and {num_heads}"
            )
        for index, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            check_sizes(
                "Swin",
                width * 2**index,
                heads,
                depth=depth,
                window=self.window,
                patch_size=self.patch_size,
                num_classes=self.num_classes,
            )
        check_rates("Swin", dropout=self.dropout, drop_path=self.drop_path)
