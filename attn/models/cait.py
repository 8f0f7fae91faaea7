"""CaiT, a deep Vision Transformer whose class token comes in late, with slots.

Touvron et al., "Going deeper with Image Transformers", ICCV 2021,
https://arxiv.org/abs/2103.17239: blocks of patches alone with LayerScale (equation 4)
and talking-heads attention, then two layers in which nothing but the class token
changes, by class attention (section 3, equations 5 to 7; figure 2, right).
"""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.layers.patches import add_positions, embed_patches, patch_grid, token
from attn.models.layers.transformer import (
    Block,
    check_rates,
    check_scopes,
    check_sizes,
    classify,
    drop,
    layer_norm,
    layer_scale,
    mlp,
)

# Width, depth, number of heads, and what LayerScale starts from.
SIZES: dict[str, tuple[int, int, int, float]] = {
    "xxs24": (192, 24, 4, 1e-5),
    "xxs36": (192, 36, 4, 1e-5),
    "xs24": (288, 24, 6, 1e-5),
    "s24": (384, 24, 8, 1e-5),
    "s36": (384, 36, 8, 1e-6),
    "m36": (768, 36, 16, 1e-6),
    "m48": (768, 48, 16, 1e-6),
}
# How many scopes may narrow each slot.
PLACES = {"block.pre": 1, "mixer": 1, "block.post": 1, "class.mixer": 1}
MIXER, CLASS_MIXER = "talking_heads", "class_attention"


class ClassLayer(nn.Module):
    """A class token [B, 1, C] that reads patches [B, T, C]: the new class token.

    Attributes:
        fill: what fills the slot "class.mixer".
        others: as in `Block`.
    """

    fill: Mapping[str, Any]
    given: Mapping[str, Any]
    mlp_ratio: float
    layer_scale: float
    dropout: float
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    axis_name: str | None

    @nn.compact
    def __call__(self, token: jax.Array, x: jax.Array, *, train: bool) -> jax.Array:
        scale = lambda name, y: layer_scale(self, name, y, self.layer_scale)
        mixer = slots.build(self, "class.mixer", **self.given)
        if mixer is not None:
            both = layer_norm(self, "norm1", jnp.concatenate([token, x], axis=1))
            y = drop(self, mixer(both[:, :1], both, train=train), train)
            token = token + scale("scale1", y)
        y = mlp(self, layer_norm(self, "norm2", token), train)
        return token + scale("scale2", y)


class CaiT(nn.Module):
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

    An attention with a setting `num_heads` gets the host's, unless the filling gives
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
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes it
            as `slots`.
        dtype: computation type; None takes the type of the images. LayerNorm's
            statistics and the classifier are float32.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which attentions synchronise batch statistics.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, or no class attention; when it is
            called, an image that the patches do not divide.
    """

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
    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if self.size not in SIZES:
            raise settings.unknown("size of a CaiT", self.size, SIZES)
        width, depth, num_heads, _ = self._sizes()
        check_sizes(
            "CaiT",
            width,
            num_heads,
            depth=depth,
            class_layers=self.class_layers,
            patch_size=self.patch_size,
            num_classes=self.num_classes,
        )
        check_rates("CaiT", dropout=self.dropout, drop_path=self.drop_path)
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
        width, depth, num_heads, start = self._sizes()
        grid = patch_grid(x, self.patch_size)
        x = embed_patches(self, x.astype(self.dtype or x.dtype), width)
        x = drop(self, add_positions(self, x), train)
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
            name = f"block{index}"
            fill = slots.narrow(self.fill, name)
            block = Block(fill=fill, drop_path=self.drop_path, name=name, **common)
            x = block(x, grid=grid, train=train)
        y = token(self, "class_token", x)
        for index in range(self.class_layers):
            name = f"class{index}"
            layer = ClassLayer(fill=slots.narrow(self.fill, name), name=name, **common)
            y = layer(y, x, train=train)
        return classify(self, layer_norm(self, "norm", y)[:, 0])

    def _sizes(self) -> tuple[int, int, int, float]:
        """Width, depth, number of heads and start of LayerScale."""
        given = (self.width, self.depth, self.num_heads, self.layer_scale)
        pairs = zip(given, SIZES[self.size], strict=True)
        return tuple(usual if own is None else own for own, usual in pairs)
