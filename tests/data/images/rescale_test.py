"""Images resized by their shorter side against the published code, written out."""

import numpy as np
import pytest

from attn import data, settings
from attn.data.images import rescale
from attn.data.order import uniform
from attn.data.source import abstract
from tests.data.streams import taken

SIZES = np.random.default_rng(0).integers(20, 900, (200, 2))
SMALL = {
    "sides": (24, 31, 40),
    "longest": 57,
    "before": (20, 25),
    "parts": (17, 26),
    "shorter": 35,
}
# Settings of the transforms that change the size of images; others have defaults.
RESIZING = {
    "patches": {"size": 13, "fields": ("image",)},
    "crop": {"size": 11},
    "multi_scale": SMALL,
    "random_resized_crop_flip": {"size": 19},
    "resize_pad": {"size": 23},
    "resize_shorter": {"shorter": 30, "longest": 41},
}


def published(height, width, size, max_size=None):
    """`get_size_with_aspect_ratio` of the published code."""
    if max_size is not None:
        least, most = float(min(width, height)), float(max(width, height))
        if most / least * size > max_size:
            size = round(max_size * least / most)
    if (width <= height and width == size) or (height <= width and height == size):
        return height, width
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


@pytest.mark.parametrize(
    "side, longest", [(800, 1333), (57, 60), (480, None), (30, 40)]
)
def test_sizes_are_those_of_the_published_code(side, longest):
    found = rescale.resized(SIZES, np.array(side), longest)
    assert found.min() > 0
    for (height, width), new in zip(SIZES.tolist(), found.tolist(), strict=True):
        expected = published(height, width, side, longest)
        assert tuple(new) == expected


def test_half_of_the_images_lose_what_is_outside_of_a_part():
    transform = rescale.MultiScale()
    sizes = np.repeat(SIZES + 100, 20, axis=0)
    draws = uniform(3, 1, 0, len(sizes), transform.draws({}))
    plan = transform.plan(sizes, draws)
    cut = (plan.part != plan.size).any(axis=1) | (plan.size != sizes).any(axis=1)
    assert cut.mean() == pytest.approx(0.5, abs=0.03)
    assert {*plan.size[cut].min(axis=1).tolist()} == {400, 500, 600}
    low, high = plan.part[cut].min(), plan.part[cut].max()
    assert 384 <= low < 390 and 590 < high <= 600
    assert (plan.corner >= 0).all() and (plan.corner + plan.part <= plan.size).all()
    room = (plan.size - plan.part - plan.corner)[cut]
    assert (room == 0).any(axis=0).all() and (plan.corner[cut] == 0).any(axis=0).all()
    # height and width are drawn apart, and so are row and column
    for pair in (plan.part[cut], plan.corner[cut] / (plan.size - plan.part + 1)[cut]):
        assert abs(np.corrcoef(pair.T)[0, 1]) < 0.2
    # the shorter side, rounded, may make the longer one a little longer than asked
    shorter, longer = plan.final.min(axis=1), plan.final.max(axis=1)
    known = np.isin(shorter, range(480, 801, 32))
    assert (known | (longer >= 1330)).all() and longer.max() <= 1335
    assert {*shorter[known].tolist()} == set(range(480, 801, 32))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_parts_come_never_or_always(share):
    transform = rescale.MultiScale(**SMALL, crop=share)
    sizes = np.tile([[70, 50]], (500, 1))
    plan = transform.plan(sizes, uniform(1, 1, 0, 500, 7))
    assert ((plan.part == sizes).all(axis=1) == (share == 0)).all()


def test_an_image_smaller_than_a_part_is_its_own_part():
    transform = rescale.MultiScale(crop=1.0, before=(10,), parts=(384, 600))
    plan = transform.plan(np.array([[30, 20]]), np.full((1, 7), 0.9))
    assert plan.part.tolist() == [[15, 10]] and plan.corner.tolist() == [[0, 0]]


@pytest.mark.parametrize("name", sorted(data.TRANSFORMS))
@pytest.mark.parametrize("train", [True, False])
def test_sizes_are_known_before_images_are_read(name, train):
    transform = data.TRANSFORMS[name](**RESIZING.get(name, {}))
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (6, 33, 27, 3), dtype=np.uint8)
    if name == "normalise":
        transform = data.TRANSFORMS[name](mean=(0.5,), deviation=(0.5,))
    batch = {"image": images}
    draws = uniform(2, 1, 0, 6, transform.draws(abstract(batch)))
    sizes = np.tile([[33, 27]], (6, 1))
    if train:
        found, known = transform.apply(batch, draws), transform.sizes(sizes, draws)
    else:
        alike = transform.splits == "all"
        found = transform.apply(batch, draws) if alike else transform.otherwise(batch)
        known = transform.sizes(sizes, None)
    assert [list(image.shape[:2]) for image in found["image"]] == known.tolist()


def test_scenes_of_digits_are_augmented_with_all_that_is_in_them(directory):
    transforms = {
        "flip": {"order": 1},
        "multi_scale": {
            "order": 2,
            "sides": [60, 90],
            "longest": 160,
            "before": [80],
            "parts": [30, 70],
            "shorter": 96,
        },
    }
    config = {"name": "digits_scene", "canvas": 96, "directory": directory}
    dataset = data.open({**config, "test": "test[:20]", "transforms": transforms})
    names = tuple("0123456789")
    most = (5, "a scene")
    facts = {"num_classes": 10, "class_names": names, "max_objects": most}
    assert facts.items() <= dataset.facts.items()
    (test,) = taken(dataset.split("test", 20))
    assert test["image"].shape == (20, 96, 96, 3) and test["image_mask"].all()
    seen = 0
    for batch in taken(dataset.train(8, seed=0), 10):
        assert batch["objects"].shape == batch["image"].shape[:3]
        assert not batch["objects"][~batch["image_mask"]].any()
        np.testing.assert_array_equal(batch["labels"] >= 0, batch["boxes_mask"])
        parts = zip(batch["objects"], batch["boxes"], batch["image_mask"], strict=True)
        for objects, (box, *_), mask in parts:
            height, width = mask.any(axis=1).sum(), mask.any(axis=0).sum()
            whole = box.min() > 0 and box[2] < width and box[3] < height
            if whole:  # of a digit that is cut off, ink may be nowhere near the edges
                rows, columns = np.nonzero(objects)
                tight = [columns.min(), rows.min()]
                tight += [columns.max() + 1, rows.max() + 1]
                np.testing.assert_allclose(box, tight, atol=3)
                seen += 1
    assert seen > 40


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("multi_scale", {"sides": []}, "sides needs at least one length"),
        ("multi_scale", {"sides": [0]}, r"'sides' .* positive int.* got \[0\]"),
        ("multi_scale", {"longest": 700}, "longest must be at least .* 800, got 700"),
        ("multi_scale", {"parts": [9, 5]}, "parts is not a range: 9 to 5"),
        ("multi_scale", {"splits": "all"}, "splits must be 'train', got 'all'"),
        ("multi_scale", {"crop": 2.0}, r"a number in \[0, 1\], got 2.0"),
        ("resize_shorter", {"splits": "train"}, "splits must be 'all', got 'train'"),
        ("resize_shorter", {"shorter": 1400}, "at least the shorter side 1400"),
    ],
)
def test_wrong_settings_are_refused(name, given, message):
    with pytest.raises(settings.Invalid, match=message):
        data.check({"name": "photos", "transforms": {name: given}})
