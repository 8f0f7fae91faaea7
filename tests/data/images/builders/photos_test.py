"""The patches that were prepared are those of the photographs, and the splits apart."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from attn.data.images import labelled
from attn.data.images.builders import photos

NAMES = list(photos.PHOTOGRAPHS)


def places(name, *, train):
    size = photos.photograph(name).size
    return photos.places(*size, NAMES.index(name), train=train)


def covered(name, *, train):
    """How many patches of a split have each pixel: [H, W]."""
    width, height = photos.photograph(name).size
    count = np.zeros((height, width), int)
    for left, top, side in places(name, train=train):
        assert min(left, top) >= 0
        assert left + side <= width and top + side <= height
        count[top : top + side, left : left + side] += 1
    return count


@pytest.mark.parametrize("name", NAMES)
def test_no_pixel_is_in_both_splits(name):
    train, test = (covered(name, train=train) > 0 for train in (True, False))
    assert not (train & test).any()
    # and yet they show most of the photograph
    assert train.mean() > 0.65 and test.mean() > 0.2


@pytest.mark.parametrize("name", ["cat", "rocket"])
def test_patches_have_every_size_and_small_ones_are_as_common_as_large_ones(name):
    side = places(name, train=True)[:, 2]
    assert side.min() == 48 and 94 <= side.max() <= 96
    # On a logarithmic scale: half below the geometric mean.
    assert np.mean(side < np.sqrt(48 * 97)) == pytest.approx(0.5, abs=0.07)


def test_patches_of_no_two_photographs_or_splits_are_drawn_alike():
    drawn = [
        photos.places(640, 427, n, train=train)[:9]
        for n in range(7)
        for train in (True, False)
    ]
    sides = {tuple(one[:, 2]) for one in drawn}  # places depend on the cells too
    assert len(sides) == len(drawn)
    again = photos.places(640, 427, 0, train=True)[:9]
    np.testing.assert_array_equal(again, drawn[0])


def test_photographs_are_the_colour_ones_of_the_packages():
    sizes = [photos.photograph(name).size for name in NAMES]
    assert sizes == [
        *[(512, 512), (451, 300), (600, 400), (640, 427)],
        *[(741, 500), (640, 427), (640, 427)],
    ]
    for name in NAMES:
        pixels = np.asarray(photos.photograph(name), int)
        assert np.abs(pixels[..., 0] - pixels[..., 2]).mean() > 5  # not grey


@pytest.mark.parametrize("split, count", [("train", 600), ("test", 150)])
def test_prepared_patches_are_balanced(directory, split, count):
    found = labelled.open_split("photos", split, directory)
    assert found.pixels.shape == (7 * count, 48, 48, 3)
    assert found.class_names == tuple(NAMES)
    assert np.bincount(found.labels).tolist() == [count] * 7
    assert "tensorflow" not in sys.modules


def test_fit_and_validation_are_train_and_share_no_pixel(directory):
    found = {
        split: labelled.open_split("photos", split, directory)
        for split in ("train", "fit", "validation")
    }
    keys = {
        split: sorted(image.tobytes() for image in images.pixels)
        for split, images in found.items()
    }
    assert sorted(keys["fit"] + keys["validation"]) == keys["train"]
    counts = np.bincount(found["validation"].labels)
    assert (
        found["validation"].size == 976 and 110 <= counts.min() <= counts.max() <= 160
    )
    for number, name in enumerate(NAMES):
        width, height = photos.photograph(name).size
        at, cell = photos._places(width, height, number, train=True)
        held = np.isin(cell, photos.VALIDATION_CELLS)
        assert held.sum() == counts[number]
        seen = np.zeros((2, height, width), bool)
        for (left, top, side), part in zip(at.tolist(), held.astype(int), strict=True):
            seen[part, top : top + side, left : left + side] = True
        assert not seen.all(axis=0).any()


@pytest.mark.parametrize("name", ["dahlia", "motorcycle"])
def test_prepared_patches_are_the_places_of_their_photograph(directory, name):
    test = labelled.open_split("photos", "test", directory)
    found = test.pixels[test.labels == NAMES.index(name)].astype(np.float32)
    picture = photos.photograph(name)
    expected = [
        picture.resize(
            (48, 48),
            Image.Resampling.BILINEAR,
            (left, top, left + side, top + side),
        )
        for left, top, side in places(name, train=False).tolist()
    ]
    expected = np.stack([np.asarray(image, np.float32) for image in expected])
    # The order is that of TFDS: each has one that is it, but for JPEG's losses.
    flat = [images.reshape(150, -1) for images in (found, expected)]
    square = [np.sum(images**2, axis=1) for images in flat]
    distance = square[0][:, None] + square[1] - 2 * flat[0] @ flat[1].T
    nearest = distance.argmin(axis=1)
    assert np.abs(found - expected[nearest]).mean(axis=(1, 2, 3)).max() < 6
    assert len(set(nearest)) > 145  # of the plainest some may be taken for another


def test_it_is_a_builder_of_tfds(directory):
    builder = tfds.builder("photos", data_dir=directory)
    assert builder.info.splits["train"].num_examples == 4200
    assert builder.info.features["label"].names == NAMES
