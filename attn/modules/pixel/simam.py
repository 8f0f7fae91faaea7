"""SimAM: a gate for every value, by how far it is from the others of its channel.

Yang, Zhang, Li, Xie, "SimAM: A Simple, Parameter-Free Attention Module for
Convolutional Neural Networks", ICML 2021,
https://proceedings.mlr.press/v139/yang21o.html, equations 5 and 6. Released code:
https://github.com/ZjjConan/SimAM.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.shapes import as_map
from attn.settings import PositiveFloat


class SimAM(nn.Module):
    """Gates values, without parameters: [B, H, W, C] -> x * sigmoid(1 / e*).

    1 / e* = (x - mean)^2 / (4 (var + epsilon)) + 1/2, with mean and variance of the
    channel over all positions, in float32; the sum of squares is divided by H W - 1.
    No gate is below sigmoid(1/2) = 0.62.

    Attributes:
        epsilon: lambda of the paper, added to the variance; it finds 1e-4 best.
        dtype: computation type; None takes the type of the input.
    """

    epsilon: PositiveFloat = 1e-4
    dtype: jnp.dtype | None = None

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        x = as_map(x, self.dtype)
        exact = x.astype(jnp.float32)
        square = jnp.square(exact - jnp.mean(exact, axis=(1, 2), keepdims=True))
        others = max(1, x.shape[1] * x.shape[2] - 1)  # a single value varies by nothing
        variance = jnp.sum(square, axis=(1, 2), keepdims=True) / others
        gate = nn.sigmoid(square / (4 * (variance + self.epsilon)) + 0.5)
        sow(self, "pixel_gate", gate)
        return x * gate.astype(x.dtype)


SimAM.card = Card(
    family="pixel",
    contract="map",
    paper=Paper(
        title=(
            "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural"
            " Networks"
        ),
        authors="Yang, Zhang, Li, Xie",
        year=2021,
        url="https://proceedings.mlr.press/v139/yang21o.html",
    ),
    formula="x * sigmoid((x - mean_HW)^2 / (4 (var_HW + lambda)) + 1/2)",
    complexity="4 HWC",
    parameters=lambda module, shape: 0,
    maps=("pixel_gate",),
    note=(
        "As in the released code: the variance divides by H W - 1, where the paper's"
        " equation 5 divides by the number of values. No gate is below 0.62."
    ),
)
