"""Second-order channel attention (SOCA): gates from how channels vary together.

Dai, Cai, Zhang, Xia, Zhang, "Second-order Attention Network for Single Image
Super-Resolution" (SAN), CVPR 2019, https://doi.org/10.1109/CVPR.2019.01132, its
second-order channel attention.
Released code: https://github.com/daitao/SAN.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.channel.squeeze_excite import hidden_channels
from attn.ops.covariance import Norm, covariance_pool, newton_schulz_sqrt
from attn.ops.shapes import as_map
from attn.settings import Count, Positive


class SecondOrderChannel(nn.Module):
    """Gates channels: [B, H, W, C] -> x * sigmoid(W2 relu(W1 z)), [B, H, W, C].

    z_c is the mean of row c of the square root of the covariance of the channels over
    all positions, by Newton-Schulz. Covariance, root and gate are float32. `card`
    tells the paper and the count of parameters.

    Attributes:
        reduction: r, by which the bottleneck is narrower, max(1, C // r); SAN uses 16.
        iterations: of Newton-Schulz; the paper uses 5.
        norm: by which the covariance is divided before the iterations, and given back
            after them; the paper uses the trace.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    reduction: Positive = 16
    iterations: Count = 5
    norm: Norm = "trace"
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        channels = x.shape[-1]
        x = as_map(x, self.dtype)
        covariance = covariance_pool(x)
        root = newton_schulz_sqrt(
            covariance, iterations=self.iterations, norm=self.norm
        )
        sow(self, "covariance", (covariance, root))
        z = jnp.mean(root, axis=-1)
        kinds = {"dtype": z.dtype, "param_dtype": self.param_dtype}
        hidden = hidden_channels(channels, self.reduction)
        gate = nn.relu(nn.Dense(hidden, name="squeeze", **kinds)(z))
        gate = nn.sigmoid(nn.Dense(channels, name="excite", **kinds)(gate))
        sow(self, "channel_gate", gate)
        return x * gate[:, None, None].astype(x.dtype)


def _parameters(module: SecondOrderChannel, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    hidden = hidden_channels(channels, module.reduction)
    return 2 * channels * hidden + channels + hidden


SecondOrderChannel.card = Card(
    family="order",
    contract="map",
    paper=Paper(
        title="Second-order Attention Network for Single Image Super-Resolution",
        authors="Dai, Cai, Zhang, Xia, Zhang",
        year=2019,
        doi="10.1109/CVPR.2019.01132",
    ),
    formula="x * sigmoid(W2 relu(W1 mean_rows(sqrt(cov_HW(x)))))",
    complexity="HWC^2 + (3 K - 3) C^3 + HWC + 2 C^2 / r, K > 1 iterations",
    parameters=_parameters,
    maps=("channel_gate", "covariance"),
    note=(
        "As in the released code, which has biases. That code crops maps of more than"
        " 1000 positions a side to their middle before it pools; here all positions"
        " count."
    ),
)
