"""Transposed convolution that doubles a map, by the faster of two programs.

The one of 4x4 weights, stride 2 and padding 1, `torch.nn.ConvTranspose2d(C, F, 4, 2,
1)`: y[2 i - 1 + k] += x[i] w[k] in each direction, 0 <= k < 4. Each place of y is
reached by two places of x. So at even places, and at odd ones, it is a convolution of
two weights: both are one convolution of 2x2 windows, of four times the channels, which
are then put in their places.

XLA's CPU backend is many times slower at the gradients of a transposed convolution than
at itself; there the windows are unfolded for one matrix product. Elsewhere, and within
`attn.ops.plain()`, it is XLA's own.
"""

import jax
import jax.numpy as jnp
from jax import lax

from attn.ops import im2col
from attn.ops.programs import is_plain

SIDE, STRIDE = 4, 2


def double(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A map twice as high and wide: [B, H, W, C], [4, 4, C, F] -> [B, 2H, 2W, F].

    Args:
        x: [B, H, W, C].
        kernel: in the order of the formula above; PyTorch's [C, F, 4, 4] is
            `transpose(2, 3, 0, 1)` of it.

    Raises:
        ValueError: shapes that do not fit.
    """
    if x.ndim != 4 or kernel.shape[:-1] != (SIDE, SIDE, x.shape[-1]):
        raise ValueError(
            "x must be [B, H, W, C] and the kernel [4, 4, C, F], got"
            f" {list(x.shape)} and {list(kernel.shape)}"
        )
    flipped = kernel[::-1, ::-1]
    if jax.default_backend() == "cpu" and not is_plain():
        return fused_doubling(x, flipped)
    padding = ((SIDE // 2, SIDE // 2),) * 2
    return lax.conv_transpose(x, flipped, (STRIDE, STRIDE), padding)


@jax.jit
def fused_doubling(x: jax.Array, flipped: jax.Array) -> jax.Array:
    """A jaxpr shows one call of this name, from whose shapes the cost can be told."""
    batch, height, width, channels = x.shape
    # of rows and of columns: [tap, phase]
    kernel = flipped.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 4, 1, 3, 5)
    kernel = kernel.reshape(2, 2, channels, -1)
    y = im2col.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)))
    y = y.reshape(batch, height + 1, width + 1, 2, 2, -1)
    # The windows of the odd phase begin a place later than those of the even one.
    y = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], axis=2)
    y = jnp.stack([y[:, :, :, :-1, 0], y[:, :, :, 1:, 1]], axis=4)
    return y.reshape(batch, 2 * height, 2 * width, -1)
