"""Normalisation: its constants, and that pictures undo it."""

import numpy as np
import pytest

from attn import data
from attn.data.images import normalise

# torchvision's references and examples, and what CIFAR's training code has in common.
LITERAL = {
    "imagenet2012": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "coco": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "coco_captions": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "coco_keypoints": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "voc": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "mnist_5k": ((0.1309,), (0.3080,)),
    "digits_scene": ((0.338, 0.338, 0.338), (0.184, 0.184, 0.184)),
    "photos": ((0.461, 0.375, 0.332), (0.299, 0.248, 0.256)),
    "skeletons": ((0.371, 0.371, 0.371), (0.220, 0.220, 0.220)),
}


def test_constants_are_those_of_published_code():
    assert normalise.STATISTICS == LITERAL


def test_known_sets_have_their_constants_by_channel():
    pixels = np.array([[[255, 0, 51]]], np.uint8)
    result = normalise.normalise(pixels, normalise.statistics("cifar10", 3))
    expected = [(1 - 0.4914) / 0.2470, (0 - 0.4822) / 0.2435, (0.2 - 0.4465) / 0.2616]
    np.testing.assert_allclose(result[0, 0], expected, rtol=1e-5)
    assert result.dtype == np.float32


@pytest.mark.parametrize("name", ["coco/2017", "coco:1.1.0", "coco/2017:1.1.0"])
def test_config_and_version_do_not_count(name):
    assert normalise.statistics(name, 3) == LITERAL["coco"]


@pytest.mark.parametrize("channels", [1, 3])
def test_other_sets_go_from_minus_one_to_one(channels):
    pixels = np.array([0, 255], np.uint8)[:, None].repeat(channels, 1)
    result = normalise.normalise(pixels, normalise.statistics("something", channels))
    np.testing.assert_allclose(result, [[-1] * channels, [1] * channels], atol=1e-6)


def test_digits_in_several_channels_have_the_constants_of_digits():
    one = normalise.statistics("mnist_5k", 1)
    assert normalise.statistics("mnist_5k", 2) == (one.mean * 2, one.deviation * 2)
    assert normalise.statistics("cifar10", 3).mean == (0.4914, 0.4822, 0.4465)


def opened(directory, **settings):
    config = {"name": "mnist_5k", "test": "test[:5]", "directory": directory}
    dataset = data.open({**config, "transforms": settings})
    (batch,) = dataset.split("test", 5)
    return dataset, batch["image"]


def test_images_are_normalised_behind_all_transforms_or_where_the_config_says(
    directory,
):
    _, plain = opened(directory)
    dataset, unit = opened(directory, normalise={"mean": [0.0], "deviation": [1.0]})
    assert unit.min() == 0 and unit.max() == 1
    np.testing.assert_allclose(plain, (unit - 0.1309) / 0.3080, atol=1e-5)
    np.testing.assert_allclose(dataset.picture(unit), unit, atol=1e-6)
    padded = {"name": "crop", "padding": 2, "size": 32}
    for order in (0, 2):  # black is 0 before it is normalised, and the mean behind
        entries = {"pad": padded | {"order": order}, "normalise": {"order": 1}}
        dataset, image = opened(directory, **entries)
        corner = dataset.picture(image)[:, 0, 0, 0]
        np.testing.assert_allclose(corner, 0.1309 if order == 2 else 0, atol=1e-5)


def test_a_picture_is_of_what_normalises_images(directory):
    two = {
        "normalise": {"order": 1},
        "other": {"name": "normalise", "mean": [0], "deviation": [1], "order": 2},
    }
    config = {"name": "photos", "directory": directory}
    plain = data.open(config).first()["image"]
    noisy = {"noise": {"order": 0, "into": "clean", "deviation": 0.0}}
    two["other"]["fields"] = ["clean"]
    dataset = data.open({**config, "transforms": noisy | two})
    batch = next(iter(dataset.split("test", 1)))
    first = data.open(config).sources["test"].read(batch["index"], None)["image"]
    shown = dataset.picture(batch["image"])
    np.testing.assert_allclose(shown, np.asarray(first) / 255, atol=1e-5)
    assert plain.shape[1:] == shown.shape[1:]


def test_picture_undoes_it_and_cuts_off():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    known = normalise.statistics("imagenet2012", 3)
    image = normalise.normalise(pixels, known)
    np.testing.assert_allclose(normalise.picture(image, known), pixels / 255, atol=1e-6)
    assert normalise.picture(np.full((1, 1, 3), 99.0), known).max() == 1
    assert normalise.picture(np.full((1, 1, 3), -99.0), known).min() == 0
