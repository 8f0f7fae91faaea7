"""Augmentations against what torchvision and the papers describe."""

import numpy as np
import pytest
from PIL import Image

from attn.data import augment
from attn.data.order import uniform

LAST = 1 - 2**-53


def images(count, height=9, width=7, channels=3):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def test_pad_crop_flip_is_pad_crop_flip():
    batch, draws = images(40), uniform(1, 1, 0, 40, 3)
    result = augment.pad_crop_flip(batch, draws, (9, 7))
    for image, (u, v, flip), crop in zip(batch, draws, result, strict=True):
        padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
        expected = padded[int(9 * u) : int(9 * u) + 9, int(9 * v) : int(9 * v) + 7]
        np.testing.assert_array_equal(
            crop, np.fliplr(expected) if flip < 0.5 else expected
        )
    corners = {tuple((draw[:2] * 9).astype(int)) for draw in uniform(1, 1, 0, 4000, 3)}
    assert len(corners) == 81  # every crop can happen, the outermost ones included


@pytest.mark.parametrize("channels", [1, 3])
def test_random_resized_crop_is_crop_then_resize_then_flip(channels):
    batch = [images(1, 31 + i, 47 - i, channels)[0] for i in range(8)]
    draws = uniform(2, 1, 0, 8, 23)
    result = augment.random_resized_crop_flip(batch, draws, (12, 10))
    assert result.shape == (8, 12, 10, channels) and result.dtype == np.uint8
    for image, draw, crop in zip(batch, draws, result, strict=True):
        top, left, height, width = augment.random_part(*image.shape[:2], draw)
        picture = Image.fromarray(image if channels == 3 else image[..., 0])
        picture = picture.crop((left, top, left + width, top + height))
        expected = np.asarray(picture.resize((10, 12), Image.Resampling.BILINEAR))
        expected = expected.reshape(12, 10, channels)
        np.testing.assert_array_equal(
            crop, np.fliplr(expected) if draw[-1] < 0.5 else expected
        )


def test_random_parts_have_the_papers_areas_and_ratios():
    parts = np.array(
        [augment.random_part(400, 500, d) for d in uniform(0, 1, 0, 3000, 23)]
    )
    top, left, height, width = parts.T
    assert (top >= 0).all() and (top + height <= 400).all()
    assert (left >= 0).all() and (left + width <= 500).all()
    area, ratio = height * width / (400 * 500), width / height
    assert 0.078 < area.min() < 0.09 and 0.95 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    # On a logarithmic scale: as many wide as high ones, among the small that all fit.
    assert np.mean(ratio[area < 0.5] > 1) == pytest.approx(0.5, abs=0.05)


def test_a_part_may_touch_every_edge():
    draws = np.full(23, LAST)
    draws[:20] = np.tile([0.3, 0.5], 10)
    top, left, height, width = augment.random_part(30, 40, draws)
    assert (top + height, left + width) == (30, 40)


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (10, 100, (0, 43, 10, 13)),
        (100, 10, (43, 0, 13, 10)),
    ],
)
def test_a_part_that_never_fits_is_the_largest_central_one(height, width, expected):
    draws = np.full(23, LAST)  # the whole area at ratio 4/3, which cannot fit
    assert augment.random_part(height, width, draws) == expected


def test_the_first_pair_that_fits_is_taken():
    draws = np.full(23, LAST)
    draws[4:6] = 0.0, 0.5  # the third pair: 8 % of the area, square
    _, _, height, width = augment.random_part(100, 100, draws)
    assert (height, width) == (28, 28)


def test_evaluation_takes_the_centre_of_the_resized_image():
    batch = images(1, 60, 90)
    (result,) = augment.centre_crops(batch, (21, 21), 256 / 224)
    picture = Image.fromarray(batch[0]).resize((36, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(result, np.asarray(picture.crop((7, 1, 28, 22))))


def test_images_of_the_right_size_are_left_alone():
    batch = images(3)
    assert augment.centre_crops(batch, (9, 7)) is batch
    assert augment.plain(batch, np.zeros((3, 0)), (9, 7)) is batch
    result = augment.centre_crops(list(batch), (9, 7))
    np.testing.assert_array_equal(result, batch)


@pytest.mark.parametrize("name", sorted(augment.AUGMENTATIONS))
def test_sizes_may_differ_and_the_table_says_the_draws(name):
    mixed = [images(1, *shape)[0] for shape in ((5, 9), (30, 8), (16, 16), (17, 16))]
    entry = augment.AUGMENTATIONS[name]
    draws = uniform(0, 1, 0, 4, entry.draws)
    result = entry.train(iter(mixed), draws, (16, 16))
    assert result.shape == (4, 16, 16, 3) and result.dtype == np.uint8
    alone = entry.train(iter(mixed[2:3]), draws[2:3], (16, 16))
    np.testing.assert_array_equal(alone[0], result[2])
