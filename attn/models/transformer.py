"""The Transformer: an encoder and a decoder of attention alone, with slots for it.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, section 3 and Table 3.

Differs from the paper: nothing by default. It leaves open how weights start; here, as
in the authors' tensor2tensor, the embedding is a normal of deviation width^-0.5, all
linear maps are Xavier-uniform, and biases 0.
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
from attn.models.layers.checks import check_heads, check_rates, check_sizes
from attn.models.layers.dense import XAVIER
from attn.models.layers.transformer import DecoderBlock, EncoderBlock
from attn.models.scaling import Width, step_of
from attn.modules import position as positions
from attn.settings import Invalid, Positive, PositiveFloat


class Size(NamedTuple):
    """What a `size` of a Transformer is short for."""

    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    dropout: float


SIZES = {
    "small": Size(128, 2, 4, 256, 0.1),
    "base": Size(512, 6, 8, 2048, 0.1),
    "big": Size(1024, 6, 16, 4096, 0.3),
}
# What the attention at each place must support.
NEEDS = {
    "block.pre": ("kv_mask",),
    "encoder.mixer": ("kv_mask",),
    "block.post": ("kv_mask",),
    "decoder.self": ("causal", "decode"),
    "decoder.cross": ("cross", "kv_mask", "decode"),
}


class Memory(NamedTuple):
    """What an encoder made of its sources."""

    tokens: jax.Array
    """[B, S, C]"""
    mask: jax.Array
    """boolean [B, S], False for padding"""


class Transformer(Model):
    """Transformer: source [B, S], target_in [B, T] -> logits [B, T, V], float32.

    Logits at place t are those of the word after the first t + 1 words of `target_in`,
    which begins with a start word. One array [V, width] is the embedding of source and
    target, times sqrt(width), and the matrix before the softmax. LayerNorm has eps
    1e-6; the MLP has ReLU.

    Slots, each of which may be narrowed, "encoder3/encoder.mixer" or
    "decoder0/decoder.cross", layers counting from 0:

        block.pre       all tokens, before a layer of the encoder
        encoder.mixer   attention of the source to itself
        block.post      all tokens, after a layer of the encoder
        decoder.self    causal attention of the target to itself
        decoder.cross   attention of the target to what the encoder made

    "encoder.mixer", "decoder.self" and "decoder.cross" are `multi_head` unless they are
    filled, and an attention that has the settings num_heads, key_dim, qkv_bias,
    out_bias, kernel_init, attention_dropout or max_length gets the model's, unless the
    filling gives them. Slots take token attentions that need no grid.

    `encode` and `decode` are its halves, for decoding word by word: the keys and values
    of earlier words, and those of the memory, are kept in the collection "cache".

        cache = model.init(key, zeros [B, L], memory, decode=True, method="decode")
        logits, changed = model.apply(
            {"params": params, "cache": cache["cache"]}, words [B, 1], memory,
            decode=True, method="decode", mutable=["cache"],
        )

    Later calls have the changed cache, and no memory.

    Attributes:
        vocab_size: V, of source and target.
        max_length: tokens in the longest sequence, for positions and attentions that
            have parameters for each place; None takes the length given to `init`.
        size: "small" (for two CPU cores), "base" or "big": the width, the depth of
            encoder and decoder each, the heads, the hidden width of the MLP and the
            dropout in SIZES.
        width, depth, num_heads, mlp_dim, dropout: instead of what `size` has. Dropout
            is after each attention and MLP and after the embeddings.
        key_dim: channels of a head of queries and keys; None is width / num_heads, as
            those of values are.
        position: name of an encoding in `attn.modules.position`, or a mapping with
            "name" and its settings. One that adds to tokens does so after the
            embedding, with parameters of its own for source and target; others act in
            "encoder.mixer" and "decoder.self".
        norm_first: whether layers normalise what they read, and not their sums, with
            one more norm at the end of encoder and decoder.
        bias: whether the linear maps of attention have biases.
        attention_dropout: rate at which single weights of attention are dropped.
        activation: of the MLP.
        epsilon: of the layer norms.
        output_bias: whether each word has a bias in its logits, as in Marian.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, heads that do not divide the width, a size below 1,
            an unknown slot, attention or setting, one that text cannot have or that
            is not causal in "decoder.self", a position encoding that needs a grid or
            that no attention takes, or a key_dim that none takes.
    """

    inputs: ClassVar = ("source", "source_mask", "target_in")
    streams: ClassVar = ("dropout",)
    places: ClassVar = dict.fromkeys(NEEDS, 1)
    usual_fill: ClassVar = dict.fromkeys(
        ("encoder.mixer", "decoder.self", "decoder.cross"), "multi_head"
    )
    presets: ClassVar = SIZES
    transformers: ClassVar = (
        (r"^embedding/embedding$", "model.shared.weight"),
        (r"^word_bias$", "final_logits_bias"),
        (r"^(en|de)coder(\d+)/", r"model.\1coder.layers.\2."),
        (r"\.(mixer|self)/", ".self_attn/"),
        (r"\.cross/", ".encoder_attn/"),
        (r"\.norm1\b", ".self_attn_layer_norm"),
        (r"(\.decoder\.\S*)\.norm2\b", r"\1.encoder_attn_layer_norm"),
        (r"\.norm[23]\b", ".final_layer_norm"),
        (r"\.mlp_in\b", ".fc1"),
        (r"\.mlp_out\b", ".fc2"),
        (r"/(query|key|value)/", lambda m: f"/{m[1][0]}_proj/"),
        (r"/out/", "/out_proj/"),
    )
    task_layers: ClassVar = ()

    vocab_size: Positive
    max_length: Positive | None = None
    size: Literal["small", "base", "big"] = "base"
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    mlp_dim: Positive | None = None
    dropout: float | None = None
    key_dim: Positive | None = None
    position: str | Mapping[str, Any] = "sinusoidal"
    norm_first: bool = False
    bias: bool = False
    attention_dropout: float = 0.0
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "relu"
    epsilon: PositiveFloat = 1e-6
    output_bias: bool = False

    def __post_init__(self):
        size = self.sized()
        check_heads(self, size.width, size.num_heads)
        check_sizes(self, depth=size.depth, vocab_size=self.vocab_size)
        rates = {"attention_dropout": self.attention_dropout}
        check_rates(self, dropout=size.dropout, **rates)
        self.position = positions.check(self.position)
        super().__post_init__()
        text.check_position(self.position, causal=True)
        self._check_scopes()
        text.check_slots(self.fill, NEEDS)
        for side, place in (("encoder", "encoder.mixer"), ("decoder", "decoder.self")):
            fills = [slots.narrow(self.fill, name) for name in self._names(side)]
            text.check_reach(fills, place, self.position)
        self._check_key_dim()

    def scopes(self) -> dict[str, dict]:
        """Layers of encoder and decoder, counting from 0."""
        depth = self.sized().depth
        return {**numbered("encoder", depth), **numbered("decoder", depth)}

    def given(self) -> FrozenDict:
        """The heads, the biases, and what is dropped in attention."""
        return FrozenDict(
            num_heads=self.sized().num_heads,
            key_dim=self.key_dim,
            qkv_bias=self.bias,
            out_bias=self.bias,
            kernel_init="xavier",
            attention_dropout=self.attention_dropout,
            max_length=self.max_length,
        )

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width, which heads and positions restrict."""
        size, encoding = self.sized(), positions.find(self.position["name"])
        of_tokens, of_mixer = text.divided(self.position)
        inside = step_of(self.fill, {**self.given(), "position": of_mixer})
        step = math.lcm(size.num_heads, of_tokens, inside)
        found = {"width": Width(size.width, step), "mlp_dim": Width(size.mlp_dim, 1)}
        if self.key_dim is not None:
            step = encoding.divisor if "rotate" in encoding.acts else 1
            found["key_dim"] = Width(self.key_dim, step)
        return found

    def setup(self):
        size = self.sized()
        kinds = {"dtype": self._dtype(), "param_dtype": self.param_dtype}
        self.embedding = nn.Embed(
            self.vocab_size,
            size.width,
            embedding_init=nn.initializers.normal(size.width**-0.5),
            **kinds,
        )
        self.drop = nn.Dropout(size.dropout)
        placed = (self.position, self.max_length, self.param_dtype)
        self.source_position = text.Placed(*placed)
        self.target_position = text.Placed(*placed)
        self.encoders = self._blocks(EncoderBlock, "encoder")
        self.decoders = self._blocks(DecoderBlock, "decoder")
        if self.norm_first:
            self.encoder_norm = nn.LayerNorm(epsilon=self.epsilon, **kinds)
            self.decoder_norm = nn.LayerNorm(epsilon=self.epsilon, **kinds)
        if self.output_bias:
            shape, zeros = (self.vocab_size,), nn.initializers.zeros
            self.word_bias = self.param("word_bias", zeros, shape, self.param_dtype)

    def __call__(
        self,
        source: jax.Array,
        source_mask: jax.Array,
        target_in: jax.Array,
        *,
        train: bool,
    ) -> jax.Array:
        memory = self.encode(source, source_mask, train=train)
        return self.decode(target_in, memory, train=train)

    def encode(
        self, source: jax.Array, source_mask: jax.Array, *, train: bool = False
    ) -> Memory:
        """What the decoder attends to.

        Args:
            source: int [B, S], the words.
            source_mask: boolean [B, S], False for padding.
            train: whether to drop.
        """
        x = self.source_position(self._embed(source))
        x = self.drop(x, deterministic=not train)
        for block in self.encoders:
            x = block(x, kv_mask=source_mask, train=train)
        return Memory(self.encoder_norm(x) if self.norm_first else x, source_mask)

    def decode(
        self,
        target_in: jax.Array,
        memory: Memory | None = None,
        *,
        decode: bool = False,
        train: bool = False,
    ) -> jax.Array:
        """Logits of the next word at each place, [B, T, V] in float32.

        Args:
            target_in: int [B, T], the words so far, or, with `decode`, those after
                the ones of earlier calls.
            memory: what `encode` returned; None where an earlier call with `decode`
                has stored it in the cache.
            decode: whether to go on from the cache.
            train: whether to drop.
        """
        x = self.target_position(self._embed(target_in), decode=decode)
        x = self.drop(x, deterministic=not train)
        tokens, mask = (None, None) if memory is None else memory
        for block in self.decoders:
            x = block(x, tokens, memory_mask=mask, decode=decode, train=train)
        x = self.decoder_norm(x) if self.norm_first else x
        logits = text.word_logits(self.embedding, x)
        if self.output_bias:
            logits += self.word_bias.astype(jnp.float32)[None, None]
        return logits

    def _embed(self, words: jax.Array) -> jax.Array:
        return self.embedding(words) * math.sqrt(self.sized().width)

    def _blocks(self, kind: type, side: str) -> list:
        size = self.sized()
        _, of_mixer = text.divided(self.position)
        return [
            kind(
                given=self.given(),
                of_mixer=FrozenDict(position=of_mixer),
                mlp_dim=size.mlp_dim,
                activation=self.activation,
                epsilon=self.epsilon,
                norm_first=self.norm_first,
                dropout=size.dropout,
                hidden_dropout=0.0,
                mlp_init=XAVIER,
                **self.within(name, self._dtype()),
            )
            for name in self._names(side)
        ]

    def _dtype(self) -> jnp.dtype:
        return self.dtype or jnp.dtype(jnp.float32)

    def _names(self, side: str) -> list[str]:
        return [f"{side}{index}" for index in range(self.sized().depth)]

    def _check_scopes(self) -> None:
        """Refuses a place of the encoder in a layer of the decoder, or the reverse."""
        for key in self.fill:
            scope, _, place = key.rpartition("/")
            side = "decoder" if place.startswith("decoder.") else "encoder"
            if scope and not scope.startswith(side):
                raise Invalid(f"slot {key!r}: only layers of the {side} have {place!r}")

    def _check_key_dim(self) -> None:
        modules = [
            module
            for name in self.scopes()
            for place in NEEDS
            if place.startswith(("block", name.rstrip("0123456789")))
            for module in slots.filled(slots.narrow(self.fill, name), place)
        ]
        takes = any("key_dim" in module.__dataclass_fields__ for module in modules)
        if self.key_dim is not None and not takes:
            raise Invalid(
                f"key_dim={self.key_dim} is a setting that no attention of this"
                " Transformer has, as 'multi_head' has"
            )
