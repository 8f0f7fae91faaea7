"""Convolution and max pooling by slices, for CPUs.

The same numbers as `jax.lax.conv_general_dilated` and `flax.linen.max_pool`. XLA's
CPU backend is slow at kernels of 5x5 and more on small maps, and at the gradient of a
pooling window; as slices and one matrix product both run some times faster there.
`attn.ops.convolution` knows where.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from attn.ops import varying


def conv_general_dilated(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Convolution as one matrix product over all windows.

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C, F].
        strides: of rows and columns.
        padding: "VALID", "SAME", or (before, after) of rows and columns.
        options: of `conv_general_dilated`, so that this can be given to
            `flax.linen.Conv` in its place; dilations and groups must be one.

    Returns:
        [B, H', W', F].

    Raises:
        ValueError: a dilation or more than one group.
    """
    options.pop("dimension_numbers", None)  # those of the shapes above
    precision = options.pop("precision", None)
    preferred = options.pop("preferred_element_type", None)
    for name, value in options.items():
        if any(number != 1 for number in jax.tree.leaves(value)):
            raise ValueError(f"an unfolded convolution has {name} 1, got {value}")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    x = jnp.pad(x, ((0, 0), *map(tuple, padding), (0, 0)))
    return _convolve(x, kernel, tuple(strides), precision, preferred)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, precision, preferred):
    """Without padding. XLA is faster at a single channel, but not at its gradient."""
    exact = {"precision": precision, "preferred_element_type": preferred}
    if x.shape[-1] == 1:
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, strides, "VALID", dimension_numbers=names, **exact
        )
    seen = windows(x, kernel.shape[:2], strides)
    return jnp.matmul(seen, kernel.reshape(-1, kernel.shape[-1]), **exact)


def _forward(x, kernel, *settings):
    return _convolve(x, kernel, *settings), (x, kernel)


def _backward(strides, precision, preferred, saved, gradient):
    x, kernel = saved
    of_kernel = lambda k: _convolve.fun(x, k, strides, precision, preferred)
    _, back = jax.vjp(of_kernel, kernel)
    flat = kernel.reshape(-1, kernel.shape[-1])
    places = (*kernel.shape[:2], *gradient.shape[:3], x.shape[-1])
    if x.shape[-1] == 1:  # with the taps in front no number moves alone
        taps = jnp.einsum("kf,bhwf->kbhw", flat, gradient, precision=precision)
        taps = taps.reshape(places)
    else:
        taps = jnp.einsum("bhwf,kf->bhwk", gradient, flat, precision=precision)
        taps = taps.reshape(*places[2:5], *places[:2], places[5])
        taps = jnp.moveaxis(taps, (3, 4), (0, 1))
    return fold(taps, x.shape, strides).astype(x.dtype), *back(gradient)


_convolve.defvjp(_forward, _backward)


def windows(
    x: jax.Array, sides: tuple[int, int], strides: tuple[int, int]
) -> jax.Array:
    """What a kernel sees at each place: [B, H, W, C] -> [B, H', W', h w C]."""
    rows, columns = (
        (length - side) // stride + 1
        for length, side, stride in zip(x.shape[1:3], sides, strides, strict=True)
    )
    return jnp.concatenate(
        [
            x[:, i:, j:][:, :: strides[0], :: strides[1]][:, :rows, :columns]
            for i in range(sides[0])
            for j in range(sides[1])
        ],
        axis=-1,
    )


def fold(
    taps: jax.Array, shape: tuple[int, ...], strides: tuple[int, int]
) -> jax.Array:
    """Adds windows up where they lie: [h, w, B, H', W', C] -> [B, H, W, C].

    It is the transpose of `windows`. The sum is a loop over the rows of the kernel:
    as one expression XLA computes it again for each of its uses.
    """
    rows, columns = taps.shape[3:5]
    # how far the first and the last row and column lie apart in the map
    height = (rows - 1) * strides[0] + 1
    reach = (columns - 1) * strides[1] + 1
    none, apart = (0, 0, 0), (0, 0, strides[0] - 1)

    def add(total, numbered):
        i, row = numbered
        zero = jnp.zeros((), row.dtype)
        places = [(j, shape[2] - reach - j, strides[1] - 1) for j in range(len(row))]
        spread = sum(
            lax.pad(tap, zero, [none, apart, place, none])
            for tap, place in zip(row, places, strict=True)
        )
        there = lax.dynamic_slice_in_dim(total, i, height, axis=1)
        there = lax.dynamic_update_slice_in_dim(total, there + spread, i, axis=1)
        return there, None

    numbered = (jnp.arange(len(taps)), taps)
    start = varying.like(jnp.zeros(shape, taps.dtype), taps)
    return lax.scan(add, start, numbered)[0]


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of each 2x2 window: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    A last odd row or column is a window of its own, as in Caffe and unlike in
    flax's "VALID".
    """
    rows, columns = x.shape[1] % 2, x.shape[2] % 2
    # repeated, so that no other number takes part
    x = jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="edge")
    x = _larger(x[:, :, 0::2], x[:, :, 1::2])
    return _larger(x[:, 0::2], x[:, 1::2])


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """The maximum, whose gradient goes to the first of equal ones; NaN of any NaN."""
    return jnp.where((a >= b) | (a != a), a, b)
