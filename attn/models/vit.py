"""Vision Transformer, with slots for attention.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale", ICLR 2021, https://arxiv.org/abs/2010.11929, equations 1 to 4. The sizes Ti
and S, and the initialisation, are those of DeiT: Touvron et al., "Training
data-efficient image transformers", ICML 2021, https://arxiv.org/abs/2012.12877.

Differs from the paper: the classifier is one linear layer also in pre-training.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn.models import slots
from attn.models.base import Model, numbered
from attn.models.layers.checks import (
    check_heads,
    check_rates,
    check_reach,
    check_sizes,
)
from attn.models.layers.dense import classify, drop
from attn.models.layers.patches import embed_patches, patch_grid, token
from attn.models.layers.timm import PLAIN
from attn.models.layers.transformer import Block, layer_norm, mean_pool
from attn.models.scaling import Width, step_of
from attn.modules import position as positions
from attn.settings import Invalid, Positive


class Size(NamedTuple):
    """What a `size` of a ViT is short for."""

    width: int
    depth: int
    num_heads: int


SIZES = {
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
}


class ViT(Model):
    """Vision Transformer: images [B, H, W, C] -> logits [B, num_classes], float32.

    The position embedding is learned, unless another one is asked for: one vector a
    patch and one for the class token, so that its variables fit one image size, the
    one given to `init`. LayerNorm has eps 1e-6 and GELU is exact. Linear weights, the
    class token and the position embedding start as a normal of 0.02 truncated at two
    standard deviations, as in DeiT.

    Slots, each but the last of which may be narrowed, "block3/mixer", blocks counting
    from 0:

        block.pre    all tokens, before a block
        mixer        the token attention of a block, `multi_head` unless it is filled;
                     "none" leaves a block its MLP alone
        block.post   all tokens, after a block
        pool         a token attention that makes the vector to classify, instead of
                     the class token (or the mean token): that is its query, and its
                     keys and values are all tokens after the last LayerNorm

    An attention with a setting `num_heads` gets the model's, unless the filling gives
    one, and so does one with a setting `prefix` (1 with a class token). A map attention
    gets the map of the patches, and the class token bypasses it.

    Attributes:
        num_classes: number of logits.
        size: "tiny", "small", "base" or "large": the width, depth and heads in SIZES.
        patch_size: side of a patch, in pixels; it must divide the image.
        width, depth, num_heads: instead of what `size` has.
        mlp_ratio: hidden width of the MLP over the width.
        mlp_dim: that hidden width itself, instead of `mlp_ratio`.
        position: name of an encoding in `attn.modules.position`, or a mapping with
            "name" and its settings. One that adds to tokens does so after the patches
            are embedded, "conditional" after the first block; others act in the
            mixers, and each has its own parameters. {"name": "learned",
            "trained_grid": (14, 14)} takes vectors of 14x14 patches to other images
            by interpolation, and so does "learned_2d" by itself.
        pool: "class" classifies a class token (the paper), "mean" the mean of the
            patches, without class token.
        dropout: rate after the embedding, the mixer and both layers of the MLP; the
            paper has 0.1 on ImageNet, DeiT 0.
        other attributes: see `Model`; LayerNorm's statistics and the classifier are
            float32.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, map attentions alone beside a
            class token, or a position encoding that no mixer takes; when it is
            called, an image that the patches do not divide.
    """

    places: ClassVar = {"block.pre": 1, "mixer": 1, "block.post": 1, "pool": 0}
    usual_fill: ClassVar = {"mixer": "multi_head"}
    presets: ClassVar = SIZES
    timm: ClassVar = PLAIN

    num_classes: int
    size: Literal["tiny", "small", "base", "large"] = "base"
    patch_size: int = 16
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    mlp_ratio: float = 4.0
    mlp_dim: Positive | None = None
    position: str | Mapping[str, Any] = "learned"
    pool: Literal["class", "mean"] = "class"
    dropout: float = 0.0

    def __post_init__(self):
        width, depth, num_heads = self.sized()
        check_heads(self, width, num_heads)
        names = ("patch_size", "num_classes")
        check_sizes(self, depth=depth, **{name: getattr(self, name) for name in names})
        check_rates(self, dropout=self.dropout)
        self.position = positions.check(self.position)
        super().__post_init__()
        if self.pool == "class":
            advice = "; with pool='mean' there is none"
            check_reach(self, depth, "the class token", advice)
        self._check_position()

    def scopes(self) -> dict[str, dict]:
        """Blocks, counting from 0."""
        return numbered("block", self.sized().depth)

    def given(self) -> FrozenDict:
        """The heads, and the number of tokens before the patches."""
        prefix = 1 if self.pool == "class" else 0
        return FrozenDict(num_heads=self.sized().num_heads, prefix=prefix)

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width, which heads and positions restrict."""
        width, _, num_heads = self.sized()
        encoding = positions.find(self.position["name"])
        if "tokens" in encoding.acts:
            own, position = encoding.divisor, "none"
        else:
            own, position = 1, self.position
        inside = step_of(self.fill, {**self.given(), "position": position})
        step = math.lcm(num_heads, own, inside)
        hidden = self.mlp_dim or int(width * self.mlp_ratio)
        return {"width": Width(width, step), "mlp_dim": Width(hidden, 1)}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        encoding = self._encoding()
        grid = patch_grid(x, self.patch_size)
        of_tokens = "tokens" in encoding.acts
        x = self._embed(x.astype(self.dtype or x.dtype))
        if not encoding.blocks_before:
            x = encoding.tokens(x, grid)
        x = drop(self, x, train)
        position = positions.check("none" if of_tokens else self.position)
        for index in range(self.sized().depth):
            block = Block(
                given=self.given(),
                of_mixer=FrozenDict(position=position),
                mlp_ratio=self.mlp_ratio,
                mlp_dim=self.mlp_dim,
                dropout=self.dropout,
                **self.within(f"block{index}", x.dtype),
            )
            x = block(x, grid=grid, train=train)
            if index + 1 == encoding.blocks_before:
                x = encoding.tokens(x, grid)
        x = self._pool(layer_norm(self, "norm", x), grid, train)
        return classify(self, x, self.num_classes)

    def _embed(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, C] to tokens [B, T, C], the class token first."""
        tokens = embed_patches(self, x, self.sized().width)
        if self.pool == "class":
            first = token(self, "class_token", tokens)
            tokens = jnp.concatenate([first, tokens], axis=1)
        return tokens

    def _encoding(self) -> positions.Position:
        """The position encoding, with its variables at "position"."""
        given = {"prefix": self.given()["prefix"], "param_dtype": self.param_dtype}
        if not issubclass(positions.find(self.position["name"]), positions.Learned):
            return positions.build(self.position, called="position", **given)
        # Its one array is called "position" already, and is not put one level deeper.
        encoding = positions.build(self.position, called="learned", **given)
        nn.share_scope(self, encoding)
        return encoding

    def _pool(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        """Tokens [B, T, C] to the vector to classify, [B, C]."""
        if self.pool == "mean":
            return mean_pool(self, x, self.given(), grid, train)
        given = self.given()
        y = slots.attend_tokens(self, "pool", x[:, :1], x, given=given, train=train)
        return y[:, 0]

    def _check_position(self) -> None:
        """Refuses an encoding inside attentions of which none takes one."""
        name = self.position["name"]
        acts = positions.find(name).acts
        if not acts or "tokens" in acts:
            return
        fills = [slots.narrow(self.fill, scope) for scope in self.scopes()]
        mixers = [module for fill in fills for module in slots.filled(fill, "mixer")]
        if not any("position" in mixer.__dataclass_fields__ for mixer in mixers):
            raise Invalid(
                f"position {name!r} acts inside an attention, but no mixer of this ViT"
                " has a setting 'position', as 'multi_head' has"
            )
