"""Convolution and max pooling by the faster of several programs.

    program   what                                     where it is taken
    banded    one product with a banded matrix         CPU: kernels from 5x5, of one or
                                                       two channels
    im2col    one product over all unfolded windows    CPU: kernels from 5x5, of more
                                                       channels, on maps up to 28x28
    padded    XLA's own, with channels of zeros        CPU: kernels from 2x2, of 12 and
              added to a multiple of four              more channels that are none
    xla       XLA's own                                elsewhere

All give the same numbers, to rounding. The rule goes by platform and shape alone, and
takes another program than XLA's only where `python -m benchmarks.convolution` found it
faster, forward and backward. It needs no dilation, one group and, but for "padded", a
stride of 1; within `attn.ops.plain()` XLA's is taken.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attn.ops import banded, im2col
from attn.ops.programs import is_plain

Padding = str | Sequence[tuple[int, int]]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
SMALLEST_KERNEL = 5
FEW_CHANNELS = 2
# A banded matrix takes (width of the map) / (width of the kernel) times the products.
WIDEST = 8
LARGEST_MAP = 28 * 28
# XLA's runs at half its speed on a CPU where four does not divide the channels, as in
# networks whose widths are matched. Of so few as not to be worth zeros it does not.
MULTIPLE = 4
FEWEST_PADDED = 12


def conv_general_dilated(
    x: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Padding,
    *,
    dimension_numbers: Any = DIMENSIONS,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: jnp.dtype | None = None,
    **options: Any,
) -> jax.Array:
    """Convolution of maps. Returns [B, H', W', F].

    `flax.linen.Conv` takes it in the place of `jax.lax.conv_general_dilated`.

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C, F].
        window_strides: of rows and columns.
        padding: "VALID", "SAME", or (before, after) of rows and columns.
        dimension_numbers: those of the shapes above.
        precision: of the products.
        preferred_element_type: in which they are summed and returned.
        options: further ones of `jax.lax.conv_general_dilated`: dilations and groups.
    """
    strides = tuple(window_strides)
    exact = {"precision": precision, "preferred_element_type": preferred_element_type}
    common = all(n == 1 for n in jax.tree.leaves(options)) and x.ndim == 4
    name = program(x.shape, kernel.shape, strides) if common else "xla"
    pads = padding
    if isinstance(padding, str) and common:
        pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    if name == "xla" or not _has_room(x.shape[1:3], kernel.shape[:2], pads):
        options |= exact | {"dimension_numbers": dimension_numbers}
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    padding = tuple((int(before), int(after)) for before, after in pads)
    return fused_convolution(
        x, kernel, name, strides, padding, precision, preferred_element_type
    )


def _has_room(size: Sequence[int], kernel: Sequence[int], pads: Any) -> bool:
    """Whether a padded map is as large as the kernel."""
    sides = zip(size, kernel, pads, strict=True)
    return all(length + sum(pad) >= side for length, side, pad in sides)


@functools.partial(jax.jit, static_argnums=range(2, 7))
def fused_convolution(x, kernel, name, strides, padding, precision, preferred):
    """A jaxpr shows one call of this name, from whose shapes the cost can be told."""
    programs = {
        "banded": banded.conv_general_dilated,
        "im2col": im2col.conv_general_dilated,
        "padded": _padded,
    }
    exact = {"precision": precision, "preferred_element_type": preferred}
    return programs[name](x, kernel, strides, padding, **exact)


def _padded(x, kernel, strides, padding, **exact):
    """XLA's own on channels that four divides, those added being zeros."""
    filters = kernel.shape[-1]
    before, after = (-n % MULTIPLE for n in kernel.shape[2:])
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, before)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, before), (0, after)))
    y = lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=DIMENSIONS, **exact
    )
    return y[..., :filters]


def program(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> Literal["xla", "banded", "im2col", "padded"]:
    """The name of the program for maps [B, H, W, C] and a kernel [h, w, C, F]."""
    height, width, channels = shape[1:]
    if jax.default_backend() != "cpu" or is_plain():
        return "xla"
    if min(kernel[:2]) >= SMALLEST_KERNEL and max(strides) == 1:
        if channels <= FEW_CHANNELS and width <= WIDEST * kernel[1]:
            return "banded"
        if channels > FEW_CHANNELS and height * width <= LARGEST_MAP:
            return "im2col"
    odd = any(n % MULTIPLE for n in kernel[2:])
    if odd and min(kernel[2:]) >= FEWEST_PADDED and max(kernel[:2]) > 1:
        return "padded"
    return "xla"


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of each 2x2 window: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    A last odd row or column is a window of its own, as in Caffe and unlike in
    flax's "VALID". Of equal numbers the first, row by row, has the gradient.
    """
    if jax.default_backend() == "cpu":
        return im2col.max_pool(x)
    odd = ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))
    window = (1, 2, 2, 1)
    lowest = np.array(-np.inf, x.dtype)  # traced, XLA's maximum had no gradient
    return lax.reduce_window(x, lowest, lax.max, window, window, odd)
