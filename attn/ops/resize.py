"""Bicubic resizing of images as MATLAB's `imresize` does it.

The convention of super-resolution: low-resolution images are made by it, and another
filter moves the PSNR by tenths of a dB. The kernel is that of Keys, "Cubic Convolution
Interpolation for Digital Image Processing", IEEE Transactions on Acoustics, Speech, and
Signal Processing 1981, https://doi.org/10.1109/TASSP.1981.1163711, with a = -1/2. As in
MATLAB it is stretched by 1 / scale where images shrink, which averages over what falls
between pixels (antialiasing), weights are divided by their sum, and images are mirrored
at their edges.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

SUPPORT = 4  # pixels that the kernel spans


def imresize(
    x: jax.Array | np.ndarray,
    scale: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    antialias: bool = True,
) -> jax.Array | np.ndarray:
    """Images resized, [..., H, W, C] -> [..., H', W', C]; NumPy arrays stay such.

    As in MATLAB the axis with the smaller scale is resized first, and images of uint8
    are rounded and cut off after each of the two axes; of other integers the result is
    a floating-point number.

    Args:
        x: the images.
        scale: of both sides, H' = ceil(scale H). Where a side is rounded up, the result
            reaches beyond the image a little.
        size: H' and W' in place of a scale, which is then H' / H and W' / W.
        antialias: whether the kernel is stretched where images shrink.

    Raises:
        ValueError: both a scale and a size, or none of them, one that is not positive,
            or fewer than three axes.
    """
    if (scale is None) == (size is None):
        raise ValueError("imresize takes a scale or a size, and not both")
    if x.ndim < 3:
        raise ValueError(f"imresize takes images [..., H, W, C], got {x.shape}")
    old = x.shape[-3:-1]
    if scale is None:
        scales = tuple(new / length for new, length in zip(size, old, strict=True))
    else:
        size, scales = tuple(math.ceil(scale * n) for n in old), (scale, scale)
    if min(*scales, *size, *old) <= 0:
        raise ValueError(f"imresize takes scales above 0, got {scales} of {old}")
    for axis in sorted(range(2), key=lambda axis: scales[axis]):
        matrix = weights(old[axis], size[axis], scales[axis], antialias)
        x = _along(x, axis, matrix)
    return x


@functools.lru_cache(maxsize=64)
def weights(length: int, size: int, scale: float, antialias: bool = True) -> np.ndarray:
    """What each pixel of a resized side takes of the old ones: float64 [size, length].

    Args:
        length: of the side before.
        size: of the side behind.
        scale: of the distance between pixels; the first edges stay together.
        antialias: as of `imresize`.
    """
    stretch = min(scale, 1.0) if antialias else 1.0
    centre = (np.arange(size)[:, None] + 0.5) / scale - 0.5
    reach = math.ceil(SUPPORT / stretch) + 2
    places = np.floor(centre - SUPPORT / stretch / 2) + np.arange(reach)
    taken = cubic(stretch * (centre - places))
    taken /= taken.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    columns = mirrored[places.astype(np.int64) % (2 * length)]
    matrix = np.zeros((size, length))
    np.add.at(matrix, (np.arange(size)[:, None], columns), taken)
    matrix.setflags(write=False)
    return matrix


def cubic(x: np.ndarray) -> np.ndarray:
    """The kernel of Keys with a = -1/2, zero beyond a distance of 2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _along(
    x: jax.Array | np.ndarray, axis: int, matrix: np.ndarray
) -> jax.Array | np.ndarray:
    """Images [..., H, W, C] whose rows (axis 0) or columns are mixed by a matrix."""
    whole = x.dtype == np.uint8
    form = ("yh,...hwc->...ywc", "xw,...hwc->...hxc")[axis]
    if isinstance(x, np.ndarray):
        given = x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64)
        y = np.einsum(form, matrix.astype(given.dtype), given, optimize=True)
        return np.floor(np.clip(y, 0, 255) + 0.5).astype(np.uint8) if whole else y
    given = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    wide = jnp.promote_types(given.dtype, jnp.float32)
    exact = jax.lax.Precision.HIGHEST
    y = jnp.einsum(form, matrix.astype(wide), given.astype(wide), precision=exact)
    y = y.astype(given.dtype)
    return jnp.floor(jnp.clip(y, 0, 255) + 0.5).astype(jnp.uint8) if whole else y
