"""Deletion and insertion for functions whose curves are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import explain
from tests.explain import networks

RNG = np.random.default_rng(0)
SHAPE = (2, 4, 5)
total = lambda images: images.sum(axis=(1, 2, 3))


def test_the_sum_of_an_image_falls_by_its_largest_pixels():
    images = RNG.uniform(size=(*SHAPE, 1)).astype(np.float32)
    curve = explain.deletion(total, images, images[..., 0], steps=20)
    falling = -np.sort(-images.reshape(2, -1).astype(np.float64), axis=1)
    gone = np.concatenate([np.zeros((2, 1)), falling.cumsum(axis=1)], axis=1)
    np.testing.assert_allclose(curve, gone[:, -1:] - gone, rtol=1e-4, atol=1e-4)


def test_insertion_puts_the_same_pixels_in():
    images = RNG.uniform(size=(*SHAPE, 3)).astype(np.float32)
    maps = RNG.uniform(size=SHAPE)
    out = explain.deletion(total, images, maps, steps=7, baseline=0.25)
    back = explain.insertion(total, images, maps, steps=7, baseline=0.25)
    both = images.sum(axis=(1, 2, 3)) + 0.25 * 60
    np.testing.assert_allclose(out + back, np.tile(both[:, None], 8), rtol=1e-5)


def test_the_curve_of_one_step_is_the_image_and_the_baseline():
    images = RNG.uniform(size=(*SHAPE, 1)).astype(np.float32)
    curve = explain.deletion(total, images, np.ones(SHAPE), steps=1, baseline=2.0)
    np.testing.assert_allclose(curve[:, 0], total(images), rtol=1e-6)
    np.testing.assert_allclose(curve[:, 1], 40, rtol=1e-6)


def test_pixels_go_in_steps_of_equal_size():
    images = np.ones((*SHAPE, 1), np.float32)
    curve = explain.deletion(total, images, RNG.uniform(size=SHAPE), steps=3)
    np.testing.assert_array_equal(curve, [[20, 13, 7, 0]] * 2)


def test_of_equal_pixels_the_upper_left_goes_first():
    images = np.ones((1, 2, 2, 1), np.float32)
    seen = lambda images: images[:, 0, 0, 0] + 10 * images[:, 0, 1, 0]
    curve = explain.deletion(seen, images, np.ones((1, 2, 2)), steps=4)
    np.testing.assert_array_equal(curve, [[11, 10, 0, 0, 0]])


def test_areas_are_those_of_the_trapezes():
    curve = jnp.asarray([[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(explain.area(curve), [0.5, 1])
    curve = RNG.uniform(size=(3, 9))
    wanted = np.trapezoid(curve, dx=1 / 8, axis=1)
    np.testing.assert_allclose(explain.area(jnp.asarray(curve)), wanted, rtol=1e-5)


def test_a_straight_fall_has_half_the_area():
    images = np.ones((*SHAPE, 1), np.float32)
    score = lambda images: total(images) / 20
    curve = explain.deletion(score, images, RNG.uniform(size=SHAPE), steps=20)
    np.testing.assert_allclose(explain.area(curve), 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("maps", "steps", "message"),
    [
        (np.ones(SHAPE), 0, "at least 1, got 0"),
        (np.ones((2, 5, 4)), 3, "do not fit images"),
    ],
)
def test_what_does_not_fit_is_refused(maps, steps, message):
    with pytest.raises(ValueError, match=message):
        explain.deletion(total, np.ones((*SHAPE, 1)), maps, steps=steps)


def test_blurring_keeps_even_images_and_spreads_points():
    even = np.full((1, 6, 9, 2), 3.0, np.float32)
    np.testing.assert_allclose(explain.blur(even, 1.5), even, rtol=1e-5)
    single = np.zeros((1, 9, 9, 1), np.float32)
    single[0, 4, 4] = 1
    found = np.asarray(explain.blur(single, 0.8))[0, :, :, 0]
    away = np.arange(-4, 5)
    wanted = np.exp(-(away[:, None] ** 2 + away**2) / (2 * 0.8**2))
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=0.01, atol=1e-5)


def test_confidence_is_the_probability_of_the_class():
    model, variables = networks.network("cnn")
    images = networks.images()
    logits = model.apply(variables, images, train=False)
    p = np.asarray(jax.nn.softmax(logits))
    predicted = explain.confidence(model, variables, images)(images)
    np.testing.assert_allclose(predicted, p.max(axis=1), rtol=1e-5)
    given = explain.confidence(model, variables, images, jnp.asarray([3, 1]))(images)
    np.testing.assert_allclose(given, [p[0, 3], p[1, 1]], rtol=1e-5)
    for wrong in (5, -1):  # labels that count from 1, or of nothing
        score = explain.confidence(model, variables, images, jnp.asarray([3, wrong]))
        with pytest.raises(ValueError, match=rf"must be in 0\.\.4, got {wrong}"):
            score(images)
