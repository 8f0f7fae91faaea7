"""Pathfinder: what is joined, by distances between dashes alone."""

import itertools
import math

import numpy as np
import pytest

from attn import data, settings
from attn.data import order
from attn.data.text import pathfinder
from attn.data.text.pathfinder import Pathfinder

SMALL = Pathfinder(side=28, dashes=4, others=3)


def drawn():
    """The random numbers of the training images."""
    return order.endless(pathfinder.SEED, order.TRAIN, pathfinder.BLOCK, "pathfinder")


@pytest.fixture(scope="module")
def scenes():
    draws = drawn()
    return [pathfinder.scene(draws, SMALL) for _ in range(120)]


def components(dashes):
    """A number for each dash, the same where dashes nearly touch."""
    number = list(range(len(dashes)))
    for one, other in itertools.combinations(range(len(dashes)), 2):
        near = min(
            math.dist(a, b) for a, b in itertools.product(dashes[one], dashes[other])
        )
        if near < (pathfinder.GAP + pathfinder.APART) / 2:
            old, new = number[one], number[other]
            number = [new if n == old else n for n in number]
    return number


def test_dots_are_joined_where_dashes_lead_from_one_to_the_other(scenes):
    for paths, dots, joined in scenes:
        dashes = [dash for path in paths for dash in path]
        assert [len(path) for path in paths] == [4, 4, 1, 1, 1]
        number = components(dashes)
        assert len(set(number)) == 5
        ends = [
            number[min(range(len(dashes)), key=lambda n: distance(dashes[n], dot))]
            for dot in dots
        ]
        assert (ends[0] == ends[1]) == joined
        for dot in dots:  # an end: one other dash is near at most
            near = [d for d in dashes if distance(d, dot) < pathfinder.APART - 0.1]
            assert len(near) == 1


def distance(dash, point):
    return min(math.dist(end, point) for end in dash)


def test_half_are_joined_and_distance_tells_little(scenes):
    found = {0: [], 1: []}
    for _, dots, joined in scenes:
        found[joined].append(math.dist(*dots))
    assert 40 < len(found[0]) < 80
    assert abs(np.mean(found[0]) - np.mean(found[1])) < 2


def test_images_show_dashes_and_dots():
    draws = drawn()
    again = drawn()
    for _ in range(20):
        paths, dots, joined = pathfinder.scene(again, SMALL)
        image, label = pathfinder.drawn(draws, SMALL)
        grey = np.asarray(image)
        assert grey.shape == (28, 28) and label == joined
        for x, y in dots:
            assert grey[int(y), int(x)] > 200
        rows, columns = np.nonzero(grey)
        points = [p for path in paths for dash in path for p in dash] + list(dots)
        for row, column in zip(rows, columns, strict=True):
            near = min(math.dist((column + 0.5, row + 0.5), p) for p in points)
            assert near < 3


def test_batches():
    config = {"name": "pathfinder", "side": 24, "dashes": 3, "others": 1}
    config |= {"train_size": 20, "eval_size": 12, "validation": "validation"}
    dataset = data.open(config)
    with dataset.train(16, seed=0) as batches:
        batch = next(batches)
    assert (
        batch["tokens"].shape == (16, 1 + 24**2) and (batch["tokens"][:, 0] == 1).all()
    )
    assert dataset.facts["max_length"] == 577 and dataset.facts["num_classes"] == 2
    assert set(batch["label"]) == {0, 1} and batch["tokens_mask"].all()
    images = set()
    for split in ("train", "validation", "test"):
        source = dataset.sources[split]
        found = source.read(np.arange(source.size), None)
        images |= {row.tobytes() for row in found["tokens"]}
        assert found["tokens"].max() <= 257 and found["tokens"].min() == 1
    assert len(images) == 44  # none twice
    part = data.open({**config, "test": "test[10:]"}).sources["test"]
    np.testing.assert_array_equal(
        part.read(np.arange(2), None)["tokens"], found["tokens"][10:]
    )


@pytest.mark.parametrize(
    "config, message",
    [
        ({"side": 8}, "side of at least 16 and at least 2 dashes, got 8 and 6"),
        ({"dashes": 60, "train_size": 2}, "no room for two paths of 60 dashes and 5"),
        ({"others": -1}, "'others' .* must be an int of at least 0, got -1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(config, message, monkeypatch):
    monkeypatch.setattr(pathfinder, "TRIES_OF_ALL", 2)
    with pytest.raises(settings.Invalid, match=message):
        data.open({"name": "pathfinder", **config})
