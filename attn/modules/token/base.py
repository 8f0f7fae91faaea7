"""Bases of token modules: the checked call, linear maps around heads, the cache."""

from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.card import Card
from attn.modules.token import _cache
from attn.modules.token._call import Call, Visible, check

INITS = {
    "lecun": nn.initializers.lecun_normal(),
    "normal": nn.initializers.truncated_normal(0.02),
    "xavier": nn.initializers.xavier_uniform(),
}


class Token(nn.Module):
    """Token module: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    A subclass has a `card` and computes `attend`.

    Attributes:
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(
        self,
        q: jax.Array,
        kv: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        kv_mask: jax.Array | None = None,
        causal: bool = False,
        grid: tuple[int, int] | None = None,
        decode: bool = False,
        train: bool,
        q_position: jax.Array | None = None,
        k_position: jax.Array | None = None,
    ) -> jax.Array:
        """Attends, as `attn.modules.token` says.

        Raises:
            Invalid: something is asked for that the card does not support.
            ValueError: something does not fit, or needs a cache that is missing.
        """
        call = check(
            self,
            q,
            kv,
            mask=mask,
            kv_mask=kv_mask,
            causal=causal,
            grid=grid,
            decode=decode,
            train=train,
            q_position=q_position,
            k_position=k_position,
        )
        y = self.attend(call)
        if call.length is None:
            return y
        return jnp.where(call.start + q.shape[1] <= call.length, y, jnp.nan)

    def attend(self, call: Call) -> jax.Array:
        """The output [B, T, C] of a checked call."""
        raise NotImplementedError

    def mask_heads(self, channels: int) -> int:
        """Number of heads N that masks may tell apart."""
        del channels
        return 1

    def sources(
        self, call: Call, made: dict[str, jax.Array] | None
    ) -> tuple[dict[str, jax.Array], Visible]:
        """What targets attend to, and which of it each of them sees.

        Args:
            call: the checked call.
            made: arrays [B, S, ...] of the sources of this call, such as keys and
                values; None where `call.kv` is None, because they are cached.

        Returns:
            The arrays, with those of the cache where `call.decode`, and what is
            visible of them.
        """
        if call.decode and not self.is_initializing():
            arrays, mask = _cache.exchange(self, call, made)
            return arrays, Visible(mask, False)
        if call.decode:
            _cache.create(self, call, made)
        return made, Visible(call.mask, call.causal)


class Heads(Token):
    """Token module whose heads stand between linear maps.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads. With both, the inner
            width N D may differ from C.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        kernel_init: how linear maps start: "lecun", a normal of variance 1 / inputs;
            "normal", one of 0.02 truncated at two deviations; or "xavier", uniform,
            of variance 2 / (inputs + outputs).
        dtype, param_dtype: as in `Token`.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = True
    out_bias: bool = True
    kernel_init: Literal["lecun", "normal", "xavier"] = "lecun"

    def head_shape(self, channels: int) -> tuple[int, int]:
        """N and D for tokens of so many channels."""
        return head_shape(channels, self.num_heads, self.head_dim)

    def mask_heads(self, channels: int) -> int:
        return self.head_shape(channels)[0]

    def dtypes(self, x: jax.Array) -> dict[str, Any]:
        """Types of computation and parameters of a layer on `x`."""
        return {"dtype": self.dtype or x.dtype, "param_dtype": self.param_dtype}

    def linear(
        self,
        name: str,
        x: jax.Array,
        heads: tuple[int, int] | None = None,
        like: jax.Array | None = None,
    ) -> jax.Array:
        """A linear map of tokens to heads, [B, T, C] -> [B, T, N, D].

        Args:
            name: of the layer.
            x: tokens.
            heads: N and D; None is `head_shape` of them.
            like: tokens in whose type it computes; None is `x`.
        """
        return nn.DenseGeneral(
            heads or self.head_shape(x.shape[-1]),
            use_bias=self.qkv_bias,
            kernel_init=INITS[self.kernel_init],
            name=name,
            **self.dtypes(x if like is None else like),
        )(x)

    def project(self, call: Call) -> tuple[jax.Array, dict[str, jax.Array] | None]:
        """Queries [B, T, N, D]; keys and values [B, S, N, D], or None if cached."""
        heads = self.head_shape(call.q.shape[-1])
        query = self.linear("query", call.queries, heads)
        if call.kv is None:
            return query, None
        return query, {
            name: self.linear(name, x, heads, like=call.q)
            for name, x in (("key", call.keys), ("value", call.kv))
        }

    def merge(self, y: jax.Array, channels: int) -> jax.Array:
        """A linear map of all heads, [B, T, N, D] -> [B, T, C]."""
        return nn.DenseGeneral(
            channels,
            axis=(-2, -1),
            use_bias=self.out_bias,
            kernel_init=INITS[self.kernel_init],
            name="out",
            **self.dtypes(y),
        )(y)

    def count(self, channels: int, kv_channels: int | None = None) -> int:
        """Number of parameters of these maps: 4 C^2 + 4 C where all have biases.

        Args:
            channels: C, of queries and output.
            kv_channels: of keys and values; None is C.
        """
        heads, dim = self.head_shape(channels)
        kernels = 2 * (channels + (kv_channels or channels)) * heads * dim
        biases = 3 * heads * dim * self.qkv_bias + channels * self.out_bias
        return kernels + biases


def head_shape(
    channels: int, num_heads: int | None, head_dim: int | None
) -> tuple[int, int]:
    """Number of heads N and channels of one head D, given either or both.

    With one of them the other is C divided by it, with neither there are 4 heads;
    with both, N D need not be C.

    Raises:
        Invalid: one is below 1, or the one that is given does not divide C.
    """
    for name, value in (("num_heads", num_heads), ("head_dim", head_dim)):
        if value is not None and value < 1:
            raise settings.Invalid(f"{name} must be at least 1, got {value}")
    if num_heads is not None and head_dim is not None:
        return num_heads, head_dim
    name, parts = "num_heads", 4 if num_heads is None else num_heads
    if head_dim is not None:
        name, parts = "head_dim", head_dim
    if channels % parts:
        raise settings.Invalid(f"{name}={parts} must divide channels={channels}")
    rest = channels // parts
    return (rest, parts) if head_dim is not None else (parts, rest)
