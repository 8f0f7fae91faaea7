"""Transforms of a config: their order, their numbers, and what is refused."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from attn import data, settings
from attn.data import order, transforms


@dataclasses.dataclass(frozen=True)
class Count:
    """A data set of its rows, without images."""

    size: int = 12
    draws: int = 0

    def open(self, split):
        assert split in ("train", "test", "validation")

        def read(rows, draws):
            image = np.zeros((len(rows), 2), np.float32)
            return {"image": image, "row": rows.astype(np.int32), "own": draws}

        return data.Source(self.size, read, {"size": self.size}, draws=self.draws)


@dataclasses.dataclass(frozen=True)
class Log(data.Transform):
    """Writes down its numbers, and that it came."""

    field: str = "log"
    size: int = 3
    digit: int = 1

    def draws(self, example):
        assert example["image"].shape == (2,)
        return self.size

    def apply(self, batch, draws):
        came = 10 * batch.get("came", np.zeros(len(draws), int)) + self.digit
        return {**batch, self.field: draws, "came": came}

    def otherwise(self, batch):
        """Zeros, so that training and evaluation have the same fields."""
        size = len(batch["image"])
        came = batch.get("came", np.zeros(size, int))
        return {**batch, self.field: np.zeros((size, self.size)), "came": came}


COUNT, LOG = "tests.data.transforms_test:Count", "tests.data.transforms_test:Log"


def first(transforms_, split="train", wrap=dict, **fields):
    config = {"name": COUNT, "validation": "validation", "transforms": transforms_}
    dataset = data.open(wrap({**config, **fields}))
    batches = dataset.train(4, seed=5) if split == "train" else dataset.split(split, 4)
    with batches:
        return next(batches)


@pytest.mark.parametrize("wrap", [dict, ml_collections.ConfigDict])
def test_order_is_that_of_the_config_not_of_the_names(wrap):
    # a ConfigDict sorts its fields
    entries = {
        "b": {"name": LOG, "order": 1, "digit": 1},
        "a": {"name": LOG, "order": 3, "digit": 3},
        "c": {"name": LOG, "order": 2, "digit": 2},
    }
    assert first(entries, wrap=wrap)["came"].tolist() == [123] * 4


def test_a_further_transform_leaves_the_numbers_of_the_others_as_they_are():
    one = {"name": LOG, "field": "one", "order": 2}
    alone = first({"one": one}, draws=5)
    other = {"name": LOG, "field": "other", "size": 7, "order": 1}
    beside = first({"other": other, "one": one}, draws=5)
    np.testing.assert_array_equal(alone["one"], beside["one"])
    np.testing.assert_array_equal(alone["own"], beside["own"])
    np.testing.assert_array_equal(alone["row"], beside["row"])
    # and all are drawn of streams of their own
    assert not np.isin(beside["one"], beside["other"]).any()
    assert not np.isin(beside["one"], beside["own"]).any()
    expected = order.uniform(5, order.TRAIN, 0, 4, 3, "one")
    np.testing.assert_array_equal(alone["one"], expected)
    np.testing.assert_array_equal(alone["own"], order.uniform(5, order.TRAIN, 0, 4, 5))


def test_an_entry_of_before_draws_otherwise_where_the_data_set_draws():
    entry = {"pad_crop_flip": {"name": LOG}}
    alone, drawn = first(entry), first(entry, draws=5)
    np.testing.assert_array_equal(alone["log"], order.uniform(5, order.TRAIN, 0, 4, 3))
    assert not np.isin(drawn["log"], drawn["own"]).any()


def test_a_transform_is_of_the_splits_that_it_says():
    seen = {}
    for name, splits in (("a", "train"), ("b", "all")):
        for split in ("train", "validation", "test"):
            batch = first({name: {"name": LOG, "splits": splits}}, split)
            seen[name, split] = batch["log"]
            purpose = data.order.PURPOSES[split]
            seed = 5 if split == "train" else 0
            drawn = order.uniform(seed, purpose, 0, 4, 3, name)
            applied = split == "train" or splits == "all"
            np.testing.assert_array_equal(batch["log"], drawn if applied else 0 * drawn)
    assert not np.array_equal(seen["b", "validation"], seen["b", "test"])


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"flop": {}}, "unknown transform 'flop'; did you mean 'flip'"),
        ({"a": {"name": "flip"}, "b": {"name": "flip"}}, "`order` .*a: None, b: None"),
        (
            {"a": {"name": "flip", "order": 1}, "b": {"name": "flip", "order": 1}},
            "`order` of its own, got a: 1, b: 1",
        ),
        ({"flip": {"order": "1"}}, "order of transform 'flip' must be an int, got '1'"),
        ({"flip": 0.5}, "'flip' needs a mapping of its settings, got 0.5"),
        ({"flip": {"chance": 1}}, "unknown setting of transform 'flip' 'chance'"),
        ({"flip": {"splits": "test"}}, "one of 'train', 'all', got 'test'"),
        ({"normalise": {}}, "needs mean and deviation: the data set has none"),
    ],
)
def test_what_does_not_fit_is_one_sentence(entries, message):
    with pytest.raises(settings.Invalid, match=message) as error:
        first(entries)
    assert "\n" not in str(error.value)


def test_training_and_evaluation_must_have_the_same_shapes():
    @dataclasses.dataclass(frozen=True)
    class Cut(transforms.Transform):
        def apply(self, batch, draws):
            return {**batch, "image": batch["image"][:, :1]}

    sources = dict.fromkeys(("train", "test"), Count().open("train"))
    dataset = data.Dataset(sources, (transforms.Entry("cut", Cut()),))
    message = r"'image' as float32 \[1\] in training and float32 \[2\] in evaluation"
    with pytest.raises(settings.Invalid, match=message):
        dataset.check()


def test_data_that_are_no_images_are_not_normalised():
    batch = first({})
    assert batch.keys() == {"image", "row", "own", "index"}
    assert (batch["image"] == 0).all()
    np.testing.assert_array_equal(batch["row"], batch["index"])
