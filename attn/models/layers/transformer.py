"""Transformer blocks: attention and an MLP, each a residual branch.

    x + s1 * mixer(norm1(x)),    then  x + s2 * mlp(norm2(x))      normalised first
    norm1(x + s1 * mixer(x)),    then  norm2(x + s2 * mlp(x))      normalised after

The first is that of ViT and of most since; the second is of the paper that began it,
Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, section 3.1, whose decoder has a third branch, of
attention to the encoder's output. s1 and s2 are absent or LayerScale, one learned
factor a channel: Touvron et al., "Going deeper with Image Transformers", ICCV 2021,
https://arxiv.org/abs/2103.17239, equation 4. In training a branch may be left out of
an example: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016,
https://arxiv.org/abs/1603.09382.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn.models import slots
from attn.models.base import Slotted
from attn.models.layers.dense import NORMAL, dense, drop
from attn.modules.capture import unheard
from attn.settings import Invalid

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
}


class Residual(Slotted):
    """The base of `Block` and `DecoderBlock`.

    Attributes:
        given: settings of the model for modules that have them, such as num_heads.
        of_mixer: such settings for the mixer alone, or for self-attention.
        mlp_ratio: hidden width of the MLP over C.
        mlp_dim: that width itself, instead of `mlp_ratio`; 0 has no MLP, and leaves
            the norm of its branch.
        activation: of the MLP; "gelu" is exact, "gelu_tanh" its approximation.
        norm_first: whether a branch normalises its input, or the sum with it.
        layer_scale: what the factors of LayerScale start from; None has no factors.
        epsilon: of the layer norms.
        dropout: rate after attention and after both layers of the MLP.
        hidden_dropout: rate after the first of these layers; None is `dropout`.
        mlp_init: how the weights of the MLP start.
        drop_path: rate at which a branch is left out of an example in training.
        other attributes: see `attn.models.base.Slotted`.
    """

    given: Mapping[str, Any] = FrozenDict()
    of_mixer: Mapping[str, Any] = FrozenDict()
    mlp_ratio: float = 4.0
    mlp_dim: int | None = None
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    norm_first: bool = True
    layer_scale: float | None = None
    epsilon: float = 1e-6
    dropout: float = 0.0
    hidden_dropout: float | None = None
    mlp_init: nn.initializers.Initializer = NORMAL
    drop_path: float = 0.0

    def _add(
        self,
        number: int,
        x: jax.Array,
        branch: Callable[[jax.Array], jax.Array] | None,
        train: bool,
    ) -> jax.Array:
        """The sum of x and a branch, whose norm and factors bear this number.

        Without a branch it is x, normalised where norms come after.
        """
        norm = functools.partial(
            layer_norm, self, f"norm{number}", epsilon=self.epsilon
        )
        if branch is None:
            return x if self.norm_first else norm(x)
        y = branch(norm(x) if self.norm_first else x)
        if self.layer_scale is not None:
            y = layer_scale(self, f"scale{number}", y, self.layer_scale)
        whole = tuple(range(1, y.ndim))
        x = x + nn.Dropout(self.drop_path, whole, deterministic=not train)(y)
        return x if self.norm_first else norm(x)

    def _mlp(self, train: bool) -> Callable[[jax.Array], jax.Array] | None:
        if self.mlp_dim == 0:
            return None
        return lambda x: mlp(
            self,
            x,
            train,
            self.mlp_dim,
            self.activation,
            hidden_dropout=self.hidden_dropout,
            init=self.mlp_init,
        )


class Block(Residual):
    """A mixer and an MLP on tokens [B, T, C] -> [B, T, C].

    With the default settings it is the block of ViT. Its slots are "block.pre",
    "mixer" and "block.post".

    Attributes: see `Residual`.
    """

    # The name of the slot in the mixer's place.
    mixer_slot: ClassVar[str] = "mixer"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        grid: tuple[int, int] | None = None,
        train: bool,
        position: jax.Array | None = None,
        **options: Any,
    ) -> jax.Array:
        """Applies the block.

        Args:
            x: the tokens.
            grid: (rows, columns) on which the last tokens lie, if they do.
            train: whether to drop.
            position: vectors of their places, [B or 1, T, C], that the mixer adds to
                what queries and keys are made of.
            **options: mask, kv_mask, causal and decode, for all attention modules in
                its slots; see `attn.models.slots.on_tokens`.
        """
        attend = functools.partial(
            slots.attend_tokens, self, grid=grid, train=train, **options
        )
        x = attend("block.pre", x, given=self.given)
        if slots.filled(self.fill, self.mixer_slot):
            given = {**self.given, **self.of_mixer}
            read = functools.partial(
                attend, self.mixer_slot, given=given, q_position=position
            )
            x = self._add(1, x, lambda y: drop(self, read(y), train), train)
        x = self._between(x, grid, train)
        x = self._add(2, x, self._mlp(train), train)
        return attend("block.post", x, given=self.given)

    def _between(
        self, x: jax.Array, grid: tuple[int, int] | None, train: bool
    ) -> jax.Array:
        """What a model has between the mixer and the MLP."""
        del grid, train
        return x


class EncoderBlock(Block):
    """A block whose mixer is in the slot "encoder.mixer".

    Attributes: see `Residual`.
    """

    mixer_slot: ClassVar[str] = "encoder.mixer"


class DecoderBlock(Residual):
    """A block that reads a memory: x [B, T, C], memory [B, S, C] -> [B, T, C].

    Three branches: causal attention of the tokens to each other, their attention to
    the memory, and an MLP. Its slots are "decoder.self" and "decoder.cross"; an empty
    one leaves its branch out.

    Attributes: see `Residual`.
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        *,
        kv_mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        causal: bool = True,
        decode: bool = False,
        train: bool,
        position: jax.Array | None = None,
        memory_position: jax.Array | None = None,
    ) -> jax.Array:
        """Applies the block.

        Args:
            x: the tokens of the target, all of them or, with `decode`, the next.
            memory: what the encoder made of the source; None, where the first call
                with `decode` has stored it in the cache.
            kv_mask: boolean [B, T], False for padding of the target.
            memory_mask: boolean [B, S], False for padding of the source.
            causal: whether a token attends to those up to it alone.
            decode: whether earlier tokens, and the memory, are kept in the cache; see
                `attn.modules.token`.
            train: whether to drop.
            position: vectors of the places of the tokens, [B or 1, T, C], added to
                what queries and keys are made of, and memory_position [B or 1, S, C],
                of the places of the memory, to what keys are.
        """
        if slots.filled(self.fill, "decoder.self"):
            read = functools.partial(
                self._attention,
                "decoder.self",
                given={**self.given, **self.of_mixer},
                kv_mask=kv_mask,
                causal=causal,
                decode=decode,
                train=train,
                q_position=position,
            )
            x = self._add(1, x, read, train)
        if slots.filled(self.fill, "decoder.cross"):
            read = functools.partial(
                self._attention,
                "decoder.cross",
                kv=memory,
                given=self.given,
                kv_mask=memory_mask,
                decode=decode,
                train=train,
                q_position=position,
                k_position=memory_position,
            )
            x = self._add(2, x, read, train)
        return self._add(3, x, self._mlp(train), train)

    def _attention(
        self,
        place: str,
        x: jax.Array,
        kv: jax.Array | None = None,
        *,
        train: bool,
        **options: Any,
    ) -> jax.Array:
        """The branch of one slot."""
        # whoever listens is told of the memory, and not what tokens read of each other
        with contextlib.nullcontext() if place == "decoder.cross" else unheard():
            y = slots.attend_tokens(self, place, x, kv, train=train, **options)
        if y.shape != x.shape:
            raise Invalid(
                f"what fills {place!r} returns {y.shape[-1]} channels, those of what it"
                f" reads, and the layer has {x.shape[-1]}: the widths must agree, or"
                " take an attention with a map of values, such as multi_head"
            )
        return drop(self, y, train)


def layer_norm(
    parent: nn.Module, name: str, x: jax.Array, epsilon: float = 1e-6
) -> jax.Array:
    """Normalises each token over its channels, with scale and bias."""
    kinds = {"dtype": x.dtype, "param_dtype": parent.param_dtype}
    return nn.LayerNorm(epsilon=epsilon, name=name, **kinds)(x)


def layer_scale(parent: nn.Module, name: str, x: jax.Array, start: float) -> jax.Array:
    """Multiplies each channel by a learned factor, which starts from `start`."""
    factors = parent.param(
        name, nn.initializers.constant(start), x.shape[-1:], parent.param_dtype
    )
    return x * jnp.expand_dims(factors, tuple(range(x.ndim - 1))).astype(x.dtype)


def mlp(
    parent: nn.Module,
    x: jax.Array,
    train: bool,
    width: int | None = None,
    activation: str = "gelu",
    *,
    hidden_dropout: float | None = None,
    init: nn.initializers.Initializer = NORMAL,
) -> jax.Array:
    """Two linear layers with an activation between, and the `dropout` of the parent.

    The hidden width is `width`, or the `mlp_ratio` of the parent times the channels.
    """
    channels = x.shape[-1]
    width = width or int(channels * parent.mlp_ratio)
    hidden = ACTIVATIONS[activation](dense(parent, "mlp_in", x, width, init))
    rate = parent.dropout if hidden_dropout is None else hidden_dropout
    hidden = nn.Dropout(rate, deterministic=not train)(hidden)
    return drop(parent, dense(parent, "mlp_out", hidden, channels, init), train)


def drop_paths(rate: float, depth: int) -> list[float]:
    """The `drop_path` of each block: from 0 at the first to `rate` at the last."""
    return [rate * index / max(1, depth - 1) for index in range(depth)]


def mean_pool(
    parent: Slotted,
    x: jax.Array,
    given: Mapping[str, Any],
    grid: tuple[int, int],
    train: bool,
) -> jax.Array:
    """The vector to classify, of tokens on a grid: [B, H W, C] -> [B, C].

    Their mean, or what attention modules in the slot "pool" make of it: those on maps
    go before the mean, those on tokens have the mean as their query.
    """
    modules = slots.build(parent, "pool", **given)
    on_maps = [m for m in modules if slots.contract(type(m)) == "map"]
    for module in on_maps:
        x = slots.on_tokens(module, x, grid=grid, train=train)
    y = x.mean(axis=1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
    for module in modules:
        y = y if module in on_maps else slots.on_tokens(module, y, x, train=train)
    return y[:, 0]
