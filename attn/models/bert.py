"""BERT: an encoder of text that both sides of a word are read for, with slots.

Devlin, Chang, Lee, Toutanova, "BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding", NAACL 2019, https://arxiv.org/abs/1810.04805, section 3 and
appendix A.2. Sizes below base: Turc, Chang, Lee, Toutanova, "Well-Read Students Learn
Better", 2019, https://arxiv.org/abs/1908.08962, table 1.

As in the paper's code, weights start as normals of 0.02 cut off at two deviations.
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
from attn.models.layers import text
from attn.models.layers.checks import (
    check_heads,
    check_rates,
    check_reach,
    check_sizes,
)
from attn.models.layers.dense import NORMAL, classify, dense, drop
from attn.models.layers.transformer import ACTIVATIONS, Block, layer_norm
from attn.models.scaling import Width, step_of
from attn.modules import position as positions
from attn.settings import Count, Invalid, Positive

EPSILON = 1e-12  # of the layer norms


class Size(NamedTuple):
    """What a `size` of BERT is short for."""

    width: int
    depth: int
    num_heads: int


SIZES = {
    "tiny": Size(128, 2, 2),
    "mini": Size(256, 4, 4),
    "small": Size(512, 4, 8),
    "medium": Size(512, 8, 8),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
}
PLACES = ("block.pre", "mixer", "block.post")


class BERT(Model):
    """BERT: tokens [B, T] with their mask and segments -> logits, all float32.

    Without classes it is pre-trained, and what it returns is a dict:

        masked    [B, P, V], of the words at `places` [B, P]: a linear map, the
                  activation, a layer norm, and the embedding as the last matrix, with
                  a bias
        is_next   [B, 2], whether the second segment follows the first (1) or not, of
                  the pooled vector

    With `num_classes` it returns logits [B, num_classes] of the pooled vector alone,
    which is tanh of a linear map of the first token, [CLS], of the last one, or of the
    mean token.

    With `compare` they are of two texts, "first" and "second" with their masks, each of
    which is encoded by itself: an MLP of two ReLU layers, `mlp_dim` wide and half of
    it, reads the pooled tokens x and y, without that map, as the dual encoder of the
    Long Range Arena does (Tay et al. 2021, https://arxiv.org/abs/2011.04006): [x, y,
    x * y, x - y] by "nli", as in the paper, or [x, y] by "plain", which is all that the
    training script of their code has.

    The inputs are tokens and tokens_mask, segments unless there are none, and places
    where there is the head `masked`; or first, first_mask, second and second_mask.
    LayerNorm has eps 1e-12. The embeddings have a layer norm and dropout of their own.

    Slots, each of which may be narrowed, "block3/mixer", blocks counting from 0:

        block.pre    all tokens, before a block
        mixer        the token attention of a block, `multi_head` unless it is filled
        block.post   all tokens, after a block

    An attention that has the settings num_heads, kernel_init, attention_dropout or
    max_length gets the model's, unless the filling gives them. Slots take token
    attentions that need no grid and can leave out padding.

    Attributes:
        vocab_size: V.
        max_length: tokens in the longest sequence, for positions and attentions that
            have parameters for each place.
        num_classes: number of logits; None has the heads of pre-training.
        heads: those of pre-training that there are.
        size: "tiny", "mini", "small", "medium", "base" or "large": the width, depth
            and heads in SIZES.
        width, depth, num_heads: instead of what `size` has.
        mlp_dim: hidden width of the MLP; None is four times the width.
        segments: how many segments are told apart; 0 has none, and no such input.
        position: name of an encoding in `attn.modules.position`, or a mapping with
            "name" and its settings. One that adds to tokens is part of the embedding;
            others act in the mixers.
        pool: what is pooled, the first token ("class"), the last one ("last") or the
            mean of those that are no padding ("mean").
        causal: whether tokens attend to those up to them alone, so that they may
            predict the next one; "LTR" in section 5.1. [CLS] then knows nothing, and
            cannot be pooled. Data for next words say so themselves.
        compare: how two texts are compared; "none" for one text, or both in a row.
        norm_first: whether blocks normalise what they read, and not their sums, with
            one more norm at the end.
        activation: of the MLP and of the masked head; "gelu" is exact.
        dropout: rate after the embeddings, each attention and MLP, and before the
            classifier.
        attention_dropout: rate at which single weights of attention are dropped.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below 1,
            an unknown slot, attention or setting, one that text cannot have or that
            is not causal where the model is, a position encoding that needs a grid or
            that no mixer takes, neither classes nor heads of pre-training, a first
            token to be pooled that knows no other, or two texts without classes.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = dict.fromkeys(PLACES, 1)
    usual_fill: ClassVar = {"mixer": "multi_head"}
    presets: ClassVar = SIZES
    task_layers: ClassVar = (
        *("classifier", "pooler", "masked", "masked_norm", "masked_bias"),
        "is_next",
        *("compare_in", "compare_out"),
    )
    transformers: ClassVar = (
        (r"^embedding\b", "bert.embeddings.word_embeddings"),
        (r"^token_position/position$", "bert.embeddings.position_embeddings.weight"),
        (r"^segment_embedding\b", "bert.embeddings.token_type_embeddings"),
        (r"^embedding_norm\b", "bert.embeddings.LayerNorm"),
        (r"^block(\d+)/", r"bert.encoder.layer.\1."),
        (r"\.mixer/out\b", ".attention.output.dense"),
        (r"\.mixer/", ".attention.self."),
        (r"\.norm1\b", ".attention.output.LayerNorm"),
        (r"\.norm2\b", ".output.LayerNorm"),
        (r"\.mlp_in\b", ".intermediate.dense"),
        (r"\.mlp_out\b", ".output.dense"),
        (r"^pooler\b", "bert.pooler.dense"),
        (r"^masked\b", "cls.predictions.transform.dense"),
        (r"^masked_norm\b", "cls.predictions.transform.LayerNorm"),
        (r"^masked_bias$", "cls.predictions.bias"),
        (r"^is_next\b", "cls.seq_relationship"),
    )

    vocab_size: Positive
    max_length: Positive = 512
    num_classes: Positive | None = None
    heads: tuple[Literal["masked", "is_next"], ...] = ("masked", "is_next")
    size: Literal["tiny", "mini", "small", "medium", "base", "large"] = "base"
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    mlp_dim: Positive | None = None
    segments: Count = 2
    position: str | Mapping[str, Any] = "learned"
    pool: Literal["class", "last", "mean"] = "class"
    causal: bool = False
    compare: Literal["none", "plain", "nli"] = "none"
    norm_first: bool = False
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self):
        size = self.sized()
        check_heads(self, size.width, size.num_heads)
        check_sizes(self, depth=size.depth, vocab_size=self.vocab_size)
        rates = {"attention_dropout": self.attention_dropout}
        check_rates(self, dropout=self.dropout, **rates)
        self.heads = tuple(self.heads)
        if self.num_classes is None and not self.heads:
            raise Invalid(
                "BERT has num_classes or some of the heads 'masked' and 'is_next', got"
                " neither"
            )
        if self.causal and self.pool == "class" and self._pools():
            raise Invalid(
                "pool='class' of a causal BERT is of a token that has seen no other"
                " (valid: 'last', 'mean')"
            )
        if self.compare != "none" and (self.num_classes is None or self.segments):
            raise Invalid(
                f"compare={self.compare!r} of BERT needs num_classes and segments=0,"
                f" got {self.num_classes} and {self.segments}"
            )
        self.position = positions.check(self.position)
        super().__post_init__()
        text.check_position(self.position, causal=self.causal)
        needs = ("kv_mask", "causal") if self.causal else ("kv_mask",)
        text.check_slots(self.fill, dict.fromkeys(PLACES, needs))
        fills = [slots.narrow(self.fill, scope) for scope in self.scopes()]
        text.check_reach(fills, "mixer", self.position)
        if self.pool != "mean" and self._pools():
            token = f"the {self.pool} token"
            advice = "; pool='mean' reads all"
            check_reach(self, size.depth, token, advice, what="the text")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields of a batch that it is called with."""
        if self.compare != "none":
            return ("first", "first_mask", "second", "second_mask")
        segments = ("segments",) if self.segments else ()
        places = ("places",) if self._has("masked") else ()
        return ("tokens", "tokens_mask", *segments, *places)

    def scopes(self) -> dict[str, dict]:
        """Blocks, counting from 0."""
        return numbered("block", self.sized().depth)

    def given(self) -> FrozenDict:
        """The heads, the length, and what is dropped in attention."""
        return FrozenDict(
            num_heads=self.sized().num_heads,
            kernel_init="normal",
            attention_dropout=self.attention_dropout,
            max_length=self.max_length,
        )

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width, which heads and positions restrict."""
        width, _, num_heads = self.sized()
        of_tokens, of_mixer = text.divided(self.position)
        inside = step_of(self.fill, {**self.given(), "position": of_mixer})
        step = math.lcm(num_heads, of_tokens, inside)
        return {
            "width": Width(width, step),
            "mlp_dim": Width(self.mlp_dim or 4 * width, 1),
        }

    @nn.compact
    def __call__(self, *inputs: jax.Array, train: bool) -> Any:
        """Logits, from the fields of a batch that `inputs` names, in that order."""
        batch = dict(zip(self.inputs, inputs, strict=True))
        if self.compare != "none":
            both = lambda *names: jnp.concatenate([batch[name] for name in names])
            tokens, mask = both("first", "second"), both("first_mask", "second_mask")
            batch = {"tokens": tokens, "tokens_mask": mask}
        size, dtype = self.sized(), self.dtype or jnp.dtype(jnp.float32)
        words = nn.Embed(
            self.vocab_size,
            size.width,
            embedding_init=NORMAL,
            dtype=dtype,
            param_dtype=self.param_dtype,
            name="embedding",
        )
        mask = batch["tokens_mask"]
        x = drop(self, self._embed(words, batch), train)
        _, of_mixer = text.divided(self.position)
        for index in range(size.depth):
            block = Block(
                given=self.given(),
                of_mixer=FrozenDict(position=of_mixer),
                mlp_dim=self.mlp_dim or 4 * size.width,
                activation=self.activation,
                norm_first=self.norm_first,
                epsilon=EPSILON,
                dropout=self.dropout,
                hidden_dropout=0.0,
                **self.within(f"block{index}", dtype),
            )
            x = block(x, kv_mask=mask, causal=self.causal, train=train)
        if self.norm_first:
            x = layer_norm(self, "norm", x, EPSILON)
        if self.compare != "none":
            return self._compared(*jnp.split(self._pooled(x, mask), 2))
        if self.num_classes is not None:
            x = drop(self, self._pool(x, mask), train)
            return classify(self, x, self.num_classes)
        outputs = {}
        if self._has("masked"):
            outputs["masked"] = self._masked(words, x, batch["places"])
        if self._has("is_next"):
            outputs["is_next"] = classify(self, self._pool(x, mask), 2, name="is_next")
        return outputs

    def _has(self, head: str) -> bool:
        return self.num_classes is None and head in self.heads

    def _pools(self) -> bool:
        return self.num_classes is not None or self._has("is_next")

    def _embed(self, words: nn.Embed, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Words, their places and segments, [B, T, C]."""
        placed = text.Placed(
            self.position, self.max_length, self.param_dtype, name="token_position"
        )
        x = placed(words(batch["tokens"]))
        if self.segments:
            segments = nn.Embed(
                self.segments,
                x.shape[-1],
                embedding_init=NORMAL,
                dtype=x.dtype,
                param_dtype=self.param_dtype,
                name="segment_embedding",
            )
            x = x + segments(batch["segments"])
        return layer_norm(self, "embedding_norm", x, EPSILON)

    def _compared(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Logits of pairs of pooled tokens, [B, C] each."""
        features = [x, y] if self.compare == "plain" else [x, y, x * y, x - y]
        width = self.mlp_dim or 4 * x.shape[-1]
        z = jnp.concatenate(features, axis=-1)
        z = nn.relu(dense(self, "compare_in", z, width))
        z = nn.relu(dense(self, "compare_out", z, max(1, width // 2)))
        return classify(self, z, self.num_classes)

    def _pool(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """The pooled vector, [B, C]."""
        return jnp.tanh(dense(self, "pooler", self._pooled(x, mask), x.shape[-1]))

    def _pooled(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """The token to be pooled, [B, C]."""
        if self.pool == "class":
            return x[:, 0]
        if self.pool == "last":
            last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)
            return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        real = mask[:, :, None]
        total = jnp.sum(jnp.where(real, x, 0), axis=1, dtype=jnp.float32)
        return (total / jnp.maximum(jnp.sum(real, axis=1), 1)).astype(x.dtype)

    def _masked(self, words: nn.Embed, x: jax.Array, places: jax.Array) -> jax.Array:
        """Logits of the words at some places, [B, P, V]."""
        x = jnp.take_along_axis(x, places[:, :, None], axis=1)
        x = ACTIVATIONS[self.activation](dense(self, "masked", x, x.shape[-1]))
        x = layer_norm(self, "masked_norm", x, EPSILON)
        zeros = nn.initializers.zeros_init()
        bias = self.param("masked_bias", zeros, (self.vocab_size,), self.param_dtype)
        return text.word_logits(words, x) + bias.astype(jnp.float32)[None, None]
