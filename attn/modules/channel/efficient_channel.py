"""Efficient channel attention: one gate a channel, from its neighbours in order.

Wang, Wu, Zhu, Li, Zuo, Hu, "ECA-Net: Efficient Channel Attention for Deep
Convolutional Neural Networks", CVPR 2020, https://arxiv.org/abs/1910.03151, equations
9 and 12. Released code: https://github.com/BangguWu/ECANet.
"""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.shapes import as_map
from attn.settings import Positive


def adaptive_size(channels: int, gamma: float = 2.0, b: float = 1.0) -> int:
    """The kernel size for C channels, |log2(C) / gamma + b / gamma| made odd.

    Equation 12 as the released code reads it: rounded down, and up by one if even.
    """
    size = int(abs((math.log2(channels) + b) / gamma))
    return size if size % 2 else size + 1


class EfficientChannel(nn.Module):
    """Gates channels: [B, H, W, C] -> x * sigmoid(conv1d(mean_HW(x))), [B, H, W, C].

    The convolution runs over channels, has one kernel and no bias, and reads zeros
    beyond the first and the last channel. Pooled statistics and the gate are float32.
    `card` tells the paper, the count of parameters and the variants.

    Attributes:
        kernel_size: how many channels a gate sees, an odd number; None takes what
            `adaptive_size` says of C.
        gamma: of equation 12.
        b: of equation 12.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.

    Raises:
        Invalid: when it is made, an even kernel size, or gamma not above 0.
    """

    kernel_size: Positive | None = None
    gamma: float = 2.0
    b: float = 1.0
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    def __post_init__(self):
        if self.kernel_size is not None and self.kernel_size % 2 == 0:
            raise settings.Invalid(
                f"kernel_size must be odd, so that a gate has as many channels on"
                f" either side, got {self.kernel_size}"
            )
        if not self.gamma > 0:
            raise settings.Invalid(f"gamma must be above 0, got {self.gamma}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        y = as_map(x, self.dtype)
        size = kernel_size(self, x.shape[-1])
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        logits = nn.Conv(
            1,
            (size,),
            padding=size // 2,
            use_bias=False,
            dtype=pooled.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )(pooled[:, :, None])
        gate = nn.sigmoid(logits[:, :, 0])
        sow(self, "channel_gate", gate)
        return y * gate[:, None, None, :].astype(y.dtype)


def kernel_size(module: EfficientChannel, channels: int) -> int:
    """The kernel size that is given, or the one for so many channels."""
    return module.kernel_size or adaptive_size(channels, module.gamma, module.b)


EfficientChannel.card = Card(
    family="channel",
    contract="map",
    paper=Paper(
        title=(
            "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural"
            " Networks"
        ),
        authors="Wang, Wu, Zhu, Li, Zuo, Hu",
        year=2020,
        arxiv="1910.03151",
    ),
    formula="x * sigmoid(conv1d_k(mean_HW(x))), k = |(log2 C + b) / gamma| made odd",
    complexity="HWC + k C",
    parameters=lambda module, shape: kernel_size(module, shape[-1]),
    maps=("channel_gate",),
    variants={"paper": {}, "released": {"kernel_size": 3}},
    note=(
        "The paper's adaptive kernel is the default. The released layer takes 3 unless"
        " it is told, and the released ResNets tell it a size for each stage by hand:"
        " 3, 5, 5, 7 for ResNet-50, where the formula gives 5, 5, 5, 7 (a block of"
        " stage 1 has 256 channels); 3, 5, 7, 7 and 3, 3, 5, 7 for 18 and 34, the"
        " latter for 101 and 152 too. timm has at least 3, which is the same from 8"
        " channels on."
    ),
)
