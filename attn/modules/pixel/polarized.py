"""Polarized self-attention: full width in one direction, collapsed in the other.

Liu, Liu, Fan, Zhang, "Polarized Self-Attention: Towards High-quality Pixel-wise
Regression", 2021, https://arxiv.org/abs/2107.00782, equations 3 to 6. Released code:
https://github.com/DeLightCMU/PSA.

The channel-only branch collapses positions and keeps half of the channels; the
spatial-only branch collapses channels and keeps all positions. Each has a softmax over
what it collapses and a sigmoid.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.shapes import as_map

SQUEEZE = 4  # by which the released sequential code narrows C / 2 before W_z


class Polarized(nn.Module):
    """Gates channels and positions: [B, H, W, C] -> [B, H, W, C].

    With inner width C / 2, softmaxes written with what they sum over:

        A_channel(x) = sigmoid(LN(W_z sum_p softmax_p(w_q x_p) W_v x_p))    [C]
        A_spatial(x) = sigmoid(softmax_c(mean_p U_q x_p) . U_v x)           [H, W]

    The pooled vectors and A_channel are in float32. `card` tells the paper, the count
    of parameters and what the released code does instead.

    Attributes:
        order: "parallel" is x * A_channel(x) + x * A_spatial(x), "sequential" is
            y * A_spatial(y) of y = x * A_channel(x).
        variant: "paper", or "released": no norm, and the spatial branch has its softmax
            over positions, of the products in parallel, of U_v x in sequential order,
            where W_z is also a bottleneck, W_2 relu(LN(W_1 z)).
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    order: Literal["parallel", "sequential"] = "parallel"
    variant: Literal["paper", "released"] = "paper"
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        x = as_map(x, self.dtype)
        gated = x * self._channel_gate(x)
        if self.order == "parallel":
            return gated + x * self._spatial_gate(x)
        return gated * self._spatial_gate(gated)

    def _channel_gate(self, x: jax.Array) -> jax.Array:
        """What to look at, [B, 1, 1, C]."""
        channels, inner = x.shape[-1], max(1, x.shape[-1] // 2)
        exact = x.astype(jnp.float32)
        logits = self._linear("channel_query", 1, exact)[..., 0]
        weights = jax.nn.softmax(logits, axis=(1, 2))
        # the value of a mean is the mean of values
        pooled = jnp.einsum("bhw,bhwc->bc", weights, exact)
        z = self._linear("channel_value", inner, pooled)
        if self.variant == "paper":
            z = self._norm(self._linear("excite", channels, z))
        elif self.order == "sequential":
            hidden = max(1, inner // SQUEEZE)
            z = self._norm(self._linear("squeeze", hidden, z, use_bias=True))
            z = self._linear("excite", channels, nn.relu(z), use_bias=True)
        else:
            z = self._linear("excite", channels, z)
        gate = nn.sigmoid(z)
        sow(self, "channel_gate", gate)
        return gate[:, None, None].astype(x.dtype)

    def _spatial_gate(self, x: jax.Array) -> jax.Array:
        """Where to look, [B, H, W, 1]."""
        inner = max(1, x.shape[-1] // 2)
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        query = self._linear("spatial_query", inner, pooled)
        value = self._linear("spatial_value", inner, x).astype(jnp.float32)
        if self.variant == "paper":
            query = jax.nn.softmax(query, axis=-1)
        elif self.order == "sequential":
            value = jax.nn.softmax(value, axis=(1, 2))
        logits = jnp.einsum("bc,bhwc->bhw", query, value)
        if (self.variant, self.order) == ("released", "parallel"):
            logits = jax.nn.softmax(logits, axis=(1, 2))
        gate = nn.sigmoid(logits)
        sow(self, "spatial_map", gate)
        return gate[..., None].astype(x.dtype)

    def _linear(
        self, name: str, width: int, x: jax.Array, *, use_bias: bool = False
    ) -> jax.Array:
        kinds = {"dtype": x.dtype, "param_dtype": self.param_dtype}
        return nn.Dense(width, use_bias=use_bias, name=name, **kinds)(x)

    def _norm(self, z: jax.Array) -> jax.Array:
        kinds = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        # the mean of squares minus the squared mean is inexact
        exact = {"use_fast_variance": False, **kinds}
        return nn.LayerNorm(epsilon=1e-5, name="norm", **exact)(z)


def _parameters(module: Polarized, shape: tuple[int, ...]) -> int:
    channels, inner = shape[-1], max(1, shape[-1] // 2)
    branches = channels + 3 * channels * inner
    if module.variant == "paper":
        return branches + inner * channels + 2 * channels
    if module.order == "parallel":
        return branches + inner * channels
    hidden = max(1, inner // SQUEEZE)
    return branches + inner * hidden + 3 * hidden + hidden * channels + channels


Polarized.card = Card(
    family="pixel",
    contract="map",
    paper=Paper(
        title=("Polarized Self-Attention: Towards High-quality Pixel-wise Regression"),
        authors="Liu, Liu, Fan, Zhang",
        year=2021,
        arxiv="2107.00782",
    ),
    formula=(
        "x * sigmoid(LN(W_z sum_p softmax_p(w_q x_p) W_v x_p))"
        " + x * sigmoid(softmax_c(mean_p U_q x_p) . U_v x)"
    ),
    complexity="HW C^2 / 2 + 9 HWC / 2 + 3 C^2 / 2",
    parameters=_parameters,
    maps=("channel_gate", "spatial_map"),
    variants={
        "parallel": {},
        "sequential": {"order": "sequential"},
        "released_parallel": {"variant": "released"},
        "released_sequential": {"variant": "released", "order": "sequential"},
    },
    note=(
        "2 C^2 + 3 C parameters. The paper's equations and figure 2 are the default."
        " Linear maps have no biases, as in the released code, of which the paper does"
        " not speak. The released code has no norm, and a softmax over positions in the"
        " spatial branch; its parallel order has it behind the products, so that no"
        " gate of a position is below a half."
    ),
)
