"""Mixed high-order attention (MHN): gates from products of channels, up to an order.

Chen, Deng, Hu, "Mixed High-Order Attention Network for Person Re-Identification",
ICCV 2019, https://arxiv.org/abs/1908.05819, its high-order attention module. Released
code: https://github.com/chenbinghui1/MHN.
"""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.shapes import as_map
from attn.settings import Positive


class MixedHighOrder(nn.Module):
    """Gates values: [B, H, W, C] -> x * (1/R) sum_r sigmoid(W_r relu(z_r)).

    z_r is the product, value by value, of r linear maps of a position to 2 (C // 8)
    channels, each with weights of its own: a polynomial of degree r of what is there.
    `card` tells the paper and the count of parameters.

    Attributes:
        order: R, the highest degree; one is a pixel attention without biases.
        reduction: the inner width is 2 (C // reduction), at least 2; the paper has 8.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    order: Positive = 4
    reduction: Positive = 8
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        x = as_map(x, self.dtype)
        kinds = {"dtype": x.dtype, "param_dtype": self.param_dtype, "use_bias": False}
        inner = inner_channels(x.shape[-1], self.reduction)
        count = self.order * (self.order + 1) // 2
        factors = nn.Dense(count * inner, name="factors", **kinds)(x)
        factors = iter(jnp.split(factors, count, axis=-1))
        gate = jnp.zeros((), x.dtype)
        for degree in range(1, self.order + 1):
            z = nn.relu(math.prod(next(factors) for _ in range(degree)))
            logits = nn.Dense(x.shape[-1], name=f"excite{degree}", **kinds)(z)
            gate += nn.sigmoid(logits)
        gate = gate / self.order
        sow(self, "pixel_gate", gate)
        return x * gate


def inner_channels(channels: int, reduction: int) -> int:
    """Channels of the linear maps."""
    return 2 * max(1, channels // reduction)


def _parameters(module: MixedHighOrder, shape: tuple[int, ...]) -> int:
    maps = module.order * (module.order + 1) // 2 + module.order
    return maps * shape[-1] * inner_channels(shape[-1], module.reduction)


MixedHighOrder.card = Card(
    family="order",
    contract="map",
    paper=Paper(
        title="Mixed High-Order Attention Network for Person Re-Identification",
        authors="Chen, Deng, Hu",
        year=2019,
        arxiv="1908.05819",
    ),
    formula="x * (1/R) sum_r sigmoid(W_r relu(prod_i<=r P_ri x))",
    complexity="HW C^2 (R^2 + 3 R) / 8 + (R + 1) HWC",
    parameters=_parameters,
    maps=("pixel_gate",),
    note=(
        "2 (C // 8) C (R (R + 1) / 2 + R) parameters. As in the released code. The"
        " paper's network has one of each order 1 to R beside each other, with an"
        " adversarial loss between them; this is one of them."
    ),
)
