"""Batches: the same wherever a run starts, however it is cut, on any machine."""

import threading

import numpy as np
import pytest

from attn import data
from attn.data import order
from attn.data.digits.distortions import DISTORTIONS
from attn.data.images import labelled
from tests.data.streams import taken


def opened(directory, **config):
    return data.open({"name": "mnist_5k", "directory": directory, **config})


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


CHANGES = [
    {},
    {"distortion": "r"},
    {"distortion": "e"},
    {"distortion": "tc"},
    {"transforms": {"pad_crop_flip": {}}},
    {"transforms": {"random_resized_crop_flip": {"size": 20}}},
    {"composition": "addition"},
    {"composition": "number", "canvas": 40},
    {"composition": "scene", "canvas": 40},
    {"distortion": "r", "transforms": {"noise": {"splits": "all"}}},
]
# What is in a batch of scenes beside what all have: shape after B, and type.
EXTRAS = {
    "boxes": ((5, 4), "float32"),
    "boxes_mask": ((5,), "bool"),
    "labels": ((5,), "int32"),
    "caption": ((23,), "int32"),
    "caption_mask": ((23,), "bool"),
    "target": ((23,), "int32"),
    "target_mask": ((23,), "bool"),
    "target_in": ((23,), "int32"),
    "named": ((23,), "int32"),
}


@pytest.fixture(params=CHANGES, ids=lambda change: "-".join(map(str, change.values())))
def dataset(request, directory):
    return opened(directory, **request.param)


def test_batches_have_their_shapes_and_types(dataset, directory):
    (batch,) = taken(dataset.train(6, seed=0), 1)
    extras = {key: batch.pop(key) for key in EXTRAS if key in batch}
    shape = dataset.example()["image"].shape
    assert batch["image"].shape == (6, *shape)
    assert batch["objects"].shape == (6, *shape[:2])
    assert {key: value.dtype.name for key, value in batch.items()} == {
        "image": "float32",
        "label": "int32",
        "objects": "bool",
        "index": "int64",
    }
    assert (dataset.size("train"), dataset.size("test")) == (4000, 1000)
    names = dataset.facts["class_names"]
    assert batch["label"].max() < dataset.facts["num_classes"] == len(names)
    found = {key: (v.shape[1:], v.dtype.name) for key, v in extras.items()}
    assert found == (EXTRAS if shape == (40, 40, 3) else {})
    first = {(42, 42, 2): None, (40, 40, 1): np.s_[:, 0]}.get(shape, ...)
    if first is not None:  # sums say nothing of one digit
        digits = labelled.open_split("mnist_5k", "train", directory).labels
        digits = digits[batch["index"]]
        np.testing.assert_array_equal(batch["label"][first], digits)


def test_a_run_goes_on_where_it_stopped(dataset):
    whole = taken(dataset.train(8, seed=3), 6)
    for start in (1, 5):
        for one, other in zip(
            taken(dataset.train(8, seed=3, start=start), 6 - start),
            whole[start:],
            strict=True,
        ):
            assert_same(one, other)


@pytest.mark.parametrize("count", [2, 4])
def test_shards_are_the_parts_of_the_global_batch(dataset, count):
    make = [
        lambda shard: dataset.train(8, seed=1, start=2, shard=shard),
        lambda shard: dataset.split("test", 8, shard=shard),
    ]
    for batches in make:
        (whole,) = taken(batches((0, 1)), 1)
        parts = [taken(batches((i, count)), 1)[0] for i in range(count)]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in whole}
        assert_same(joined, whole)


def test_same_seed_same_batches_other_seed_other_ones(dataset):
    one, same, other = (taken(dataset.train(8, seed=s), 1)[0] for s in (0, 0, 1))
    assert_same(one, same)
    assert not np.array_equal(one["index"], other["index"])
    assert not np.array_equal(one["image"], other["image"])


def test_batch_size_does_not_change_the_stream(dataset):
    whole = taken(dataset.train(8, seed=1), 3)
    halves = taken(dataset.train(4, seed=1), 6)
    for key in whole[0]:
        np.testing.assert_array_equal(
            *(np.concatenate([batch[key] for batch in run]) for run in (whole, halves))
        )


def test_each_epoch_has_every_example_once(directory):
    batches = taken(opened(directory).train(500, seed=0), 17)
    stream = np.concatenate([batch["index"] for batch in batches])
    first, second = stream[:4000], stream[4000:8000]
    np.testing.assert_array_equal(np.sort(first), np.arange(4000))
    np.testing.assert_array_equal(np.sort(second), np.arange(4000))
    assert not np.array_equal(first, second)


def test_an_example_is_distorted_anew_in_each_epoch(directory):
    dataset = opened(directory, train="train[:4]", distortion="r")
    one, two = taken(dataset.train(4, seed=0), 2)
    images = [b["image"][np.argsort(b["index"])] for b in (one, two)]
    assert (np.abs(images[0] - images[1]).max(axis=(1, 2, 3)) > 0.5).all()


def test_an_image_is_the_one_that_its_index_names(directory):
    dataset = opened(directory)
    (batch,) = taken(dataset.train(5, seed=0), 1)
    pixels = labelled.open_split("mnist_5k", "train", directory).pixels
    expected = pixels[batch["index"]]
    np.testing.assert_allclose(
        dataset.picture(batch["image"]), expected / 255, atol=1e-6
    )


@pytest.mark.parametrize("name, near", [("mnist_5k", 1e-3), ("photos", 5e-3)])
def test_training_images_are_normal(directory, name, near):
    dataset = opened(directory, name=name)
    (batch,) = taken(dataset.train(dataset.size("train"), seed=0), 1)
    np.testing.assert_allclose(batch["image"].mean((0, 1, 2), np.float64), 0, atol=near)
    np.testing.assert_allclose(batch["image"].std((0, 1, 2), np.float64), 1, atol=near)


def test_scenes_are_normal(directory):
    (batch,) = taken(opened(directory, name="digits_scene").train(512, seed=0), 1)
    np.testing.assert_allclose(batch["image"].mean(axis=(0, 1, 2)), 0, atol=0.03)
    np.testing.assert_allclose(batch["image"].std(axis=(0, 1, 2)), 1, atol=0.03)


def test_a_composition_takes_digits_of_its_own_split_only(directory):
    ends = {"train": "train[:3]", "test": "test[:3]"}
    for composition in ("number", "scene"):
        dataset = opened(directory, composition=composition, canvas=32, **ends)
        for split, batches in (
            ("train[:3]", dataset.train(60, seed=0)),
            ("test[:3]", dataset.split("test", 3)),
        ):
            (batch,) = taken(batches, 1)
            labels = batch.get("labels", batch["label"])
            known = labelled.open_split("mnist_5k", split, directory).labels
            assert set(labels.ravel()) - {-1, 10} <= set(known)


def test_two_channels_become_a_picture_of_red_and_cyan(directory):
    dataset = opened(directory, composition="addition")
    (batch,) = taken(dataset.split("test", 3), 1)
    picture = dataset.picture(batch["image"])
    assert picture.shape == (3, 42, 42, 3)
    plain = batch["image"] * 0.3080 + 0.1309
    np.testing.assert_allclose(picture[..., 0], plain[..., 0], atol=1e-5)
    for channel in (1, 2):
        np.testing.assert_allclose(picture[..., channel], plain[..., 1], atol=1e-5)


def test_testing_goes_once_through_the_split_and_pads(directory):
    dataset = opened(directory, distortion="rts", test="test[:10]")
    with dataset.split("test", 4) as batches:
        batches = list(batches)
    assert [batch["image"].shape for batch in batches] == [(4, 42, 42, 1)] * 3
    joined = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    np.testing.assert_array_equal(joined["index"], [*range(10), -1, -1])
    np.testing.assert_array_equal(joined["weight"], [1] * 10 + [0] * 2)
    assert joined["weight"].dtype == np.float32
    known = labelled.open_split("mnist_5k", "test[:10]", directory).labels
    np.testing.assert_array_equal(joined["label"][:10], known)
    assert np.isfinite(joined["image"]).all()


def test_testing_shows_the_same_pictures_at_every_batch_size(directory):
    dataset = opened(directory, distortion="r", test="test[:12]")
    whole = taken(dataset.split("test", 12), 1)[0]["image"]
    parts = [batch["image"] for batch in taken(dataset.split("test", 3), 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_each_draw_of_the_test_split_distorts_it_otherwise(directory):
    once, thrice = (
        opened(
            directory,
            distortion="r",
            validation="train[:5]",
            test="test[:5]",
            test_draws=draws,
        )
        for draws in (1, 3)
    )
    assert (thrice.size("validation"), thrice.size("test")) == (5, 15)
    with thrice.split("test", 4) as batches:
        batches = list(batches)
    joined = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
    np.testing.assert_array_equal(joined["index"], [*range(5)] * 3 + [-1])
    np.testing.assert_array_equal(joined["weight"], [1] * 15 + [0])
    np.testing.assert_array_equal(joined["label"][:5], joined["label"][10:15])
    first = taken(once.split("test", 5), 1)[0]["image"]
    np.testing.assert_array_equal(joined["image"][:5], first)
    for k in range(5):
        assert not np.array_equal(joined["image"][k], joined["image"][5 + k])
        assert not np.array_equal(joined["image"][5 + k], joined["image"][10 + k])


def test_each_split_has_its_own_numbers(directory):
    dataset = opened(directory, distortion="r", validation="train[:6]", test="test[:6]")
    assert dataset.splits == ("validation", "test")
    assert opened(directory).splits == ("test",)
    splits = {"validation": "train[:6]", "test": "test[:6]"}
    for number, name in ((2, "test"), (3, "validation")):
        assert dataset.size(name) == 6
        source = labelled.open_split("mnist_5k", splits[name], directory)
        (batch,) = taken(dataset.split(name, 6), 1)
        draws = order.uniform(0, number, 0, 6, 1)
        images = DISTORTIONS["r"].apply(source.pixels, np.arange(6), draws)
        np.testing.assert_allclose(
            dataset.picture(batch["image"]), images / 255, atol=1e-6
        )
        np.testing.assert_array_equal(batch["label"], source.labels)
    assert len({order.ORDER, order.TRAIN, order.TEST, order.VALIDATION}) == 4


@pytest.mark.parametrize(
    "split, valid", [("validation", "test"), ("train", "test"), ("tset", "test")]
)
def test_a_split_that_is_not_there_names_those_that_are(directory, split, valid):
    with pytest.raises(ValueError, match=rf"unknown split '{split}'.*valid: {valid}\)"):
        opened(directory).split(split, 4)
    with pytest.raises(ValueError, match=r"valid: train, test\)"):
        opened(directory).size("validation")


def test_the_example_is_a_batch_without_its_length(dataset):
    (batch,) = taken(dataset.split("test", 3), 1)
    expected = {
        name: (array.shape[1:], array.dtype)
        for name, array in batch.items()
        if name not in ("index", "weight")
    }
    assert dataset.example() == expected


def test_several_draws_need_something_to_draw(directory):
    with pytest.raises(ValueError, match="test_draws=3 needs examples that are drawn"):
        opened(directory, test_draws=3)


def test_augmentation_leaves_testing_alone(directory):
    plain, augmented = (
        taken(opened(directory, transforms=transforms).split("test", 5), 1)[0]
        for transforms in ({}, {"pad_crop_flip": {}})
    )
    assert_same(plain, augmented)


@pytest.mark.parametrize("method", ["train", "test"])
def test_shards_must_divide_the_batch(directory, method):
    dataset = opened(directory)
    call = {
        "train": lambda shard: dataset.train(10, seed=0, shard=shard),
        "test": lambda shard: dataset.split("test", 10, shard=shard),
    }[method]
    with pytest.raises(ValueError, match=r"batch size 10 must be .* shards 4"):
        call((0, 4))
    with pytest.raises(ValueError, match=r"0 <= i < n, got \(2, 2\)"):
        call((2, 2))


def test_numbers_out_of_range_are_refused(directory):
    dataset = opened(directory)
    with pytest.raises(ValueError, match="batch size 0"):
        dataset.train(0, seed=0)
    with pytest.raises(ValueError, match=r"seed must be 0 to .*, got -1"):
        dataset.train(4, seed=-1)
    with pytest.raises(ValueError, match=r"start .* got -2"):
        dataset.train(4, seed=0, start=-2)


def test_closing_ends_the_threads(directory):
    dataset = opened(directory)
    before = threading.active_count()
    batches = dataset.train(4, seed=0)
    next(batches)
    assert threading.active_count() > before  # batches are made ahead
    batches.close()
    batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(timeout=10)
    assert threading.active_count() == before


PATCHES = {"name": "degraded", "scale": 4, "transforms": {"patches": {"size": 7}}}
SCALES = {
    "sides": [30, 45],
    "longest": 90,
    "before": [40],
    "parts": [20, 30],
    "shorter": 40,
}


@pytest.mark.parametrize(
    ("config", "one"),
    [
        ({"distortion": "r"}, True),
        ({"name": "sequences"}, False),
        ({"name": "sequences", "buckets": 1}, True),
        ({"name": "sequences", "row_length": 30}, True),
        (PATCHES, True),
        ({"name": "digits_scene", "transforms": {"multi_scale": SCALES}}, False),
    ],
)
def test_training_batches_are_known_to_have_one_shape(config, one):
    dataset = data.open({"name": "mnist_5k", **config})
    shapes = {
        tuple(sorted((name, value.shape) for name, value in batch.items()))
        for seed in (0, 1)
        for batch in taken(dataset.train(2, seed=seed), 12)
    }
    assert dataset.one_shape == (len(shapes) == 1) == one
