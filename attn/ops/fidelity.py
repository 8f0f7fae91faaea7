"""How faithful a restored image is: PSNR and SSIM, as papers of restoration print them.

Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
Structural Similarity", IEEE Transactions on Image Processing 2004,
https://doi.org/10.1109/TIP.2003.819861, section III.B: Gaussian windows of 11x11 and
deviation 1.5, K1 = 0.01, K2 = 0.03, the mean over all windows that lie inside.

All values are of images in [0, 1]; where images are padded, a mask says what counts.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Of ITU-R BT.601 with footroom and headroom, by which MATLAB's rgb2ycbcr computes Y.
LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
FOOTROOM = 16 / 255
WINDOW, DEVIATION = 11, 1.5
K1, K2 = 0.01, 0.03
LEAST_ERROR = 1e-10  # a mean square, of PSNR


def luma(image: jax.Array) -> jax.Array:
    """Y of YCbCr of RGB images, [..., 3] in [0, 1] -> [..., 1] in [16, 235] / 255."""
    channels = jnp.split(image, 3, axis=-1)
    return FOOTROOM + sum(w * c for w, c in zip(LUMA, channels, strict=True))


def quantised(image: jax.Array) -> jax.Array:
    """Images as files of 8 bits hold them: cut off to [0, 1] and rounded to 1 / 255."""
    return jnp.round(255 * jnp.clip(image, 0, 1)) / 255


def within(mask: jax.Array, border: int) -> jax.Array:
    """The mask without `border` pixels at each edge of an image in the upper left.

    Args:
        mask: bool [B, H, W], where there is image.
        border: pixels that are left out.
    """
    inside = mask
    for axis in (1, 2):
        side = mask.shape[axis]
        place = jnp.arange(side).reshape(1, *((-1, 1) if axis == 1 else (1, -1)))
        length = mask.any(axis=3 - axis).sum(axis=1)[:, None, None]
        inside = inside & (place >= border) & (place < length - border)
    return inside


def psnr(a: jax.Array, b: jax.Array, mask: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio, -10 log10 of the mean squared error: [B], in dB.

    Of equal images it would be infinite, and one of them would make every mean so: it
    is 100 dB at most.

    Args:
        a, b: images [B, H, W, C] in [0, 1].
        mask: bool [B, H, W], the pixels that count.
    """
    error = jnp.square(a - b).mean(axis=-1)
    total = jnp.sum(jnp.where(mask, error, 0.0), axis=(1, 2))
    mean = total / mask.sum(axis=(1, 2))
    return -10 * jnp.log10(jnp.maximum(mean, LEAST_ERROR))


def ssim(a: jax.Array, b: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean structural similarity of the windows all of whose pixels count: [B].

    Args:
        a, b: images [B, H, W, C] in [0, 1], H and W at least 11.
        mask: bool [B, H, W], a rectangle.
    """
    # Moments about 1/2, as small differences of large squares are lost in float32.
    a, b = a - 0.5, b - 0.5
    mean_a, mean_b = _blurred(a), _blurred(b)
    variances = _blurred(a * a) - mean_a**2 + _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    light = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    found = light * (2 * covariance + K2**2) / (variances + K2**2)
    half = WINDOW // 2
    ends = [mask[:, : -2 * half, : -2 * half], mask[:, 2 * half :, 2 * half :]]
    inside = ends[0] & ends[1]  # of a rectangle, both corners say it
    total = jnp.sum(jnp.where(inside, found.mean(axis=-1), 0.0), axis=(1, 2))
    return total / inside.sum(axis=(1, 2))


def _blurred(x: jax.Array) -> jax.Array:
    """Gaussian means over windows that lie inside: [B, H, W, C] -> [B, H', W', C]."""
    place = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-((place / DEVIATION) ** 2) / 2)
    window = (window / window.sum()).tolist()
    for axis in (1, 2):
        length = x.shape[axis] - WINDOW + 1
        shifted = (
            weight * jax.lax.slice_in_dim(x, k, k + length, axis=axis)
            for k, weight in enumerate(window)
        )
        x = sum(shifted)
    return x
