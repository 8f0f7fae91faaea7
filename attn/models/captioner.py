"""Captions of images: a convolutional encoder, and a decoder that looks at its map.

Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio, "Show, Attend and Tell:
Neural Image Caption Generation with Visual Attention", ICML 2015,
https://arxiv.org/abs/1502.03044. The decoder without recurrence is that of Vaswani et
al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762.

Differs from the paper: the encoder is a ResNet unless a VGG is asked for, and its
annotations may be told their places. As in the code that the authors published, and not
in equation 7, there is a tanh before the logits. Weights start as LeCun-normal, not
orthogonal.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn.models import backbone as backbones
from attn.models import slots
from attn.models.base import Model, numbered
from attn.models.layers import text
from attn.models.layers.checks import check_heads, check_rates
from attn.models.layers.lstm import PLACE, LSTMDecoder
from attn.models.layers.map_positions import DIVISORS, MapPositions
from attn.models.layers.text_decoder import TextDecoder
from attn.models.scaling import Width, step_of
from attn.settings import Invalid, Positive

# What the attention at each place must support.
NEEDS = {
    "decoder.self": ("causal", "decode"),
    "decoder.cross": ("cross", "decode"),
}
# Settings that an LSTM has no use for.
OF_TRANSFORMER = ("depth", "num_heads", "mlp_dim")
USUAL = {
    "lstm": {"decoder.cross": "additive_soft"},
    "transformer": dict.fromkeys(NEEDS, "multi_head"),
}


class Captioner(Model):
    """Captioner: image [B, H, W, C], target_in [B, T] -> a dict of float32 arrays.

        logits     [B, T, V], at place t of the word after the first t + 1 words of
                   `target_in`, which begins with a start word
        attention  [B, T, h, w], what share of what was read before that word each
                   place of the map was, where the attention tells it; of the
                   Transformer the mean over the heads of the last layer
        log_prob, entropy   [B, T], of what hard attention drew in training, where it
                   is one that has to be rewarded (`attn.modules.choices`); of several
                   attentions their sums
        baseline   [B, T], the reward that was expected before that, if `baseline`

    Slots:

        backbone/...    those of `resnet`, such as "backbone/block.residual", or of
                        `vgg`, such as "backbone/block.post"
        decoder.cross   what each word reads of the map: additive_soft unless it is
                        filled, or multi_head in a Transformer, where it may be
                        narrowed, "decoder0/decoder.cross"
        decoder.self    of a Transformer only, attention of the words to those before
                        them: multi_head unless it is filled

    An LSTM whose "decoder.cross" is empty reads the mean of the map. `encode` and
    `decode` are its halves, for decoding word by word, as in the model `transformer`;
    the state of the LSTM is in the collection "cache".

    Attributes:
        vocab_size: V.
        decoder: "lstm", or "transformer", whose layers are normalised after each sum.
        width: of the state of the LSTM, or of the Transformer.
        embedding: channels of a word of the LSTM; a Transformer passes it over, as its
            words have `width`.
        dropout: rate: of the LSTM in the layers from its state to the logits, of the
            Transformer after each attention and MLP and after the embeddings.
        pool: of an LSTM that reads the mean: before "every" word, or before the
            "first" alone, as in "Show and Tell" (Vinyals et al. 2015,
            https://arxiv.org/abs/1411.4555).
        baseline: whether an LSTM learns what reward to expect, by a linear map of its
            state before each word, for a task whose baseline is "learnt". It passes no
            gradient to the state.
        depth, num_heads, mlp_dim: of the Transformer, and of no LSTM.
        backbone: settings of `resnet`, such as {"depth": 101}, or of `vgg`, such as the
            paper's {"name": "vgg", "depth": 19}, whose map has a 16th of the sides of
            the image.
        frozen: whether the backbone stays as it was trained before
            (`config.model.weights`): it gets no gradient, as in the paper, and no
            weight decay, and its batch normalisation, if it has some, is fixed.
        position: what tells places of the map, added to its channels: "none", as in
            the paper, "sine" or "learned".
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a backbone that cannot be, a size or rate that cannot
            be, heads that do not divide the width, an unknown slot, attention or
            setting, one that does not fit, or a setting of another decoder.
    """

    inputs: ClassVar = ("image", "target_in")
    places: ClassVar = {**backbones.PLACES, **dict.fromkeys(NEEDS, 1)}
    task_layers: ClassVar = ()

    vocab_size: Positive
    decoder: Literal["lstm", "transformer"] = "lstm"
    width: Positive = 1800
    embedding: Positive = 512
    dropout: float = 0.5
    pool: Literal["every", "first"] = "every"
    baseline: bool = False
    depth: Positive = 6
    num_heads: Positive = 8
    mlp_dim: Positive = 2048
    backbone: Mapping[str, Any] = backbones.RESNET
    frozen: bool = False
    position: Literal["none", "sine", "learned"] = "none"

    def __post_init__(self):
        check_rates(self, dropout=self.dropout)
        if self.decoder == "transformer":
            check_heads(self, self.width, self.num_heads)
        self.backbone = backbones.checked(self.backbone, "a captioner", backbones.KINDS)
        super().__post_init__()
        self._encoder(parent=None)
        parts = {key: backbones.check_scope(key) for key in self.fill}
        own = {k: v for k, v in self.fill.items() if parts[k] != backbones.SCOPE}
        text.check_slots(own, NEEDS)
        self._check_decoder()

    def _check_decoder(self) -> None:
        """Refuses settings of another decoder."""
        for name in OF_TRANSFORMER if self.decoder == "lstm" else ():
            value = getattr(self, name)
            if value != getattr(type(self), name):
                raise Invalid(
                    f"{name}={value} is of a Transformer: set decoder='transformer'"
                )
        if self.baseline and self.decoder != "lstm":
            raise Invalid("baseline=True is of an LSTM: set decoder='lstm'")
        if self.pool != "every" and (
            self.decoder != "lstm" or slots.filled(self.fill, PLACE)
        ):
            raise Invalid(
                f"pool={self.pool!r} is of an LSTM that reads the mean of the map: its"
                f" slot {PLACE!r} must be 'none'"
            )

    @property
    def held(self) -> tuple[str, ...]:
        """The parts that no optimizer may change."""
        return (backbones.SCOPE,) if self.frozen else ()

    @property
    def usual_fill(self) -> Mapping[str, Any]:
        """What fills the slots of the decoder unless a config fills them."""
        return USUAL.get(self.decoder, {})

    def slot_places(self) -> Mapping[str, int]:
        """Those of its backbone and its decoder; an LSTM has no layers."""
        transformer = self.decoder == "transformer"
        own = dict.fromkeys(NEEDS, 1) if transformer else {PLACE: 0}
        return {**backbones.places(self.backbone), **own}

    def scopes(self) -> dict[str, Any]:
        """The backbone with its stages, and layers of a Transformer."""
        layers = self.depth if self.decoder == "transformer" else 0
        return {**backbones.scopes(self.backbone), **numbered("decoder", layers)}

    def given(self) -> FrozenDict:
        """The heads, and how maps start, of a Transformer."""
        if self.decoder == "lstm":
            return FrozenDict()
        return FrozenDict(num_heads=self.num_heads, kernel_init="xavier")

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its decoder, and its backbone unless it is frozen."""
        own = {k: v for k, v in self.fill.items() if not backbones.is_inside(k)}
        step = step_of(own, self.given())
        if self.decoder == "lstm":
            inner = {"embedding": Width(self.embedding, 1)}
        else:
            step = math.lcm(self.num_heads, 2, step)
            inner = {"mlp_dim": Width(self.mlp_dim, 1)}
        found = {"width": Width(self.width, step), **inner}
        if self.frozen:
            return found
        places = DIVISORS[self.position]
        return found | backbones.width_settings(self, self.backbone, places)

    def setup(self):
        self.encoder = self._encoder(self._dtype(), name="backbone")
        if self.position != "none":
            self.places_of_map = _Placed(self.position, self.param_dtype)
        kinds = {**self.inherited(self._dtype()), "fill": self.fill}
        if self.decoder == "lstm":
            self.writer = LSTMDecoder(
                vocab_size=self.vocab_size,
                width=self.width,
                embedding=self.embedding,
                dropout=self.dropout,
                pool=self.pool,
                baseline=self.baseline,
                **kinds,
            )
        else:
            self.writer = TextDecoder(
                vocab_size=self.vocab_size,
                width=self.width,
                depth=self.depth,
                mlp_dim=self.mlp_dim,
                dropout=self.dropout,
                given=self.given(),
                **kinds,
            )

    def __call__(
        self, image: jax.Array, target_in: jax.Array, *, train: bool
    ) -> dict[str, jax.Array]:
        memory = self.encode(image, train=train)
        logits, steps = self.writer(target_in, memory, train=train)
        found = {"logits": logits}
        if steps.attention is not None:
            shape = (*target_in.shape, *memory.shape[1:3])
            found["attention"] = steps.attention.reshape(shape)
        if steps.choice is not None:
            found["log_prob"] = steps.choice.log_prob
            found["entropy"] = steps.choice.entropy
        if steps.expected is not None:
            found["baseline"] = steps.expected
        return found

    def encode(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """The map that words are read of, [B, h, w, D].

        Args:
            image: [B, H, W, C].
            train: whether to normalise by the batch.
        """
        x = self.encoder(image, train=train)
        x = jax.lax.stop_gradient(x) if self.frozen else x
        return x if self.position == "none" else self.places_of_map(x)

    def decode(
        self,
        target_in: jax.Array,
        memory: jax.Array | None = None,
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
        return self.writer(target_in, memory, decode=decode, train=train)[0]

    @nn.nowrap  # so that its attentions are looked at outside of any module
    def _encoder(self, dtype: jnp.dtype | None = None, **where: Any) -> nn.Module:
        return backbones.build(self, self.backbone, dtype, frozen=self.frozen, **where)

    def _dtype(self) -> jnp.dtype:
        return self.dtype or jnp.dtype(jnp.float32)


class _Placed(nn.Module):
    """A map with vectors of its places added, [B, h, w, D] -> [B, h, w, D].

    Attributes:
        kind: as `MapPositions` has it.
        param_dtype: type in which parameters are kept.
    """

    kind: str
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, divisor = x.shape[-1], DIVISORS[self.kind]
        if width % divisor:
            raise Invalid(
                f"{self.kind} positions need a map whose channels {divisor} divides,"
                f" got {width}"
            )
        made = MapPositions(frozenset([self.kind]), width, self.param_dtype)
        vectors = made(x.shape[1:3])[self.kind].reshape(1, *x.shape[1:])
        return x + vectors.astype(x.dtype)
