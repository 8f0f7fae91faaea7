"""What networks of restoration share: plain convolutions, enlarging, mean colours.

They read the fields `dtype` and `param_dtype` of the module in whose compact `__call__`
they stand.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models.layers.dense import TORCH
from attn.modules.convolution import Conv
from attn.settings import Invalid

# Of the training images of DIV2K, which EDSR and SAN subtract.
MEAN_COLOUR = (0.4488, 0.4371, 0.4040)
SCALES = (1, 2, 3, 4, 8)


def conv(
    parent: nn.Module,
    name: str,
    x: jax.Array,
    features: int,
    size: int = 3,
    *,
    bias: bool = True,
) -> jax.Array:
    """A convolution that keeps the size of its map.

    Its kernel starts as PyTorch's does, and its bias at zero.
    """
    return Conv(
        features,
        (size, size),
        padding=size // 2,
        use_bias=bias,
        kernel_init=TORCH,
        dtype=parent.dtype or x.dtype,
        param_dtype=parent.param_dtype,
        name=name,
    )(x)


def check_scale(model: nn.Module, scales: tuple[int, ...] = SCALES) -> None:
    """Refuses a scale that a model is not made for."""
    if model.scale not in scales:
        raise Invalid(
            f"scale of {type(model).__name__} must be one of"
            f" {', '.join(map(str, scales))}, got {model.scale}"
        )


def enlarge(parent: nn.Module, name: str, x: jax.Array, scale: int) -> jax.Array:
    """Sub-pixel convolutions: [B, H, W, C] -> [B, sH, sW, C].

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network", CVPR 2016, https://arxiv.org/abs/1609.05158;
    one of scale 3, or one after the other of scale 2, called NAME0, NAME1, ...
    """
    steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    channels = x.shape[-1]
    for index, step in enumerate(steps):
        x = conv(parent, f"{name}{index}", x, step * step * channels)
        x = pixel_shuffle(x, step)
    return x


def pixel_shuffle(x: jax.Array, scale: int) -> jax.Array:
    """[B, H, W, C s s] -> [B, sH, sW, C], in the order of PyTorch's PixelShuffle."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // scale**2, scale, scale)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * scale, width * scale, -1)


def nearest(x: jax.Array, scale: int) -> jax.Array:
    """Each position repeated: [B, H, W, C] -> [B, sH, sW, C]."""
    return jnp.repeat(jnp.repeat(x, scale, axis=1), scale, axis=2)


def mean_colour(x: jax.Array) -> jax.Array:
    """The mean colour of DIV2K in [0, 1], for images of three channels; else 1/2."""
    channels = x.shape[-1]
    colour = MEAN_COLOUR if channels == 3 else (0.5,) * channels
    return jnp.asarray(colour, x.dtype).reshape(1, 1, 1, channels)
