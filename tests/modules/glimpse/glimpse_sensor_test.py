"""GlimpseSensor: the crops of `tests/ops/glimpse_test.py`, side by side."""

import numpy as np
import pytest

import attn
from attn import settings
from tests.ops.glimpse_test import PLACES, crop, images


def test_patches_of_all_scales_stand_side_by_side():
    module = attn.create("glimpse_sensor", size=3, scales=3)
    x, places = images(), PLACES
    y, maps = attn.capture(module, {}, x, places[:, 2])
    assert y.shape == (len(x), 3, 3, 9)
    for b, image in enumerate(x):
        want = [crop(image, places[b, 2].astype(float), (3, 3), k) for k in range(3)]
        np.testing.assert_allclose(y[b], np.concatenate(want, -1), 1e-5, 1e-6)
    grids = [maps[f"sampling_grid{end}"].values for end in ("", "_1", "_2")]
    steps = [float(grid[0, 0, 1, 0] - grid[0, 0, 0, 0]) for grid in grids]
    np.testing.assert_allclose(steps, 2 / x.shape[2] * np.array([1, 2, 4]), rtol=1e-5)


def test_without_places_it_looks_at_the_middle():
    x = images()
    y = attn.create("glimpse_sensor", size=5).apply({}, x, train=False)
    np.testing.assert_array_equal(y, x[:, 4:9, 7:12])
    y = attn.create("glimpse_sensor").apply({}, x, train=False)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": 14}, "14x14 pixels at 1 scales reach 14x14, more than .* 13x18"),
        ({"size": 4, "scales": 3}, "at 3 scales reach 16x16, more than the image"),
        ({"scales": 2}, "13x18 pixels at 2 scales reach 26x36"),
    ],
)
def test_a_patch_larger_than_the_image_is_refused(given, says):
    module = attn.create("glimpse_sensor", **given)
    with pytest.raises(settings.Invalid, match=says):
        module.apply({}, images(), train=False)


def test_no_patches_are_refused():
    with pytest.raises(settings.Invalid, match=r"'scales' .* a positive int, got 0"):
        attn.create("glimpse_sensor", scales=0)
