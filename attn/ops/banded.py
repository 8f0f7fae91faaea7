"""Convolution of few channels as one product with a banded matrix, for CPUs.

A row of the output reads h rows of the input, all of their columns and channels, by a
matrix [h W C, W' F] in which each kernel entry stands on a diagonal. That takes W / w
times the multiply-adds of the convolution, but in a dense product, whose gradients are
dense products too. With one or two channels, as of the gate of CBAM, XLA's convolutions
on a CPU take several times as long (`python -m benchmarks.convolution`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def conv_general_dilated(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    precision: jax.lax.PrecisionLike = None,
    preferred_element_type: jnp.dtype | None = None,
) -> jax.Array:
    """Convolution as one product with a banded matrix. Returns [B, H', W', F].

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C, F].
        strides: of rows and columns.
        padding: (before, after) of rows and columns, at least 0.
        precision: of the product.
        preferred_element_type: in which it is summed and returned.
    """
    batch, height, width, channels = x.shape
    rows, columns, _, filters = kernel.shape
    down, along = (
        (length + sum(pad) - side) // stride + 1
        for length, pad, side, stride in zip(
            (height, width), padding, (rows, columns), strides, strict=True
        )
    )
    matrix = _band(kernel, width, along, strides[1], padding[1][0])
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0)))
    x = x.reshape(batch, x.shape[1], width * channels)
    last = (down - 1) * strides[0] + 1
    seen = [x[:, i : i + last : strides[0]] for i in range(rows)]
    y = jnp.matmul(
        jnp.concatenate(seen, axis=-1),
        matrix,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    return y.reshape(batch, down, along, filters)


def _band(
    kernel: jax.Array, width: int, along: int, stride: int, before: int
) -> jax.Array:
    """The matrix [h W C, W' F] of a kernel [h, w, C, F]."""
    rows, columns, channels, filters = kernel.shape
    place = np.arange(width)[:, None] - stride * np.arange(along) + before
    inside = (place >= 0) & (place < columns)
    band = kernel[:, np.clip(place, 0, columns - 1)]  # [h, W, W', C, F]
    band = jnp.where(inside[None, :, :, None, None], band, jnp.zeros((), band.dtype))
    band = band.transpose(0, 1, 3, 2, 4)
    return band.reshape(rows * width * channels, along * filters)
