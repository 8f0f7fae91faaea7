"""Squeeze-and-excitation: one gate a channel, from a bottleneck on pooled channels.

Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-Excitation Networks", CVPR 2018,
https://arxiv.org/abs/1709.01507, equations 2 to 4 and the ablations of section 6.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.pool import largest
from attn.ops.shapes import as_map
from attn.settings import Positive

SQUEEZES = {"avg": jnp.mean, "max": largest}
EXCITATIONS = {"sigmoid": nn.sigmoid, "tanh": nn.tanh, "relu": nn.relu}


def hidden_channels(channels: int, reduction: int, divisor: int = 1) -> int:
    """Width of the bottleneck: C / r, as timm rounds it where `divisor` is 8.

    With `divisor` 1 it is max(1, C // r). Otherwise it is the nearest multiple of
    `divisor`, at least `divisor`.
    """
    if divisor == 1:
        return max(1, channels // reduction)
    nearest = int(channels / reduction + divisor / 2) // divisor * divisor
    return max(divisor, nearest)


class SqueezeExcite(nn.Module):
    """Gates channels: [B, H, W, C] -> x * f(W2 relu(W1 pool(x))), [B, H, W, C].

    With "none" for a pool it gates single values, from each position alone. Pooled
    statistics and the gate made of them are float32. `card` tells the paper, the count
    of parameters and the variants.

    Attributes:
        reduction: r, by which the bottleneck is narrower; the paper uses 16.
        divisor: 1 for exactly C // r hidden channels; 8 rounds them as timm does.
        bias: whether the two dense layers have biases. The released Caffe models
            and most ports do (default); the ablations of the paper do not.
        squeeze: how each channel is pooled (the paper's Table 11); "none" is its
            NoSqueeze (Table 16): the two dense layers, at each position, become 1x1
            convolutions of the same sizes.
        excitation: what makes the gate (the paper's Table 12).
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    reduction: Positive = 16
    divisor: Positive = 1
    bias: bool = True
    squeeze: Literal["avg", "max", "none"] = "avg"
    excitation: Literal["sigmoid", "tanh", "relu"] = "sigmoid"
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        channels = x.shape[-1]
        hidden = hidden_channels(channels, self.reduction, self.divisor)
        x = seen = as_map(x, self.dtype)
        if self.squeeze != "none":
            pool = SQUEEZES[self.squeeze]
            seen = pool(x.astype(jnp.float32), axis=(1, 2))[:, None, None]
        options = {
            "use_bias": self.bias,
            "dtype": seen.dtype,
            "param_dtype": self.param_dtype,
        }
        gate = nn.relu(nn.Dense(hidden, name="squeeze", **options)(seen))
        gate = nn.Dense(channels, name="excite", **options)(gate)
        gate = EXCITATIONS[self.excitation](gate)
        if self.squeeze == "none":
            sow(self, "pixel_gate", gate)
        else:
            sow(self, "channel_gate", lambda: gate[:, 0, 0])
        return x * gate.astype(x.dtype)


def _parameters(module: SqueezeExcite, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    hidden = hidden_channels(channels, module.reduction, module.divisor)
    return 2 * channels * hidden + module.bias * (channels + hidden)


SqueezeExcite.card = Card(
    family="channel",
    contract="map",
    paper=Paper(
        title="Squeeze-and-Excitation Networks",
        authors="Hu, Shen, Albanie, Sun, Wu",
        year=2018,
        arxiv="1709.01507",
    ),
    formula="x * sigmoid(W2 relu(W1 mean_HW(x)))",
    complexity="HWC + 2 C^2 / r (without a squeeze HWC + 2 HW C^2 / r)",
    parameters=_parameters,
    maps=("channel_gate", "pixel_gate"),
    variants={
        "released": {},
        "paper_ablations": {"bias": False},
        "timm": {"divisor": 8},
    },
    note=(
        "Released Caffe models have biases (default); the paper's ablations have"
        " none; timm rounds the hidden width to a multiple of 8. Without a squeeze"
        " (NoSqueeze) it records a pixel gate."
    ),
)
