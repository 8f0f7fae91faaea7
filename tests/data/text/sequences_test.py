"""Pairs of sequences: in buckets and packed, against the sequences themselves."""

import numpy as np
import pytest

from attn import data, settings
from attn.data import text
from attn.data.text import packing
from tests.data.streams import check_resumes_and_is_cut_alike, taken


def opened(**config):
    return data.open({"name": "sequences", "validation": "validation", **config})


CHANGES = {"copy": list, "reverse": lambda x: x[::-1], "sort": sorted}


@pytest.mark.parametrize("task", CHANGES)
def test_targets_are_the_changed_sources(task):
    for batch in taken(opened(task=task).train(8, seed=0), 5):
        assert batch["source"].dtype == np.int32
        for row in range(len(batch["source"])):
            words = {
                name: batch[name][row][batch[f"{name}_mask"][row]].tolist()
                for name in ("source", "target_in", "target")
            }
            expected = CHANGES[task](words["source"])
            assert words["target_in"] == [text.START, *expected]
            assert words["target"] == [*expected, text.END]
            assert min(words["source"]) >= text.WORDS
            assert 4 <= len(words["source"]) <= 12
        for name in ("source", "target"):
            mask = batch[f"{name}_mask"]
            assert (batch[name][~mask] == text.PAD).all()
            assert (np.diff(mask.astype(int)) <= 0).all()  # padding is at the end


def test_the_example_is_the_longest_and_facts_say_so():
    dataset = opened()
    longest = dataset.facts["max_length"]
    assert longest == 13 and dataset.facts["vocab_size"] == 19
    shapes = {name: field.shape for name, field in dataset.example().items()}
    names = ("source", "target_in", "target")
    assert shapes == {n + end: (13,) for n in names for end in ("", "_mask")}
    batches = taken(dataset.train(8, seed=0), 30)
    lengths = {batch["source"].shape for batch in batches}
    assert lengths == {(8, 13), (8, 9)}
    assert {b["target"].shape for b in batches} == lengths
    words = np.concatenate([b["source"].ravel() for b in batches])
    assert set(words) == {0, *range(3, 19)}


def test_budgets_of_tokens_make_short_batches_large():
    shapes = lambda **config: {
        b["source"].shape
        for b in taken(opened(low=2, high=31, buckets=6, **config).train(8, seed=0), 40)
    }
    found = shapes()
    assert found == {(8 * (32 // length), length) for _, length in found}
    assert len(found) == 6 and {rows for rows, _ in found} == {8, 16, 32}
    assert {rows for rows, _ in shapes(budget="examples")} == {8}


@pytest.mark.parametrize("config", [{}, {"row_length": 30}, {"buckets": 3}])
def test_batches_resume_and_are_cut_alike(config):
    dataset = opened(**config)
    whole = check_resumes_and_is_cut_alike(dataset, 9, start=5)
    other = taken(dataset.train(8, seed=4), 1)[0]
    assert not np.array_equal(other["index"], whole[0]["index"])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_has_every_example_once(split):
    dataset = opened(eval_size=61, buckets=3)
    index = []
    for batch in taken(dataset.split(split, 8), 99):
        assert ((batch["index"] == -1) == (batch["weight"] == 0)).all()
        index += batch["index"][batch["weight"] > 0].tolist()
    assert sorted(index) == list(range(61)) and dataset.size(split) == 61


def test_splits_have_sequences_of_their_own():
    found = {}
    for split in ("train", "validation", "test"):
        config = {"name": "sequences", "train": split, "eval_size": 200}
        dataset = data.open({**config, "train_size": 200, "test": "test[:10]"})
        batches = taken(dataset.split("test", 10), 9)
        assert sum(batch["weight"].sum() for batch in batches) == 10
        batches = taken(dataset.train(40, seed=0), 6)
        found[split] = {tuple(row) for b in batches for row in b["source"].tolist()}
    assert (
        not found["train"] & found["validation"] and not found["train"] & found["test"]
    )


def test_packing_keeps_every_sequence_whole():
    dataset = opened(row_length=30, eval_size=64)
    seen = []
    for batch in taken(dataset.split("test", 4), 99):
        for row in np.flatnonzero(batch["weight"]):
            for name in ("source", "target"):
                segment = batch[f"{name}_segment"][row]
                position = batch[f"{name}_position"][row]
                assert (batch[name][row][segment == 0] == 0).all()
                for number in range(1, segment.max() + 1):
                    (at,) = np.nonzero(segment == number)
                    assert (np.diff(at) == 1).all()
                    np.testing.assert_array_equal(position[at], np.arange(len(at)))
                    if name == "source":
                        seen.append(tuple(batch[name][row][at]))
    plain = opened(eval_size=64)
    sources = [
        tuple(row[mask])
        for batch in taken(plain.split("test", 8), 99)
        for row, mask, weight in zip(
            batch["source"], batch["source_mask"], batch["weight"], strict=True
        )
        if weight
    ]
    assert sorted(seen) == sorted(sources)
    assert dataset.size("test") < 64 / 2


def test_bins_are_full_and_hold_each_sequence_once():
    lengths = np.random.default_rng(1).integers(1, 31, 400)
    bins = packing.best_fit(lengths, 64)
    assert sorted(row for one in bins for row in one) == list(range(400))
    sums = [lengths[one].sum() for one in bins]
    assert max(sums) <= 64
    assert len(bins) <= np.ceil(lengths.sum() / 64) + 1
    assert packing.best_fit(np.array([5, 9, 5, 1]), 10) == [[1, 3], [0, 2]]


@pytest.mark.parametrize(
    "config, message",
    [
        ({"low": 5, "high": 4}, "low must be at most high, got 5 and 4"),
        ({"row_length": 9}, "of 13 tokens does not fit a row of 9"),
        ({"task": "shuffle"}, "one of 'copy', 'reverse', 'sort', got 'shuffle'"),
        ({"validation": "valid"}, "did you mean 'validation'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(config, message):
    with pytest.raises(settings.Invalid, match=message):
        opened(**config)
