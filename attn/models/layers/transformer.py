"""The transformer block that hosts share: a mixer and an MLP, each a residual branch.

    x + s1 * mixer(norm1(x)),  then  x + s2 * mlp(norm2(x))

as in ViT, where s1 and s2 are absent or LayerScale, one learned factor a channel:
Touvron et al., "Going deeper with Image Transformers", ICCV 2021,
https://arxiv.org/abs/2103.17239, equation 4. In training a branch may be left out of
an example: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016,
https://arxiv.org/abs/1603.09382.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots

NORMAL = nn.initializers.truncated_normal(0.02)


class Block(nn.Module):
    """Tokens of a grid, with P tokens before them: [B, P + H W, C] -> the same.

    With the default settings it is the block of ViT.

    Attributes:
        fill: what fills the slots "block.pre", "mixer" and "block.post" of this block.
        given: settings of the host for attentions that have them, such as num_heads.
        of_mixer: such settings for the mixer alone.
        mlp_ratio: hidden width of the MLP over C.
        mlp_dim: that width itself, instead of `mlp_ratio`.
        layer_scale: what the factors of LayerScale start from; None has no factors.
        epsilon: of the layer norms.
        dropout: rate after the mixer and both layers of the MLP.
        drop_path: rate at which a branch is left out of an example in training.
        dtype, param_dtype, axis_name: as in every host.
    """

    fill: Mapping[str, Any]
    given: Mapping[str, Any]
    mlp_ratio: float = 4.0
    layer_scale: float | None = None
    epsilon: float = 1e-6
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None
    of_mixer: Mapping[str, Any] = FrozenDict()
    mlp_dim: int | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, grid: tuple[int, int], train: bool
    ) -> jax.Array:
        x = self._attend("block.pre", x, grid, train)
        if slots.filled(self.fill, "mixer"):
            y = layer_norm(self, "norm1", x, self.epsilon)
            y = self._attend("mixer", y, grid, train)
            x = x + self._branch("scale1", drop(self, y, train), train)
        x = self._between(x, grid, train)
        y = layer_norm(self, "norm2", x, self.epsilon)
        y = mlp(self, y, train, self.mlp_dim)
        x = x + self._branch("scale2", y, train)
        return self._attend("block.post", x, grid, train)

    def _between(self, x: jax.Array, grid: tuple[int, int], train: bool) -> jax.Array:
        """What a host has between the mixer and the MLP."""
        del grid, train
        return x

    def _attend(self, place, x, grid, train) -> jax.Array:
        given = {**self.given, **(self.of_mixer if place == "mixer" else {})}
        module = slots.build(self, place, **given)
        if module is None:
            return x
        return slots.on_tokens(module, x, grid=grid, train=train)

    def _branch(self, name: str, y: jax.Array, train: bool) -> jax.Array:
        """A residual branch, scaled and now and then left out."""
        if self.layer_scale is not None:
            y = layer_scale(self, name, y, self.layer_scale)
        whole = tuple(range(1, y.ndim))
        return nn.Dropout(self.drop_path, whole, deterministic=not train)(y)


def dense(parent: nn.Module, name: str, x: jax.Array, features: int) -> jax.Array:
    """A linear layer on the channels."""
    kinds = {"dtype": x.dtype, "param_dtype": parent.param_dtype}
    return nn.Dense(features, kernel_init=NORMAL, name=name, **kinds)(x)


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
    parent: nn.Module, x: jax.Array, train: bool, width: int | None = None
) -> jax.Array:
    """Two linear layers with GELU between them, and the `dropout` of the parent.

    The hidden width is `width`, or the `mlp_ratio` of the parent times the channels.
    """
    channels = x.shape[-1]
    hidden = dense(parent, "mlp_in", x, width or int(channels * parent.mlp_ratio))
    hidden = drop(parent, nn.gelu(hidden, approximate=False), train)
    return drop(parent, dense(parent, "mlp_out", hidden, channels), train)


def drop(parent: nn.Module, x: jax.Array, train: bool) -> jax.Array:
    """Dropout at the rate `dropout` of the parent."""
    return nn.Dropout(parent.dropout, deterministic=not train)(x)


def mean_pool(
    parent: nn.Module,
    x: jax.Array,
    given: Mapping[str, Any],
    grid: tuple[int, int],
    train: bool,
) -> jax.Array:
    """The vector to classify, of tokens on a grid: [B, H W, C] -> [B, C].

    Their mean, or what an attention in the slot "pool" makes of it: one on tokens has
    the mean as its query, one on maps goes before the mean.
    """
    module = slots.build(parent, "pool", **given)
    if module is not None and slots.contract(type(module)) == "map":
        x = slots.on_tokens(module, x, grid=grid, train=train)
        module = None
    query = x.mean(axis=1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
    y = query if module is None else module(query, x, train=train)
    return y[:, 0]


def classify(parent: nn.Module, x: jax.Array, name: str = "classifier") -> jax.Array:
    """The linear layer that makes logits, in float32: [B, C] -> [B, num_classes]."""
    kinds = {"dtype": jnp.float32, "param_dtype": parent.param_dtype}
    layer = nn.Dense(parent.num_classes, kernel_init=NORMAL, name=name, **kinds)
    return layer(x.astype(jnp.float32))


def check_scopes(fill: Mapping[str, Any], class_layers: int) -> None:
    """Refuses slots in scopes that lack them, and class layers that all read nothing.

    Args:
        fill: a checked filling of a host with scopes "block0", ... and "class0", ...,
            of which the latter have "class.mixer" and the former everything else.
        class_layers: number of the latter.

    Raises:
        Invalid: see above.
    """
    for key in fill:
        scope, _, place = key.rpartition("/")
        of_class = place.startswith("class.")
        if scope and scope.startswith("class") != of_class:
            kind = "class layers" if of_class else "blocks"
            raise settings.Invalid(f"slot {key!r}: only {kind} have {place!r}")
    layers = [slots.narrow(fill, f"class{index}") for index in range(class_layers)]
    readers = [slots.filled(layer, "class.mixer") for layer in layers]
    for module in readers:
        if module is not None and slots.contract(module) == "map":
            raise settings.Invalid(
                f"slot 'class.mixer': {module.__name__} attends to maps, but a class"
                " token needs a token attention"
            )
    if not any(readers):
        raise settings.Invalid(
            "no class layer has an attention, so that the class token never sees the"
            " image"
        )


def check_sizes(host: str, width: int, num_heads: int, **sizes: int) -> None:
    """Refuses sizes below 1, and heads that do not divide the width, with what fits.

    Raises:
        Invalid: see above.
    """
    sizes = {"width": width, "num_heads": num_heads, **sizes}
    for name, value in sizes.items():
        if value < 1:
            raise settings.Invalid(
                f"{name} of a {host} must be at least 1, got {value}"
            )
    if width % num_heads:
        fit = [n for n in range(1, width + 1) if width % n == 0]
        fit = sorted(sorted(fit, key=lambda n: abs(n - num_heads))[:3])
        raise settings.Invalid(
            f"num_heads={num_heads} does not divide width={width};"
            f" heads that do: {', '.join(map(str, fit))}"
        )


def check_rates(host: str, **rates: float) -> None:
    """Refuses rates outside [0, 1); raises ValueError."""
    for name, value in rates.items():
        if not 0 <= value < 1:
            raise settings.Invalid(f"{name} of a {host} must be in [0, 1), got {value}")
