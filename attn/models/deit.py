"""DeiT with distillation: a Vision Transformer with a second token and a second head.

Touvron et al., "Training data-efficient image transformers & distillation through
attention", ICML 2021, https://arxiv.org/abs/2012.12877, section 4 and figure 2: the
distillation token goes through the network beside the class token, and its head learns
what a teacher says. DeiT without distillation is `vit`.
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
    check_sizes,
    classify,
    drop,
    layer_norm,
)

# Width, depth and number of heads.
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
}
# How many scopes may narrow each slot.
PLACES = {"block.pre": 1, "mixer": 1, "block.post": 1, "pool": 0}


class DeiT(nn.Module):
    """Distilled DeiT: images [B, H, W, C] -> logits [B, num_classes], float32.

    The logits are the mean of those of the two heads, as the paper has it in
    evaluation, in training too. For a loss that tells them apart there is `heads`:
    `host.apply(variables, images, train=True, method="heads")`.

    The position embedding is learned, one vector a patch and one for each of the two
    tokens, so that its variables fit one image size, the one given to `init`.
    LayerNorm has eps 1e-6 and GELU is exact. Linear weights, tokens and positions
    start as a normal of 0.02 truncated at two standard deviations.

    Slots, each but the last of which may be narrowed, "block3/mixer", blocks counting
    from 0:

        block.pre    all tokens, before a block
        mixer        the token attention of a block, `multi_head` unless it is filled;
                     "none" leaves a block its MLP alone
        block.post   all tokens, after a block
        pool         a token attention that makes the two vectors to classify: its
                     queries are the class and the distillation token, its keys and
                     values are all tokens after the last LayerNorm

    An attention with a setting `num_heads` gets the host's, unless the filling gives
    one, and one with a setting `prefix` gets 2. A map attention gets the map of the
    patches, and the two tokens bypass it.

    Attributes:
        num_classes: number of logits of each head.
        size: "tiny", "small" or "base": the width, depth and heads in SIZES.
        patch_size: side of a patch, in pixels; it must divide the image.
        width, depth, num_heads: instead of what `size` has.
        mlp_ratio: hidden width of the MLP over the width.
        dropout: rate after the embedding, the mixer and both layers of the MLP.
        drop_path: rate at which branches of the last block are left out of an example
            in training, from 0 at the first and linear between; the paper has 0.1.
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes it
            as `slots`.
        dtype: computation type; None takes the type of the images. LayerNorm's
            statistics and the classifiers are float32.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which attentions synchronise batch statistics.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, or no token attention at all;
            when it is called, an image that the patches do not divide.
    """

    num_classes: int
    size: Literal["tiny", "small", "base"] = "base"
    patch_size: int = 16
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0
    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        if self.size not in SIZES:
            raise settings.unknown("size of a DeiT", self.size, SIZES)
        width, depth, num_heads = self._sizes()
        check_sizes(
            "DeiT",
            width,
            num_heads,
            depth=depth,
            patch_size=self.patch_size,
            num_classes=self.num_classes,
        )
        check_rates("DeiT", dropout=self.dropout, drop_path=self.drop_path)
        self.fill = slots.check(
            {"mixer": {"name": "multi_head"}, **slots.flatten(self.fill)},
            places=PLACES,
            scopes={f"block{index}": {} for index in range(depth)},
            given={"num_heads": num_heads, "prefix": 2},
        )
        self._check_reach()
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots, in the order in which tokens meet them."""
        return list(PLACES)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        ours, teachers = self.heads(x, train=train)
        return (ours + teachers) / 2

    @nn.compact
    def heads(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Logits of the class token and of the distillation token."""
        _, depth, num_heads = self._sizes()
        grid = patch_grid(x, self.patch_size)
        x = self._embed(x.astype(self.dtype or x.dtype), train)
        given = FrozenDict({"num_heads": num_heads, "prefix": 2})
        for index in range(depth):
            block = Block(
                fill=slots.narrow(self.fill, f"block{index}"),
                given=given,
                mlp_ratio=self.mlp_ratio,
                dropout=self.dropout,
                drop_path=self.drop_path * index / max(1, depth - 1),
                dtype=x.dtype,
                param_dtype=self.param_dtype,
                axis_name=self.axis_name,
                name=f"block{index}",
            )
            x = block(x, grid=grid, train=train)
        x = layer_norm(self, "norm", x)
        pool = slots.build(self, "pool", **given)
        y = x[:, :2] if pool is None else pool(x[:, :2], x, train=train)
        teachers = classify(self, y[:, 1], "distillation_classifier")
        return classify(self, y[:, 0]), teachers

    def _embed(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [B, H, W, C] to the two tokens and those of the patches."""
        x = embed_patches(self, x, self._sizes()[0])
        names = ("class_token", "distillation_token")
        x = jnp.concatenate([*(token(self, name, x) for name in names), x], axis=1)
        return drop(self, add_positions(self, x), train)

    def _sizes(self) -> tuple[int, int, int]:
        """Width, depth and number of heads."""
        given = (self.width, self.depth, self.num_heads)
        pairs = zip(given, SIZES[self.size], strict=True)
        return tuple(usual if own is None else own for own, usual in pairs)

    def _check_reach(self) -> None:
        """Refuses a filling with which the two tokens never see the image."""
        pool = slots.filled(self.fill, "pool")
        if pool is not None and slots.contract(pool) == "map":
            raise settings.Invalid(
                f"slot 'pool': {self.fill['pool']['name']!r} attends to maps, which the"
                " class and the distillation token bypass"
            )
        readers = [pool]
        for index in range(self._sizes()[1]):
            fill = slots.narrow(self.fill, f"block{index}")
            readers += [
                slots.filled(fill, place) for place in PLACES if place != "pool"
            ]
        if not any(module and slots.contract(module) == "token" for module in readers):
            raise settings.Invalid(
                "no slot of this DeiT has a token attention, so that its two tokens"
                " never see the image"
            )
