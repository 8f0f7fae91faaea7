"""Where the object is: the ink of the digit, and of nothing else."""

import numpy as np
import pytest

from attn import data
from attn.data.digits.compositions import COMPOSITIONS
from attn.data.digits.distortions import DISTORTIONS
from attn.data.digits.pool import Pool
from attn.data.order import uniform
from tests.data.digits import pool

LABELS = (np.arange(24) * 7 % 10).astype(np.int32)


def composed(name, digits, count=40):
    entry = COMPOSITIONS[name]
    draws = uniform(1, 1, 0, count, entry.draws)
    return entry.apply(Pool(digits, LABELS), np.arange(count) % len(digits), draws)


@pytest.mark.parametrize("name", sorted(DISTORTIONS))
def test_the_ink_of_a_distorted_digit_is_the_object(name):
    entry, digits = DISTORTIONS[name], pool.digits()
    rows, draws = np.arange(40) % 24, uniform(1, 1, 0, 40, entry.draws)
    image = entry.apply(digits, rows, draws)
    found = entry.objects(digits, rows, draws, image)
    assert found.shape == (40, entry.size, entry.size) and found.dtype == bool
    if name in (
        "tc",
        "cluttered",
    ):  # among patches the same as without: of other digits, all black
        rows, alone = np.zeros(40, int), digits.copy()
        alone[1:] = 0
        cluttered = entry.apply(digits, rows, draws)
        found = entry.objects(digits, rows, draws, cluttered)
        image = entry.apply(alone, rows, draws)
    np.testing.assert_array_equal(found, image[..., 0] >= 64)
    assert found.any(axis=(1, 2)).all()


def test_the_largest_digit_of_a_scene_is_the_object():
    digits = pool.digits()
    batch = composed("scene", digits)
    digits = digits.copy()
    digits[digits > 0] = 255
    for mask, boxes in zip(batch["objects"], batch["boxes"], strict=True):
        rows, columns = np.nonzero(mask)
        x0, y0, x1, y1 = boxes[0].astype(int)
        tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(tight, (x0, y0, x1, y1), atol=1)
        assert mask[y0:y1, x0:x1].mean() > 0.9  # the digits of the pool are full
    np.testing.assert_array_equal(batch["boxes_mask"], batch["labels"] >= 0)
    np.testing.assert_array_equal(batch["caption_mask"], batch["caption"] > 0)


@pytest.mark.parametrize("name", ["addition", "number"])
def test_all_digits_of_other_compositions_are_the_object(name):
    batch = composed(name, pool.digits())
    expected = (batch["image"] >= 64).any(axis=-1)
    np.testing.assert_array_equal(batch["objects"], expected)


def test_a_dataset_gives_the_objects_of_a_batch(directory):
    for config, known in (
        ({"name": "mnist_5k"}, True),
        ({"name": "mnist_5k", "distortion": "rts"}, True),
        ({"name": "mnist_5k", "distortion": "rts", "transforms": {"flip": {}}}, True),
        ({"name": "photos"}, False),
    ):
        dataset = data.open({**config, "directory": directory, "test": "test[:7]"})
        (batch,) = dataset.split("test", 7)
        found = dataset.objects(batch)
        if known:
            picture = dataset.picture(batch["image"])[..., 0]
            np.testing.assert_array_equal(found, picture >= 63.9 / 255)
        else:
            assert found is None
