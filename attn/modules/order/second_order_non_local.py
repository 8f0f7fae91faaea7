"""Second-order non-local attention (SONA): positions attend by their covariance.

Xia, Gong, Zhang, Poellabauer, "Second-order Non-local Attention Networks for Person
Re-identification", ICCV 2019, https://arxiv.org/abs/1909.00295, its SONA module.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops import dot_product
from attn.ops.shapes import as_map
from attn.settings import Positive


class SecondOrderNonLocal(nn.Module):
    """Adds what each position reads elsewhere: [B, H, W, C] -> x + W_p y.

    y = softmax(S / sqrt(D)) g(x), where S is the covariance of the positions over the
    D = C / reduction channels of z = leaky_relu(BN(W_theta x)), (1/D) sum_d of the
    products of what each position differs by from the mean of its own channels. At
    initialisation the block is the identity. `card` tells the paper and the count of
    parameters.

    Attributes:
        reduction: C / D, by which theta and g are narrower; the paper uses 2.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
        axis_name: pmap axis over which batch statistics are averaged.
    """

    reduction: Positive = 2
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = as_map(x, self.dtype)
        kinds = {"dtype": x.dtype, "param_dtype": self.param_dtype}
        height, channels = x.shape[1], x.shape[-1]
        inner = max(1, channels // self.reduction)
        z = nn.Dense(inner, use_bias=False, name="theta", **kinds)(x)
        z = nn.leaky_relu(self._norm(z, train))  # in float32
        z = (z - jnp.mean(z, axis=-1, keepdims=True)).astype(x.dtype)
        g = nn.Dense(inner, name="g", **kinds)(x)
        # one head, of which queries and keys are the same
        z, g = (rearrange(a, "b h w d -> b (h w) 1 d") for a in (z, g))
        scale = inner**-1.5
        weights = lambda: dot_product.attention_weights(z, z, scale=scale)
        sow(self, "token_matrix", weights, grid=x.shape[1:3])
        y = dot_product.dot_product_attention(z, z, g, scale=scale)
        y = rearrange(y, "b (h w) 1 d -> b h w d", h=height)
        zeros = nn.initializers.zeros_init()
        return x + nn.Dense(channels, kernel_init=zeros, name="out", **kinds)(y)

    def _norm(self, z: jax.Array, train: bool) -> jax.Array:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
            name="norm",
        )(z)


def _parameters(module: SecondOrderNonLocal, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    inner = max(1, channels // module.reduction)
    return (
        channels * inner + 2 * inner + (channels + 1) * inner + (inner + 1) * channels
    )


SecondOrderNonLocal.card = Card(
    family="order",
    contract="map",
    paper=Paper(
        title=(
            "Second-order Non-local Attention Networks for Person Re-identification"
        ),
        authors="Xia, Gong, Zhang, Poellabauer",
        year=2019,
        arxiv="1909.00295",
    ),
    formula="x + W_p softmax(cov_D(leaky_relu(BN(W_theta x))) / sqrt(D)) g(x)",
    complexity="3 HW C^2 / r + 2 (HW)^2 C / r",
    parameters=_parameters,
    maps=("token_matrix",),
    note=(
        "(3 C + 3) C / r + C parameters. The slope of the leaky ReLU is torch's,"
        " 0.01; W_p starts at zero."
    ),
)
