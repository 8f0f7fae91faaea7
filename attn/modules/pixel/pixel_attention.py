"""Pixel attention: a gate for every value of the map, or for every position.

Zhao, Kong, He, Qiao, Dong, "Efficient Image Super-Resolution Using Pixel
Attention" (PAN), ECCV Workshops 2020, https://arxiv.org/abs/2010.01073, section 3.2.
Qin, Wang, Bai, Xie, Jia, "FFA-Net: Feature Fusion Attention Network for Single
Image Dehazing", AAAI 2020, https://arxiv.org/abs/1911.07559, equation 5.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.shapes import as_map
from attn.settings import Positive


class PixelAttention(nn.Module):
    """Gates pixels: [B, H, W, C] -> x * sigmoid(f(x)), [B, H, W, C].

    f looks at one position at a time. `card` tells the papers, the count of
    parameters and the variants.

    Attributes:
        variant: "pan" has one 1x1 convolution C -> C, so that each value gets a
            gate of its own; "ffa" has two, C -> C / reduction -> 1 with a ReLU
            between, so that the channels of a position share one gate.
        reduction: r, by which the hidden layer of "ffa" is narrower, at least one
            channel wide; FFA-Net uses 8. "pan" has no hidden layer.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    variant: Literal["pan", "ffa"] = "pan"
    reduction: Positive = 8
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        x = as_map(x, self.dtype)
        kinds = {"dtype": x.dtype, "param_dtype": self.param_dtype}
        channels = x.shape[-1]
        if self.variant == "pan":
            gate = nn.sigmoid(nn.Dense(channels, name="excite", **kinds)(x))
            sow(self, "pixel_gate", gate)
            return x * gate
        hidden = max(1, channels // self.reduction)
        gate = nn.relu(nn.Dense(hidden, name="squeeze", **kinds)(x))
        gate = nn.sigmoid(nn.Dense(1, name="excite", **kinds)(gate))
        sow(self, "spatial_map", lambda: gate[..., 0])
        return x * gate


def _parameters(module: PixelAttention, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    if module.variant == "pan":
        return channels * channels + channels
    hidden = max(1, channels // module.reduction)
    return channels * hidden + hidden + hidden + 1


PixelAttention.card = Card(
    family="pixel",
    contract="map",
    paper=Paper(
        title="Efficient Image Super-Resolution Using Pixel Attention",
        authors="Zhao, Kong, He, Qiao, Dong",
        year=2020,
        arxiv="2010.01073",
    ),
    formula="x * sigmoid(W x + b) at each position",
    complexity="HW C^2 + HWC (ffa: HW C^2 / r + HW C / r + HWC)",
    parameters=_parameters,
    maps=("pixel_gate", "spatial_map"),
    variants={"pan": {}, "ffa": {"variant": "ffa"}},
    note=(
        "PAN's layer is the default: it is the paper that the name comes from, and"
        " the only one that gates single values (it records a pixel gate). The layer"
        " of that name in FFA-Net (arXiv 1911.07559) gives a position one gate for"
        " all channels (it records a spatial map). Both as in the released code."
        " FFA-Net's pair of channel and pixel attention is the list of squeeze_excite"
        " with a reduction of 8 and this layer with variant 'ffa'."
    ),
)
