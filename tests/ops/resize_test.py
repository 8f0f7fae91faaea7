"""Bicubic resizing against the convolution of Keys, and against Pillow inside."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from attn import ops


def kernel(distance):
    """Keys 1981, equation 15, with a = -1/2."""
    a, s = -0.5, abs(distance)
    if s < 1:
        return (a + 2) * s**3 - (a + 3) * s**2 + 1
    return a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a if s < 2 else 0.0


def resized(image, size, scales, antialias=True):
    """Pixel by pixel: the edges of image and result meet at 0."""
    image = np.pad(image, 40, mode="symmetric")
    result = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            taken = []
            for place, scale in zip((y, x), scales, strict=True):
                width = max(1 / scale, 1) if antialias else 1
                centre = (place + 0.5) / scale - 0.5
                row = [kernel((p - 40 - centre) / width) for p in range(200)]
                taken.append(np.array(row) / sum(row))
            rows, columns = (t[:n] for t, n in zip(taken, image.shape, strict=True))
            result[y, x] = rows @ image @ columns
    return result


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 0.37, 1, 1.6, 2, 3])
def test_it_is_the_convolution_of_keys(scale, antialias):
    image = np.random.default_rng(0).normal(size=(23, 17))
    size = tuple(math.ceil(scale * n) for n in image.shape)
    expected = resized(image, size, (scale, scale), antialias)
    stack = np.stack([image, 2 * image], axis=-1)[None]
    found = ops.imresize(stack, scale, antialias=antialias)
    assert found.dtype == np.float64
    assert found.shape == (1, *size, 2)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-12)
    np.testing.assert_allclose(found[0, ..., 1], 2 * expected, atol=1e-12)
    resize = jax.jit(functools.partial(ops.imresize, scale=scale, antialias=antialias))
    ours = resize(jnp.asarray(stack, jnp.float32))
    np.testing.assert_allclose(ours[0, ..., 0], expected, atol=3e-6)


def test_a_size_has_a_scale_for_each_side():
    image = np.random.default_rng(1).normal(size=(13, 22))
    found = ops.imresize(image[..., None], size=(31, 9))[..., 0]
    expected = resized(image, (31, 9), (31 / 13, 9 / 22))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_inside_it_is_the_bicubic_filter_of_pillow():
    image = np.random.default_rng(2).uniform(size=(60, 84)).astype(np.float32)
    filtered = Image.fromarray(image).resize((28, 20), Image.Resampling.BICUBIC)
    found = ops.imresize(image[..., None], 1 / 3)[..., 0]
    inside = np.s_[2:-2, 2:-2]
    np.testing.assert_allclose(found[inside], np.asarray(filtered)[inside], atol=1e-5)


def test_bytes_are_rounded_after_each_axis_the_smaller_scale_first():
    image = np.random.default_rng(3).integers(0, 256, (12, 18), np.uint8)
    whole = lambda a: np.floor(np.clip(a, 0, 255) + 0.5)
    first = whole(resized(image.astype(float), (12, 6), (1, 1 / 3)))
    both = whole(resized(first, (6, 6), (1 / 2, 1)))
    found = ops.imresize(image[..., None], size=(6, 6))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 0], both)
    ours = ops.imresize(jnp.asarray(image)[..., None], size=(6, 6))
    assert ours.dtype == jnp.uint8
    np.testing.assert_allclose(ours[..., 0], both, atol=1)


def test_what_cannot_be_resized_is_refused():
    image = np.zeros((4, 5, 1))
    with pytest.raises(ValueError, match="a scale or a size"):
        ops.imresize(image)
    with pytest.raises(ValueError, match="a scale or a size"):
        ops.imresize(image, 2, size=(8, 10))
    with pytest.raises(ValueError, match="above 0, got"):
        ops.imresize(image, -1)
    with pytest.raises(ValueError, match=r"\[..., H, W, C\], got"):
        ops.imresize(image[0], 2)
