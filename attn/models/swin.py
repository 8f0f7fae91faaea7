"""Swin Transformer, with slots for attention.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
ICCV 2021, https://arxiv.org/abs/2103.14030, section 3 and table 7: four stages of
blocks that attend in windows, shifted in every second one; between stages, neighbours
of 2x2 are merged into one token of twice the width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.checks import check_heads, check_rates, check_sizes
from attn.models.layers.dense import NORMAL, classify, drop
from attn.models.layers.patches import embed_patches, patch_grid
from attn.models.layers.transformer import Block, drop_paths, layer_norm, mean_pool
from attn.settings import Invalid


class Size(NamedTuple):
    """What a `size` of a Swin is short for; `width` is that of the first stage."""

    width: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]


SIZES = {
    "tiny": Size(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": Size(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": Size(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": Size(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
EPSILON = 1e-5  # of all layer norms, as torch has it


class Stage(Slotted):
    """The blocks of one resolution: tokens [B, H W, C] -> [B, H W, C].

    Attributes:
        rates: the `drop_path` of each block; there are as many blocks.
        other attributes: as in `Block` and `Swin`, `fill` narrowed to this stage.
    """

    rates: tuple[float, ...]
    given: Mapping[str, Any]
    mlp_ratio: float
    dropout: float

    @nn.compact
    def __call__(
        self, x: jax.Array, *, grid: tuple[int, int], train: bool
    ) -> jax.Array:
        for index, rate in enumerate(self.rates):
            inside = self.within(f"block{index}")
            usual = {"mixer": "shifted_window" if index % 2 else "window"}
            fill = FrozenDict({**slots.flatten(usual), **inside.pop("fill")})
            block = Block(
                fill=fill,
                given=self.given,
                mlp_ratio=self.mlp_ratio,
                epsilon=EPSILON,
                dropout=self.dropout,
                drop_path=rate,
                **inside,
            )
            x = block(x, grid=grid, train=train)
        options = {"given": self.given, "grid": grid, "train": train}
        return slots.attend_tokens(self, "stage.end", x, **options)


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


class Swin(Model):
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
        other attributes: see `Model`; LayerNorm's statistics and the classifier are
            float32.

    Raises:
        Invalid: when it is made, heads that do not divide a width, a size below 1,
            tuples of different lengths, an unknown slot, attention or setting; when it
            is called, an image that the patches do not divide.
    """

    places: ClassVar = {
        "block.pre": 2,
        "mixer": 2,
        "block.post": 2,
        "stage.end": 1,
        "pool": 0,
    }
    presets: ClassVar = SIZES
    timm: ClassVar = (
        (r"^stage(\d+)/block", lambda m: f"layers.{int(m[1]) - 1}.blocks."),
        (r"^merge(\d+)", r"layers.\1.downsample"),
        (r"^embed_norm\b", "patch_embed.norm"),
        (r"^embed\b", "patch_embed.proj"),
        (r"^classifier\b", "head.fc"),
        (r"\bbias_table$", "relative_position_bias_table"),
    )

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

    def __post_init__(self):
        for name in ("depths", "num_heads"):  # lists, as JSON has them
            if getattr(self, name) is not None:
                setattr(self, name, tuple(getattr(self, name)))
        self._check()
        super().__post_init__()

    def scopes(self) -> dict[str, dict]:
        """Stages, counting from 1, and their blocks, from 0."""
        return {
            f"stage{stage}": numbered("block", depth)
            for stage, depth in enumerate(self.sized().depths, 1)
        }

    def given(self) -> FrozenDict:
        """Heads and window of the first stage."""
        return FrozenDict(num_heads=self.sized().num_heads[0], window=self.window)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        width, depths, num_heads = self.sized()
        grid = patch_grid(x, self.patch_size)
        x = embed_patches(self, x.astype(self.dtype or x.dtype), width)
        x = drop(self, layer_norm(self, "embed_norm", x, EPSILON), train)
        rates = drop_paths(self.drop_path, sum(depths))
        for index, depth in enumerate(depths):
            if index > 0:
                merge = Merge(self.param_dtype, name=f"merge{index}")
                x, grid = merge(x, grid)
            here, rates = rates[:depth], rates[depth:]
            window = tuple(min(self.window, side) for side in grid)
            stage = Stage(
                rates=tuple(here),
                given=FrozenDict(num_heads=num_heads[index], window=window),
                mlp_ratio=self.mlp_ratio,
                dropout=self.dropout,
                **self.within(f"stage{index + 1}", x.dtype),
            )
            x = stage(x, grid=grid, train=train)
        x = layer_norm(self, "norm", x, EPSILON)
        given = {"num_heads": num_heads[-1]}
        x = mean_pool(self, x, given, grid, train)
        return classify(self, x, self.num_classes)

    def _check(self) -> None:
        width, depths, num_heads = self.sized()
        if len(depths) != len(num_heads) or not depths:
            raise Invalid(
                f"depths and num_heads of a Swin have an entry a stage, got {depths}"
                f" and {num_heads}"
            )
        for stage, heads in enumerate(num_heads):
            check_heads(self, width * 2**stage, heads)
        names = ("window", "patch_size", "num_classes")
        sizes = {name: getattr(self, name) for name in names}
        check_sizes(self, depths=depths, **sizes)
        check_rates(self, dropout=self.dropout, drop_path=self.drop_path)
