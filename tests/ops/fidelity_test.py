"""PSNR, SSIM and Y against scikit-image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.metrics

from attn.ops import fidelity

SIZES = ((29, 41), (23, 37))


def pair(size, seed=0):
    """A smooth image of 8 bits, and another one near it."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (size[0] // 4 + 1, size[1] // 4 + 1, 3))
    image = np.kron(image, np.ones((4, 4, 1)))[: size[0], : size[1]]
    noisy = image + rng.normal(0, 20, image.shape)
    return [np.clip(np.rint(one), 0, 255).astype(np.uint8) for one in (image, noisy)]


@functools.cache
def batch():
    """Images of two sizes on one canvas of noise, in [0, 1], and their mask."""
    canvas = np.random.default_rng(9).uniform(size=(2, 2, 32, 44, 3))
    mask = np.zeros((2, 32, 44), bool)
    for i, (height, width) in enumerate(SIZES):
        for side, image in zip(canvas, pair((height, width), i), strict=True):
            side[i, :height, :width] = image / 255
        mask[i, :height, :width] = True
    return *(jnp.asarray(side, jnp.float32) for side in canvas), jnp.asarray(mask)


@pytest.mark.parametrize("border", [0, 4])
def test_measures_are_those_of_scikit_image_whatever_is_beyond_the_image(border):
    @jax.jit
    def measure(a, b, mask):
        a, b = fidelity.luma(a), fidelity.luma(b)
        mask = fidelity.within(mask, border)
        return fidelity.psnr(a, b, mask), fidelity.ssim(a, b, mask)

    psnr, ssim = measure(*batch())
    for i, size in enumerate(SIZES):
        inside = np.s_[border : size[0] - border, border : size[1] - border]
        y = [skimage.color.rgb2ycbcr(one)[(*inside, 0)] for one in pair(size, i)]
        expected = skimage.metrics.peak_signal_noise_ratio(*y, data_range=255)
        np.testing.assert_allclose(psnr[i], expected, atol=1e-4)
        expected = skimage.metrics.structural_similarity(
            *y,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        np.testing.assert_allclose(ssim[i], expected, atol=2e-5)


def test_all_channels_count_alike():
    a, b, mask = batch()
    found = fidelity.ssim(a, b, mask), fidelity.psnr(a, b, mask)
    first = np.s_[: SIZES[0][0], : SIZES[0][1]]
    a, b = (np.asarray(one[0], np.float64)[first] for one in (a, b))
    options = {"gaussian_weights": True, "use_sample_covariance": False}
    expected = skimage.metrics.structural_similarity(
        a, b, data_range=1.0, channel_axis=-1, sigma=1.5, **options
    )
    np.testing.assert_allclose(found[0][0], expected, atol=2e-5)
    expected = skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1.0)
    np.testing.assert_allclose(found[1][0], expected, atol=1e-4)


def test_equal_images_have_a_hundred_decibels():
    a, _, mask = batch()
    near = a.at[:, 3, 3].add(1 / 255)
    found = np.asarray([fidelity.psnr(a, b, mask) for b in (a, near)])
    np.testing.assert_allclose(found[0], 100, rtol=1e-6)
    assert np.all(found[1] < 80)


def test_quantised_images_are_those_of_files():
    image = jnp.array([-0.2, 0.0, 0.1, 0.5019, 1.7])
    files = np.array([0, 0, 26, 128, 255]) / 255
    np.testing.assert_allclose(fidelity.quantised(image), files, atol=1e-6)
