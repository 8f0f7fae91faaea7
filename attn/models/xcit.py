"""XCiT, whose channels attend instead of its tokens, with slots for attention.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021,
https://arxiv.org/abs/2106.09681, section 3 and appendix A: convolutions make the
patches; blocks mix channels by cross-covariance (equation 2), tokens by depth-wise
convolutions ("local patch interaction"); class attention makes the vector to classify.
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.layers.convolution import batch_norm
from attn.models.layers.patches import patch_grid, token
from attn.models.layers.transformer import (
    Block,
    check_rates,
    check_scopes,
    check_sizes,
    classify,
    dense,
    drop,
    layer_norm,
    layer_scale,
    mlp,
)
from attn.ops import positions

# Width, depth, number of heads, what LayerScale starts from, and whether the second
# norm of a class layer is of all tokens.
SIZES: dict[str, tuple[int, int, int, float, bool]] = {
    "nano_12": (128, 12, 4, 1.0, False),
    "tiny_12": (192, 12, 4, 1.0, True),
    "tiny_24": (192, 24, 4, 1e-5, True),
    "small_12": (384, 12, 8, 1.0, True),
    "small_24": (384, 24, 8, 1e-5, True),
    "medium_24": (512, 24, 8, 1e-5, True),
    "large_24": (768, 24, 16, 1e-5, True),
}
# How many scopes may narrow each slot.
PLACES = {"block.pre": 1, "mixer": 1, "block.post": 1, "class.mixer": 1}
MIXER, CLASS_MIXER = "cross_covariance", "class_attention"
WAVES = 64  # channels of the sinusoids of a position, half for rows


class LocalBlock(Block):
    """`Block` with local patch interaction between the mixer and the MLP.

    Attributes:
        local: whether there is local patch interaction.
        others: as in `Block`.
    """

    local: bool = True

    def _between(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        if not self.local:
            return x
        y = layer_norm(self, "norm3", x, self.epsilon)
        y = y.reshape(len(x), *grid, x.shape[-1])
        y = nn.gelu(self._depthwise("local1", y), approximate=False)
        y = batch_norm(self, "local_norm", y, train=train)
        y = self._depthwise("local2", y).reshape(x.shape)
        return x + self._branch("scale3", y, train)

    def _depthwise(self, name: str, x: jax.Array) -> jax.Array:
        return nn.Conv(
            x.shape[-1],
            (3, 3),
            feature_group_count=x.shape[-1],
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )(x)


class ClassLayer(nn.Module):
    """Class attention as XCiT has it: all tokens [B, 1 + T, C] -> [B, 1 + T, C].

    The class token reads all tokens and goes through an MLP. As in the released code,
    the other tokens are added to their norms, and to themselves.

    Attributes:
        fill: what fills the slot "class.mixer".
        norm_all: whether the second norm is of all tokens, or of the class token.
        others: as in `Block`.
    """

    fill: Mapping[str, Any]
    given: Mapping[str, Any]
    mlp_ratio: float
    layer_scale: float
    norm_all: bool
    dropout: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        scale = lambda name, y: layer_scale(self, name, y, self.layer_scale)
        join = lambda first, rest: jnp.concatenate([first, rest[:, 1:]], axis=1)
        mixer = slots.build(self, "class.mixer", **self.given)
        if mixer is not None:
            y = layer_norm(self, "norm1", x)
            read = drop(self, mixer(y[:, :1], y, train=train), train)
            x = x + scale("scale1", join(read, y))
        if self.norm_all:
            x = layer_norm(self, "norm2", x)
        else:
            x = join(layer_norm(self, "norm2", x[:, :1]), x)
        return x + join(scale("scale2", mlp(self, x[:, :1], train)), x)


class XCiT(nn.Module):
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

    An attention with a setting `num_heads` gets the host's, unless the filling gives
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
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes it
            as `slots`.
        dtype: computation type; None takes the type of the images. Statistics of norms
            and the classifier are float32.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which batch statistics synchronise.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, or no class attention; when it is
            called, an image that the patches do not divide.
    """

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
    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        self._check_sizes()
        _, depth, num_heads, _, _ = self._sizes()
        mixers = {"mixer": {"name": MIXER}, "class.mixer": {"name": CLASS_MIXER}}
        self.fill = slots.check(
            {**mixers, **slots.flatten(self.fill)},
            places=PLACES,
            scopes={
                **{f"block{index}": {} for index in range(depth)},
                **{f"class{index}": {} for index in range(self.class_layers)},
            },
            given={"num_heads": num_heads},
        )
        check_scopes(self.fill, self.class_layers)
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots, in the order in which tokens meet them."""
        return list(PLACES)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        _, depth, num_heads, start, norm_all = self._sizes()
        grid = patch_grid(x, self.patch_size)
        x = self._embed(x.astype(self.dtype or x.dtype), grid, train)
        common = {
            "given": FrozenDict({"num_heads": num_heads}),
            "mlp_ratio": self.mlp_ratio,
            "layer_scale": start,
            "dropout": self.dropout,
            "dtype": x.dtype,
            "param_dtype": self.param_dtype,
            "axis_name": self.axis_name,
        }
        for index in range(depth):
            block = LocalBlock(
                fill=slots.narrow(self.fill, f"block{index}"),
                drop_path=self.drop_path,
                local=self.local,
                name=f"block{index}",
                **common,
            )
            x = block(x, grid=grid, train=train)
        x = jnp.concatenate([token(self, "class_token", x), x], axis=1)
        for index in range(self.class_layers):
            name = f"class{index}"
            fill = slots.narrow(self.fill, name)
            layer = ClassLayer(fill=fill, norm_all=norm_all, name=name, **common)
            x = layer(x, train=train)
        return classify(self, layer_norm(self, "norm", x[:, 0]))

    def _embed(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        """Images [B, H, W, C] to tokens [B, T, C] with their positions."""
        width = self._sizes()[0]
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

    def _sizes(self) -> tuple[int, int, int, float, bool]:
        """Width, depth, number of heads, start of LayerScale, norm of all tokens."""
        given = (
            self.width,
            self.depth,
            self.num_heads,
            self.layer_scale,
            self.norm_all,
        )
        pairs = zip(given, SIZES[self.size], strict=True)
        return tuple(usual if own is None else own for own, usual in pairs)

    def _check_sizes(self) -> None:
        if self.size not in SIZES:
            raise settings.unknown("size of an XCiT", self.size, SIZES)
        if self.patch_size not in (8, 16):
            raise settings.Invalid(
                f"patch_size of an XCiT must be 8 or 16, got {self.patch_size}"
            )
        width, depth, num_heads, _, _ = self._sizes()
        check_sizes(
            "XCiT",
            width,
            num_heads,
            depth=depth,
            class_layers=self.class_layers,
            num_classes=self.num_classes,
        )
        if width % (self.patch_size // 2):
            raise settings.Invalid(
                f"width={width} of an XCiT with patch_size={self.patch_size} must be"
                f" divisible by {self.patch_size // 2}"
            )
        check_rates("XCiT", dropout=self.dropout, drop_path=self.drop_path)
