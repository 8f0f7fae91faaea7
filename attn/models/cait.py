"""CaiT, a deep Vision Transformer whose class token comes in late, with slots.

Touvron et al., "Going deeper with Image Transformers", ICCV 2021,
https://arxiv.org/abs/2103.17239: blocks of patches alone with LayerScale (equation 4)
and talking-heads attention, then two layers in which nothing but the class token
changes, by class attention (section 3, equations 5 to 7; figure 2, right).
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
from attn.models.layers.dense import classify, drop
from attn.models.layers.patches import add_positions, embed_patches, patch_grid, token
from attn.models.layers.timm import PLAIN
from attn.models.layers.transformer import Block, layer_norm, layer_scale, mlp


class Size(NamedTuple):
    """What a `size` of a CaiT is short for."""

    width: int
    depth: int
    num_heads: int
    layer_scale: float


SIZES = {
    "xxs24": Size(192, 24, 4, 1e-5),
    "xxs36": Size(192, 36, 4, 1e-5),
    "xs24": Size(288, 24, 6, 1e-5),
    "s24": Size(384, 24, 8, 1e-5),
    "s36": Size(384, 36, 8, 1e-6),
    "m36": Size(768, 36, 16, 1e-6),
    "m48": Size(768, 48, 16, 1e-6),
}


class ClassLayer(Slotted):
    """A class token [B, 1, C] that reads patches [B, T, C]: the new class token.

    Attributes:
        other attributes: as in `Block`; the slot is "class.mixer".
    """

    given: Mapping[str, Any]
    mlp_ratio: float
    layer_scale: float
    dropout: float

    @nn.compact
    def __call__(self, token: jax.Array, x: jax.Array, *, train: bool) -> jax.Array:
        scale = lambda name, y: layer_scale(self, name, y, self.layer_scale)
        if slots.filled(self.fill, "class.mixer"):
            both = layer_norm(self, "norm1", jnp.concatenate([token, x], axis=1))
            options = {"given": self.given, "train": train}
            y = slots.attend_tokens(self, "class.mixer", both[:, :1], both, **options)
            y = drop(self, y, train)
            token = token + scale("scale1", y)
        y = mlp(self, layer_norm(self, "norm2", token), train)
        return token + scale("scale2", y)


class CaiT(Model):
    """CaiT: images [B, H, W, C] -> logits [B, num_classes], float32.

    The position embedding is learned, one vector a patch, so that its variables fit
    one image size, the one given to `init`. LayerNorm has eps 1e-6 and GELU is exact.

    Slots, each of which may be narrowed, "block3/mixer" or "class1/class.mixer", blocks
    and class layers counting from 0:

        block.pre     the tokens of the patches, before a block
        mixer         the token attention of a block, `talking_heads` unless it is
                      filled; "none" leaves a block its MLP alone
        block.post    the tokens of the patches, after a block
        class.mixer   the token attention of a class layer, `class_attention` unless it
                      is filled: its query is the class token, its keys and values are
                      the class token and the patches

    An attention with a setting `num_heads` gets the model's, unless the filling gives
    one.

    Attributes:
        num_classes: number of logits.
        size: "xxs24", "xxs36", "xs24", "s24", "s36", "m36" or "m48": the width, depth,
            heads and start of LayerScale in SIZES.
        patch_size: side of a patch, in pixels; it must divide the image.
        width, depth, num_heads, layer_scale: instead of what `size` has.
        class_layers: number of class-attention layers.
        mlp_ratio: hidden width of the MLPs over the width.
        dropout: rate after the embedding, the mixers and both layers of the MLPs.
        drop_path: rate at which branches of the blocks are left out of an example in
            training, the same in all, as the paper has it: 0.05 for xxs24, more for
            deeper ones. Class layers have none.
        other attributes: see `Model`; LayerNorm's statistics and the classifier are
            float32.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, or no class attention; when it is
            called, an image that the patches do not divide.
    """

    places: ClassVar = {"block.pre": 1, "mixer": 1, "block.post": 1, "class.mixer": 1}
    usual_fill: ClassVar = {"mixer": "talking_heads", "class.mixer": "class_attention"}
    presets: ClassVar = SIZES
    timm: ClassVar = (
        *PLAIN,
        (r"^class(\d+)", r"blocks_token_only.\1"),
        (r"\bmix_logits\b", "proj_l"),
        (r"\bmix_weights\b", "proj_w"),
        (r"\bscale(\d)$", r"gamma_\1"),
    )

    num_classes: int
    size: Literal["xxs24", "xxs36", "xs24", "s24", "s36", "m36", "m48"] = "xxs24"
    patch_size: int = 16
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    layer_scale: float | None = None
    class_layers: int = 2
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self):
        size = self.sized()
        check_heads(self, size.width, size.num_heads)
        names = ("class_layers", "patch_size", "num_classes")
        sizes = {name: getattr(self, name) for name in names}
        check_sizes(self, depth=size.depth, **sizes)
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
        x = embed_patches(self, x.astype(self.dtype or x.dtype), size.width)
        x = drop(self, add_positions(self, x), train)
        common = {
            "given": self.given(),
            "mlp_ratio": self.mlp_ratio,
            "layer_scale": size.layer_scale,
            "dropout": self.dropout,
        }
        for index in range(size.depth):
            inside = self.within(f"block{index}", x.dtype)
            block = Block(drop_path=self.drop_path, **common, **inside)
            x = block(x, grid=grid, train=train)
        y = token(self, "class_token", x)
        for index in range(self.class_layers):
            layer = ClassLayer(**common, **self.within(f"class{index}", x.dtype))
            y = layer(y, x, train=train)
        y = layer_norm(self, "norm", y)[:, 0]
        return classify(self, y, self.num_classes)
