"""XCiT, whose channels attend instead of its tokens, with slots for attention.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021,
https://arxiv.org/abs/2106.09681, section 3 and appendix A: convolutions make the
patches; blocks mix channels by cross-covariance (equation 2), tokens by depth-wise
convolutions ("local patch interaction"); class attention makes the vector to classify.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.checks import (
    check_class_layers,
    check_heads,
    check_rates,
    check_sizes,
)
from attn.models.layers.convolution import batch_norm
from attn.models.layers.dense import classify, dense, drop
from attn.models.layers.patches import patch_grid, token
from attn.models.layers.timm import PLAIN
from attn.models.layers.transformer import Block, layer_norm, layer_scale, mlp
from attn.ops import positions
from attn.settings import Invalid


class Size(NamedTuple):
    """What a `size` of an XCiT is short for.

    `norm_all` says whether the second norm of a class layer is of all tokens.
    """

    width: int
    depth: int
    num_heads: int
    layer_scale: float
    norm_all: bool


SIZES = {
    "nano_12": Size(128, 12, 4, 1.0, False),
    "tiny_12": Size(192, 12, 4, 1.0, True),
    "tiny_24": Size(192, 24, 4, 1e-5, True),
    "small_12": Size(384, 12, 8, 1.0, True),
    "small_24": Size(384, 24, 8, 1e-5, True),
    "medium_24": Size(512, 24, 8, 1e-5, True),
    "large_24": Size(768, 24, 16, 1e-5, True),
}
WAVES = 64  # channels of the sinusoids of a position, half for rows


class LocalBlock(Block):
    """`Block` with local patch interaction between the mixer and the MLP.

    Attributes:
        local: whether there is local patch interaction.
        other attributes: as in `Block`.
    """

    local: bool = True

    def _between(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        if not self.local:
            return x

        def mix(y: jax.Array) -> jax.Array:
            y = y.reshape(len(x), *grid, x.shape[-1])
            y = nn.gelu(self._depthwise("local1", y), approximate=False)
            y = batch_norm(self, "local_norm", y, train=train)
            return self._depthwise("local2", y).reshape(x.shape)

        return self._add(3, x, mix, train)

    def _depthwise(self, name: str, x: jax.Array) -> jax.Array:
        return nn.Conv(
            x.shape[-1],
            (3, 3),
            feature_group_count=x.shape[-1],
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(x)


class ClassLayer(Slotted):
    """Class attention as XCiT has it: all tokens [B, 1 + T, C] -> [B, 1 + T, C].

    The class token reads all tokens and goes through an MLP. As in the released code,
    the other tokens are added to their norms, and to themselves.

    Attributes:
        norm_all: whether the second norm is of all tokens, or of the class token.
        other attributes: as in `Block`; the slot is "class.mixer".
    """

    given: Mapping[str, Any]
    mlp_ratio: float
    layer_scale: float
    norm_all: bool
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        scale = lambda name, y: layer_scale(self, name, y, self.layer_scale)
        join = lambda first, rest: jnp.concatenate([first, rest[:, 1:]], axis=1)
        if slots.filled(self.fill, "class.mixer"):
            y = layer_norm(self, "norm1", x)
            options = {"given": self.given, "train": train}
            read = slots.attend_tokens(self, "class.mixer", y[:, :1], y, **options)
            read = drop(self, read, train)
            x = x + scale("scale1", join(read, y))
        if self.norm_all:
            x = layer_norm(self, "norm2", x)
        else:
            x = join(layer_norm(self, "norm2", x[:, :1]), x)
        return x + join(scale("scale2", mlp(self, x[:, :1], train)), x)


class XCiT(Model):
    """XCiT: images [B, H, W, C] -> logits [B, num_classes], float32.

    Positions are sinusoids of rows and columns, normalised by the size of the image,
    through a linear map, so that one set of variables serves every size of image that
    the patches divide. LayerNorm has eps 1e-6 and GELU is exact.

    Slots, each of which may be narrowed, "block3/mixer" or "class1/class.mixer", blocks
    and class layers counting from 0:

        block.pre     the tokens of the patches, before a block
        mixer         the token attention of a block, `cross_covariance` unless it is
                      filled; "none" leaves a block its convolutions and MLP
        block.post    the tokens of the patches, after a block
        class.mixer   the token attention of a class layer, `class_attention` unless it
                      is filled: its query is the class token, its keys and values are
                      the class token and the patches

    An attention with a setting `num_heads` gets the model's, unless the filling gives
    one.

    Attributes:
        num_classes: number of logits.
        size: "nano_12", "tiny_12", "tiny_24", "small_12", "small_24", "medium_24" or
            "large_24": width and all that SIZES has.
        patch_size: 16 or 8: four or three convolutions of stride 2; it must divide the
            image.
        width, depth, num_heads, layer_scale, norm_all: instead of what `size` has. The
            width must be divisible by half the patch size.
        class_layers: number of class-attention layers.
        local: whether blocks have local patch interaction, two depth-wise convolutions
            of 3x3; without it tokens meet only in norms (the paper's table 4).
        mlp_ratio: hidden width of the MLPs over the width.
        dropout: rate after the embedding, the mixers and both layers of the MLPs.
        drop_path: rate at which branches of the blocks are left out of an example in
            training, the same in all. Class layers have none.
        other attributes: see `Model`; statistics of norms and the classifier are
            float32.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, or no class attention; when it is
            called, an image that the patches do not divide.
    """

    places: ClassVar = {"block.pre": 1, "mixer": 1, "block.post": 1, "class.mixer": 1}
    usual_fill: ClassVar = {
        "mixer": "cross_covariance",
        "class.mixer": "class_attention",
    }
    presets: ClassVar = SIZES
    timm: ClassVar = (
        (r"^position\b", "pos_embed.token_projection"),
        *PLAIN,
        (r"^class(\d+)", r"cls_attn_blocks.\1"),
        # Convolution, norm and GELU take turns in timm's list.
        (r"^embed(\d)_norm\b", lambda m: f"patch_embed.proj.{2 * int(m[1])}.1"),
        (r"^embed(\d)\b", lambda m: f"patch_embed.proj.{2 * int(m[1])}.0"),
        (r"\blocal_norm\b", "local_mp.bn"),
        (r"\blocal(\d)\b", r"local_mp.conv\1"),
        (r"\bscale(\d)$", r"gamma\1"),
    )

    num_classes: int
    size: Literal[
        "nano_12",
        "tiny_12",
        "tiny_24",
        "small_12",
        "small_24",
        "medium_24",
        "large_24",
    ] = "tiny_12"
    patch_size: Literal[8, 16] = 16
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    layer_scale: float | None = None
    norm_all: bool | None = None
    class_layers: int = 2
    local: bool = True
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self):
        self._check_sizes()
        check_rates(self, dropout=self.dropout, drop_path=self.drop_path)
        super().__post_init__()
        check_class_layers(self.fill, self.class_layers)

    def scopes(self) -> dict[str, dict]:
        """Blocks and class layers, each counting from 0."""
        blocks = numbered("block", self.sized().depth)
        return {**blocks, **numbered("class", self.class_layers)}

    def given(self) -> FrozenDict:
        """The heads."""
        return FrozenDict(num_heads=self.sized().num_heads)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        size = self.sized()
        grid = patch_grid(x, self.patch_size)
        x = self._embed(x.astype(self.dtype or x.dtype), grid, train)
        common = {
            "given": self.given(),
            "mlp_ratio": self.mlp_ratio,
            "layer_scale": size.layer_scale,
            "dropout": self.dropout,
        }
        for index in range(size.depth):
            block = LocalBlock(
                drop_path=self.drop_path,
                local=self.local,
                **common,
                **self.within(f"block{index}", x.dtype),
            )
            x = block(x, grid=grid, train=train)
        x = jnp.concatenate([token(self, "class_token", x), x], axis=1)
        for index in range(self.class_layers):
            inside = self.within(f"class{index}", x.dtype)
            layer = ClassLayer(norm_all=size.norm_all, **common, **inside)
            x = layer(x, train=train)
        x = layer_norm(self, "norm", x[:, 0])
        return classify(self, x, self.num_classes)

    def _embed(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        """Images [B, H, W, C] to tokens [B, T, C] with their positions."""
        width = self.sized().width
        steps = self.patch_size.bit_length() - 1
        for index in range(steps):
            x = nn.Conv(
                width >> (steps - 1 - index),
                (3, 3),
                2,
                padding=1,  # not "SAME", which pads even images on one side alone
                use_bias=False,
                dtype=x.dtype,
                param_dtype=self.param_dtype,
                name=f"embed{index}",
            )(x)
            x = batch_norm(self, f"embed{index}_norm", x, train=train)
            x = nn.gelu(x, approximate=False) if index < steps - 1 else x
        waves = jnp.asarray(positions.sinusoidal_2d(grid, WAVES), x.dtype)
        x = x + dense(self, "position", waves[None], width)
        return drop(self, x.reshape(len(x), -1, width), train)

    def _check_sizes(self) -> None:
        if self.patch_size not in (8, 16):
            raise Invalid(f"patch_size of XCiT must be 8 or 16, got {self.patch_size}")
        size = self.sized()
        check_heads(self, size.width, size.num_heads)
        check_sizes(
            self,
            depth=size.depth,
            class_layers=self.class_layers,
            num_classes=self.num_classes,
        )
        if size.width % (self.patch_size // 2):
            raise Invalid(
                f"width={size.width} of an XCiT with patch_size={self.patch_size} must"
                f" be divisible by {self.patch_size // 2}"
            )
