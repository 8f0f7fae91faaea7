"""Vision Transformer, with slots for attention.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition
at Scale", ICLR 2021, https://arxiv.org/abs/2010.11929, equations 1 to 4. The sizes Ti
and S, and the initialisation, are those of DeiT: Touvron et al., "Training
data-efficient image transformers", ICML 2021, https://arxiv.org/abs/2012.12877.

Differs from the paper: the classifier is one linear layer also in pre-training.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.layers.patches import embed_patches, patch_grid, token
from attn.models.layers.transformer import (
    Block,
    check_sizes,
    classify,
    drop,
    layer_norm,
    mean_pool,
)
from attn.models.scaling import Dial, step_of
from attn.modules import position as positions
from attn.settings import Positive

# Width, depth and number of heads.
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
# How many scopes may narrow each slot.
PLACES = {"block.pre": 1, "mixer": 1, "block.post": 1, "pool": 0}


class ViT(nn.Module):
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

    An attention with a setting `num_heads` gets the host's, unless the filling gives
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
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes it
            as `slots`.
        dtype: computation type; None takes the type of the images. LayerNorm's
            statistics and the classifier are float32.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which attentions synchronise batch statistics.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, map attentions alone beside a
            class token, or a position encoding that no mixer takes; when it is
            called, an image that the patches do not divide.
    """

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
    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if self.size not in SIZES:
            raise settings.unknown("size of a ViT", self.size, SIZES)
        width, depth, num_heads = self._sizes()
        check_sizes(
            "ViT",
            width,
            num_heads,
            depth=depth,
            patch_size=self.patch_size,
            num_classes=self.num_classes,
        )
        self.position = positions.check(self.position)
        self.fill = slots.check(
            {"mixer": {"name": "multi_head"}, **slots.flatten(self.fill)},
            places=PLACES,
            scopes={f"block{index}": {} for index in range(depth)},
            given=self._given(),
        )
        self._check_reach()
        self._check_position()
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots, in the order in which tokens meet them."""
        return list(PLACES)

    def dials(self) -> dict[str, Dial]:
        """The settings that scale its width, which heads and positions restrict."""
        width, _, num_heads = self._sizes()
        encoding = positions.find(self.position["name"])
        if "tokens" in encoding.acts:
            own, position = encoding.divisor, "none"
        else:
            own, position = 1, self.position
        inside = step_of(self.fill, {**self._given(), "position": position})
        step = math.lcm(num_heads, own, inside)
        hidden = self.mlp_dim or int(width * self.mlp_ratio)
        return {"width": Dial(width, step), "mlp_dim": Dial(hidden, 1)}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        depth, encoding = self._sizes()[1], self._encoding()
        grid = patch_grid(x, self.patch_size)
        of_tokens = "tokens" in encoding.acts
        x = self._embed(x.astype(self.dtype or x.dtype))
        if not encoding.blocks_before:
            x = encoding.tokens(x, grid)
        x = drop(self, x, train)
        position = positions.check("none" if of_tokens else self.position)
        for index in range(depth):
            block = Block(
                given=self._given(),
                of_mixer=FrozenDict(position=position),
                mlp_ratio=self.mlp_ratio,
                mlp_dim=self.mlp_dim,
                dropout=self.dropout,
                fill=slots.narrow(self.fill, f"block{index}"),
                dtype=x.dtype,
                param_dtype=self.param_dtype,
                axis_name=self.axis_name,
                name=f"block{index}",
            )
            x = block(x, grid=grid, train=train)
            if index + 1 == encoding.blocks_before:
                x = encoding.tokens(x, grid)
        x = self._pool(layer_norm(self, "norm", x), grid, train)
        return classify(self, x)

    def _sizes(self) -> tuple[int, int, int]:
        """Width, depth and number of heads."""
        given = (self.width, self.depth, self.num_heads)
        pairs = zip(given, SIZES[self.size], strict=True)
        return tuple(usual if own is None else own for own, usual in pairs)

    def _given(self) -> FrozenDict:
        """Settings for every attention that has them."""
        prefix = 1 if self.pool == "class" else 0
        return FrozenDict({"num_heads": self._sizes()[2], "prefix": prefix})

    def _embed(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, C] to tokens [B, T, C], the class token first."""
        tokens = embed_patches(self, x, self._sizes()[0])
        if self.pool == "class":
            first = token(self, "class_token", tokens)
            tokens = jnp.concatenate([first, tokens], axis=1)
        return tokens

    def _encoding(self) -> positions.Position:
        """The position encoding, with its variables at "position"."""
        given = {"prefix": self._given()["prefix"], "param_dtype": self.param_dtype}
        if not issubclass(positions.find(self.position["name"]), positions.Learned):
            return positions.build(self.position, called="position", **given)
        # Its one array is called "position" already, and is not put one level deeper.
        encoding = positions.build(self.position, called="learned", **given)
        nn.share_scope(self, encoding)
        return encoding

    def _pool(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        """Tokens [B, T, C] to the vector to classify, [B, C]."""
        if self.pool == "mean":
            return mean_pool(self, x, self._given(), grid, train)
        module = slots.build(self, "pool", **self._given())
        y = x[:, :1] if module is None else module(x[:, :1], x, train=train)
        return y[:, 0]

    def _check_reach(self) -> None:
        """Refuses a filling with which the class token never sees the image."""
        if self.pool != "class":
            return
        pool = slots.filled(self.fill, "pool")
        if pool is not None and slots.contract(pool) == "map":
            raise settings.Invalid(
                f"slot 'pool': {self.fill['pool']['name']!r} attends to maps, which the"
                f" class token bypasses; with pool='mean' it pools the patches"
            )
        _, depth, _ = self._sizes()
        inside = [slots.narrow(self.fill, f"block{index}") for index in range(depth)]
        readers = [pool, *(slots.filled(fill, p) for fill in inside for p in PLACES)]
        if not any(module and slots.contract(module) == "token" for module in readers):
            raise settings.Invalid(
                "no slot of this ViT has a token attention, so that its class token"
                " never sees the image; use pool='mean'"
            )

    def _check_position(self) -> None:
        """Refuses an encoding inside attentions of which none takes one."""
        name = self.position["name"]
        acts = positions.find(name).acts
        if not acts or "tokens" in acts:
            return
        depth = self._sizes()[1]
        fills = [slots.narrow(self.fill, f"block{index}") for index in range(depth)]
        mixers = [slots.filled(fill, "mixer") for fill in fills]
        takers = [m for m in mixers if m and "position" in m.__dataclass_fields__]
        if not takers:
            raise settings.Invalid(
                f"position {name!r} acts inside an attention, but no mixer of this ViT"
                " has a setting 'position', as 'multi_head' has"
            )
