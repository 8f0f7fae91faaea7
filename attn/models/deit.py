"""DeiT with distillation: a Vision Transformer with a second token and a second head.

Touvron et al., "Training data-efficient image transformers & distillation through
attention", ICML 2021, https://arxiv.org/abs/2012.12877, section 4 and figure 2: the
distillation token goes through the network beside the class token, and its head learns
what a teacher says. DeiT without distillation is `vit`.
"""

import functools
from typing import ClassVar, Literal, NamedTuple

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
from attn.models.layers.patches import add_positions, embed_patches, patch_grid, token
from attn.models.layers.timm import PLAIN
from attn.models.layers.transformer import Block, drop_paths, layer_norm


class Size(NamedTuple):
    """What a `size` of a DeiT is short for."""

    width: int
    depth: int
    num_heads: int


SIZES = {
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
}


class DeiT(Model):
    """Distilled DeiT: images [B, H, W, C] -> logits [B, num_classes], float32.

    The logits are the mean of those of the two heads. With `distilled_training` they
    are so in evaluation alone, as the paper has it, and in training the output is
    {"logits": of the class token, "distilled": of the distillation token}, for a loss
    that tells them apart, such as the task `distillation`.

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

    An attention with a setting `num_heads` gets the model's, unless the filling gives
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
        distilled_training: whether the heads are two outputs in training, see above.
        other attributes: see `Model`; LayerNorm's statistics and the classifiers are
            float32.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below
            1, an unknown slot, attention or setting, or no token attention at all;
            when it is called, an image that the patches do not divide.
    """

    places: ClassVar = {"block.pre": 1, "mixer": 1, "block.post": 1, "pool": 0}
    usual_fill: ClassVar = {"mixer": "multi_head"}
    presets: ClassVar = SIZES
    task_layers: ClassVar = ("classifier", "distillation_classifier")
    timm: ClassVar = (
        *PLAIN,
        (r"^distillation_token$", "dist_token"),
        (r"^distillation_classifier\b", "head_dist"),
    )

    num_classes: int
    size: Literal["tiny", "small", "base"] = "base"
    patch_size: int = 16
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    drop_path: float = 0.0
    distilled_training: bool = False

    def __post_init__(self):
        width, depth, num_heads = self.sized()
        check_heads(self, width, num_heads)
        names = ("patch_size", "num_classes")
        check_sizes(self, depth=depth, **{name: getattr(self, name) for name in names})
        check_rates(self, dropout=self.dropout, drop_path=self.drop_path)
        super().__post_init__()
        check_reach(self, depth, "the class and the distillation token")

    def scopes(self) -> dict[str, dict]:
        """Blocks, counting from 0."""
        return numbered("block", self.sized().depth)

    def given(self) -> FrozenDict:
        """The heads, and the number of tokens before the patches."""
        return FrozenDict(num_heads=self.sized().num_heads, prefix=2)

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool
    ) -> jax.Array | dict[str, jax.Array]:
        grid = patch_grid(x, self.patch_size)
        x = self._embed(x.astype(self.dtype or x.dtype), train)
        for index, rate in enumerate(drop_paths(self.drop_path, self.sized().depth)):
            block = Block(
                given=self.given(),
                mlp_ratio=self.mlp_ratio,
                dropout=self.dropout,
                drop_path=rate,
                **self.within(f"block{index}", x.dtype),
            )
            x = block(x, grid=grid, train=train)
        x = layer_norm(self, "norm", x)
        given = self.given()
        y = slots.attend_tokens(self, "pool", x[:, :2], x, given=given, train=train)
        head = functools.partial(classify, self, outputs=self.num_classes)
        distilled = head(y[:, 1], name="distillation_classifier")
        logits = head(y[:, 0])
        if train and self.distilled_training:
            return {"logits": logits, "distilled": distilled}
        return (logits + distilled) / 2

    def _embed(self, x: jax.Array, train: bool) -> jax.Array:
        """Images [B, H, W, C] to the two tokens and those of the patches."""
        x = embed_patches(self, x, self.sized().width)
        names = ("class_token", "distillation_token")
        x = jnp.concatenate([*(token(self, name, x) for name in names), x], axis=1)
        return drop(self, add_positions(self, x), train)
