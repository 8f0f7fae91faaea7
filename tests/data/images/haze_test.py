"""Haze against the model of scattering, pixel by pixel."""

import math

import numpy as np
import pytest

from attn import data, settings
from attn.data.images.haze import Haze
from tests.data.images.degraded_test import folder

__all__ = ["folder"]  # a fixture
DRAWS = np.array([[0.25, 0.5], [0.75, 0.0]])


def scattered(image, depth, beta, airlight):
    found = np.zeros(image.shape)
    for place in np.ndindex(image.shape):
        through = math.exp(-beta * depth(*place[:2]))
        found[place] = image[place] * through + 255 * airlight * (1 - through)
    return found


@pytest.mark.parametrize("depth", ["constant", "ramp", "given"])
def test_images_are_seen_through_haze(depth):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (5, 7, 3), np.uint8), rng.uniform(0, 255, (9, 4, 1))]
    given = [rng.uniform(0, 3, image.shape[:2]) for image in images]
    name = "ramp" if depth == "given" else depth
    haze = Haze(beta=(1, 3), airlight=(0.5, 0.9), depth=name, into="hazy")
    batch = {"image": images} | ({"depth": given} if depth == "given" else {})
    found = haze.apply(batch, DRAWS)
    assert all(a is b for a, b in zip(found["image"], images, strict=True))
    drawn = zip(images, (1.5, 2.5), (0.7, 0.5), strict=True)
    for k, (image, beta, airlight) in enumerate(drawn):
        depths = {
            "constant": lambda row, column: 1,
            "ramp": lambda row, column, k=k: 2 * (1 - row / (len(images[k]) - 1)),
            "given": lambda row, column, k=k: given[k][row, column],
        }
        expected = scattered(image, depths[depth], beta, airlight)
        assert found["hazy"][k].dtype == np.float32
        np.testing.assert_allclose(found["hazy"][k], expected, atol=1e-3)


def test_an_evaluation_has_the_same_haze_and_a_clear_target(folder):
    config = {"name": "degraded", "source": folder, "transforms": {"haze": {}}}
    dataset = data.open(config)
    found = []
    for _ in range(2):
        with dataset.split("test", 1) as batches:
            found.append([(b["image"], b["target"]) for b in batches])
    for (image, target), (again, _) in zip(*found, strict=True):
        np.testing.assert_array_equal(image, again)
        assert image.dtype == np.float32 and target.dtype == np.uint8
        assert np.abs(255 * image - target).max() > 50


def test_ranges_that_are_none_are_refused():
    for given in ({"beta": (2, 1)}, {"airlight": (0.5, 1.5)}):
        with pytest.raises(settings.Invalid, match="is not a range"):
            Haze(**given)
