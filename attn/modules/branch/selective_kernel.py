"""Selective kernel: convolutions of several sizes, weighted anew for each channel.

Li, Wang, Hu, Yang, "Selective Kernel Networks", CVPR 2019,
https://arxiv.org/abs/1903.06586, equations 1 to 6. It stands in the place of a 3x3
convolution: in a `resnet`, in the slot "block.conv2".

Letters used in shapes:
    B batch, H W map, C channels, M branches, D channels of the bottleneck.
"""

import math
from typing import Annotated, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.convolution import Conv
from attn.ops.shapes import as_map
from attn.settings import Positive, Range

HE = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class SelectiveKernel(nn.Module):
    """Branches, and their mean for each channel: [B, H, W, C] -> sum_m a_m * U_m.

    U_m = relu(BN(conv_m(x))), with kernels of 3, 5, ... The weights a [B, M, C] are a
    softmax over the branches, of M C logits made of z [B, D] = relu(BN(W mean_HW(sum_m
    U_m))), D = max(C / r, L). Pooled statistics, weights and norms are float32. `card`
    tells the paper, the count of parameters and the variants.

    Attributes:
        branches: M, of which branch m has kernels of 2 m + 1, m from 1.
        kernels: "dilated" has 3x3 kernels in all branches, with dilation m; "full" has
            as large ones as the branch sees.
        groups: of the convolutions, at most: as many as divide C are taken.
        reduction: r.
        least: L, the narrowest bottleneck.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
        axis_name: pmap axis over which batch statistics are averaged.
    """

    branches: Annotated[int, Range("an int of 2 or more", 2)] = 2
    kernels: Literal["dilated", "full"] = "dilated"
    groups: Positive = 32
    reduction: Positive = 16
    least: Positive = 32
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = x.shape[-1]
        x = as_map(x, self.dtype)
        maps = [self._branch(m, x, train) for m in range(1, self.branches + 1)]
        pooled = sum(jnp.mean(y.astype(jnp.float32), axis=(1, 2)) for y in maps)
        kinds = {
            "use_bias": False,
            "dtype": jnp.float32,
            "param_dtype": self.param_dtype,
        }
        hidden = hidden_channels(self, channels)
        z = self._norm("norm", train)(nn.Dense(hidden, name="squeeze", **kinds)(pooled))
        logits = nn.Dense(self.branches * channels, name="excite", **kinds)(nn.relu(z))
        weights = jax.nn.softmax(logits.reshape(-1, self.branches, channels), axis=1)
        total = jnp.zeros((), x.dtype)
        for m, y in enumerate(maps):
            sow(self, "channel_gate", lambda m=m: weights[:, m])
            total = total + y * weights[:, m, None, None].astype(x.dtype)
        return total

    def _branch(self, m: int, x: jax.Array, train: bool) -> jax.Array:
        """U_m, [B, H, W, C]."""
        channels, dilated = x.shape[-1], self.kernels == "dilated"
        side = 3 if dilated else 2 * m + 1
        y = Conv(
            channels,
            (side, side),
            padding=m,
            kernel_dilation=m if dilated else 1,
            feature_group_count=math.gcd(channels, self.groups),
            use_bias=False,
            kernel_init=HE,
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name=f"conv{m}",
        )(x)
        return nn.relu(self._norm(f"norm{m}", train)(y)).astype(x.dtype)

    def _norm(self, name: str, train: bool) -> nn.BatchNorm:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
            name=name,
        )


def hidden_channels(module: SelectiveKernel, channels: int) -> int:
    """Width of the bottleneck, D."""
    return max(channels // module.reduction, module.least)


def _parameters(module: SelectiveKernel, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    hidden = hidden_channels(module, channels)
    inside = channels // math.gcd(channels, module.groups)
    sides = [
        3 if module.kernels == "dilated" else 2 * m + 1
        for m in range(1, module.branches + 1)
    ]
    branches = sum(side**2 * inside * channels + 2 * channels for side in sides)
    return branches + (1 + module.branches) * channels * hidden + 2 * hidden


SelectiveKernel.card = Card(
    family="branch",
    contract="map",
    paper=Paper(
        title="Selective Kernel Networks",
        authors="Li, Wang, Hu, Yang",
        year=2019,
        arxiv="1903.06586",
    ),
    formula="sum_m a_m * U_m, a = softmax_m(V relu(BN(W mean_HW(sum_m U_m))))",
    complexity="9 M HW C^2 / G + M HWC + (1 + M) C D",
    parameters=_parameters,
    maps=("channel_gate",),
    variants={"paper": {}, "full_kernels": {"kernels": "full"}},
    note=(
        "The paper's 5x5 kernel is a dilated 3x3 one (default), which it finds as good"
        " as a full one. timm rounds C / r to a multiple of L, and splits the channels"
        " over the branches in its smaller networks, which this does not. It records a"
        " gate of channels for each branch, the smallest kernel first; they sum to 1."
    ),
)
