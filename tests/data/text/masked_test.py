"""Masked text and pairs of segments, against the sentences that they are made of."""

import re

import numpy as np
import pytest

from attn import data, settings
from attn.data.text.ragged import Ragged
from attn.data.text.runs import cut
from tests.data.streams import check_resumes_and_is_cut_alike, taken

WORDS = (
    *("red", "green", "blue", "old", "new", "warm", "cold"),
    *("tall", "small", "quick", "slow", "kind", "loud", "soft"),
)


def corpus(documents):
    """Sentences with a name each: which document and where in it."""
    return "\n\n".join(
        "\n".join(
            f"It is {WORDS[(n * 5 + i) % 14]} and {WORDS[(n + i * 3) % 14]} at {n}-{i}."
            for i in range(2 + n % 5)
        )
        for n in range(documents)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("text")
    (place / "train.txt").write_text(corpus(120) + "\n\nThis is alone.\n")
    (place / "test.txt").write_text(corpus(60))
    return str(place)


def opened(place, **config):
    config = {"source": place, "vocab_size": 420, "length": 48, **config}
    return data.open({"name": "masked_text", "validation": "test", **config})


def examples(batches):
    """Each example of weight 1 by its fields, without padding."""
    lists = ("tokens", "segments", "places", "masked")
    for batch in batches:
        for row in np.flatnonzero(batch.get("weight", np.ones(len(batch["index"])))):
            found = {n: batch[n][row][batch[f"{n}_mask"][row]] for n in lists}
            whole = found["tokens"].copy()
            whole[found["places"]] = found["masked"]
            yield found | {"whole": whole, "is_next": int(batch["is_next"][row])}


def names(words, ids):
    """The documents and places of the sentences that end in some tokens."""
    return re.findall(r" at (\d+-\d+)\.", words.decode(ids))


def test_b_follows_a_every_other_time(place):
    dataset = opened(place, length=128)
    words, facts = dataset.facts["tokenizer"], dataset.facts
    follows, lengths = [], {0: [], 1: []}
    for one in examples(taken(dataset.train(16, seed=0), 60)):
        (separators,) = np.nonzero(one["whole"] == facts["sep"])
        assert one["whole"][0] == facts["cls"] and len(separators) == 2
        middle, end = separators
        assert end == len(one["whole"]) - 1
        assert one["segments"].tolist() == [0] * (middle + 1) + [1] * (end - middle)
        a = names(words, one["whole"][1:middle])
        b = names(words, one["whole"][middle + 1 : end])
        document, last = map(int, a[-1].split("-"))
        assert a == [f"{document}-{i}" for i in range(last + 1 - len(a), last + 1)]
        other, first = map(int, b[0].split("-"))
        assert b == [f"{other}-{i}" for i in range(first, first + len(b))]
        assert one["is_next"] == (other == document)
        if one["is_next"]:
            assert first == last + 1
        assert first > 0
        follows.append(one["is_next"])
        lengths[one["is_next"]].append(len(one["whole"]))
    assert abs(np.mean(follows) - 0.5) < 4 * 0.5 / np.sqrt(len(follows))
    for statistic in (np.mean, np.std):  # tokens, which do not tell what follows
        assert abs(statistic(lengths[0]) - statistic(lengths[1])) < 4


def test_what_does_not_follow_is_as_long_as_what_does(tmp_path):
    follows = lambda n: f"It {'is ' * (1 + n * n % 19)}at {n}-1."
    both = (f"Here at {n}-0.\n{follows(n)}" for n in range(400))
    (tmp_path / "train.txt").write_text("\n\n".join(both))
    (tmp_path / "test.txt").write_text(corpus(3))
    dataset = opened(str(tmp_path))
    words, sep = dataset.facts["tokenizer"], dataset.facts["sep"]
    alike = []
    for one in examples(taken(dataset.train(16, seed=0), 20)):
        if not one["is_next"]:
            first, second = np.split(one["whole"], [np.flatnonzero(one["segments"])[0]])
            found = names(words, first)
            if not found:  # what is random hides the name
                continue
            document = int(found[0].split("-")[0])
            right = len(words.encode(f" {follows(document)}"))
            alike.append(right == np.sum(second != sep))
    assert len(alike) > 100 and np.mean(alike) > 0.8


def test_a_pair_that_is_too_long_keeps_what_meets(place):
    dataset = opened(place, length=24)
    words = dataset.facts["tokenizer"]
    for one in examples(taken(dataset.train(16, seed=0), 20)):
        assert len(one["whole"]) <= 24
        middle = one["whole"].tolist().index(dataset.facts["sep"])
        assert words.decode(one["whole"][1:middle]).endswith(".")
        assert words.decode(one["whole"][middle + 1 :]).startswith(" It is")
        assert min(middle - 1, len(one["whole"]) - middle - 2) > 5


@pytest.mark.parametrize(
    "rate, mask, random", [(0.15, 0.8, 0.1), (0.3, 0.0, 0.2), (0.15, 1.0, 0.0)]
)
def test_rates(place, rate, mask, random):
    dataset = opened(place, rate=rate, mask=mask, random=random)
    sep, cls, sign = (dataset.facts[name] for name in ("sep", "cls", "mask"))
    kinds, where = [], []
    for one in examples(taken(dataset.train(32, seed=1), 40)):
        places = one["places"]
        assert len(places) == max(1, round(rate * len(one["tokens"])))
        assert (np.diff(places) > 0).all()
        assert not np.isin(one["masked"], [sep, cls, sign, 0]).any()
        now = one["tokens"][places]
        kinds += np.where(now == sign, 0, np.where(now == one["masked"], 2, 1)).tolist()
        where += (places / len(one["tokens"])).tolist()
    shares = np.bincount(kinds, minlength=3) / len(kinds)
    words = dataset.facts["vocab_size"] - 5
    expected = [mask, random * (1 - 1 / words), 1 - mask - random + random / words]
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(len(kinds)))
    assert 0.45 < np.mean(where) < 0.55 and np.std(where) > 0.26  # everywhere


def test_random_words_are_any_but_special(place):
    dataset = opened(place, mask=0.0, random=1.0)
    found = [
        one["tokens"][one["places"]]
        for one in examples(taken(dataset.train(32, seed=1), 60))
    ]
    drawn = set(np.concatenate(found).tolist())
    words = dataset.facts["vocab_size"]
    assert drawn <= set(range(5, words)) and len(drawn) > 0.95 * (words - 5)


def test_masks_are_new_in_each_epoch_and_fixed_in_an_evaluation(place):
    dataset = opened(place)
    seen = {}
    for batch in taken(dataset.train(16, seed=0), 60):
        for row, index in enumerate(batch["index"]):
            seen.setdefault(int(index), []).append(batch["tokens"][row].tobytes())
    several = [rows for rows in seen.values() if len(rows) > 2]
    assert len(several) > 50 and all(len(set(rows)) == len(rows) for rows in several)
    first, second = (taken(dataset.split("test", 16)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_evaluations_have_shares_of_their_own(place):
    dataset = opened(place, mask=0.0, random=0.0, eval_mask=1.0, eval_random=0.0)
    sign = dataset.facts["mask"]
    test = list(examples(taken(dataset.split("test", 16))))
    assert all((one["tokens"][one["places"]] == sign).all() for one in test)
    train = list(examples(taken(dataset.train(16, seed=0), 3)))
    assert all((one["tokens"] == one["whole"]).all() for one in train)


def test_without_next_sentence_there_is_one_segment_of_the_same_rows(place):
    both, one = opened(place), opened(place, next_sentence=False)
    assert both.size("train") == one.size("train")
    words = one.facts["tokenizer"]
    for batch in taken(one.train(16, seed=0), 6):
        assert "is_next" not in batch and not batch["segments"].any()
        for row in range(len(batch["tokens"])):
            whole = batch["tokens"][row].copy()
            places = batch["places_mask"][row]
            whole[batch["places"][row][places]] = batch["masked"][row][places]
            whole = whole[batch["tokens_mask"][row]]
            assert (whole == one.facts["sep"]).sum() == 1
            assert len(whole) < 46 or len(whole) == 48 or words.decode(whole)[-1] == "."


def test_next_words_are_those_behind_their_places(place):
    """All words in training, and in an evaluation those that would be masked."""
    config = {"next_sentence": False}
    masked, following = opened(place, **config), opened(place, predict="next", **config)
    assert following.facts["causal"] and not masked.facts["causal"]
    special = [following.facts[name] for name in ("cls", "sep", "pad", "mask")]
    for batch in taken(following.train(16, seed=0), 4):
        for row, words in enumerate(batch["masked"]):
            there = batch["places_mask"][row]
            whole = batch["tokens"][row][batch["tokens_mask"][row]]
            assert batch["places"][row][there].tolist() == [*range(len(whole) - 2)]
            np.testing.assert_array_equal(words[there], whole[1:-1])
            assert not np.isin(whole[1:-1], special).any()
    pairs = (taken(dataset.split("test", 16)) for dataset in (masked, following))
    for one, other in zip(*pairs, strict=True):
        there = one["places_mask"]
        for name in ("masked", "places_mask", "tokens_mask"):
            np.testing.assert_array_equal(one[name], other[name])
        np.testing.assert_array_equal(one["places"][there] - 1, other["places"][there])


def test_next_words_of_two_segments(place):
    dataset = opened(place, predict="next")
    sep = dataset.facts["sep"]
    for batch in taken(dataset.train(16, seed=0), 4):
        assert set(batch["is_next"].tolist()) <= {0, 1}
        for row, words in enumerate(batch["masked"]):
            there = batch["places_mask"][row]
            whole = batch["tokens"][row][batch["tokens_mask"][row]]
            kept = np.flatnonzero(whole != sep)[1:]
            assert batch["places"][row][there].tolist() == (kept - 1).tolist()
            np.testing.assert_array_equal(words[there], whole[kept])


def test_batches_resume_and_are_cut_alike(place):
    dataset = opened(place)
    check_resumes_and_is_cut_alike(dataset, 6, start=4)


def test_fields_have_the_lengths_of_their_bucket(place):
    dataset = opened(place)
    shapes = {
        (b["tokens"].shape[1], b["places"].shape[1], b["masked"].shape[1])
        for b in taken(dataset.train(8, seed=0), 40)
    }
    assert len(shapes) > 1 and all(p == m == round(0.15 * n) for n, p, m in shapes)
    assert dataset.example()["places"].shape == (round(0.15 * 48),)
    assert dataset.facts["max_length"] == 48
    assert dataset.facts["notes"]["left out"]["runs of a single sentence"] >= 1
    assert dataset.files["tokenizer.json"] == dataset.facts["tokenizer"].file


def test_a_text_of_one_document_has_only_what_follows(tmp_path):
    (tmp_path / "train.txt").write_text("\n".join(corpus(20).split("\n\n")[4:5]))
    (tmp_path / "test.txt").write_text(corpus(3))
    dataset = opened(str(tmp_path))
    for one in examples(taken(dataset.train(4, seed=0), 5)):
        assert one["is_next"] == 1


def test_runs_end_where_they_are_full():
    sentences = Ragged(np.arange(40), np.array([0, 9, 12, 15, 18, 30, 31, 40]))
    runs, alone = cut(sentences, np.array([5, 6, 7]), 14)
    assert list(zip(runs.starts, runs.stops, runs.document, strict=True)) == [
        (0, 3, 0),
        (3, 5, 0),
    ]
    assert alone == 2 and runs.tokens.tolist() == [15, 15]


@pytest.mark.parametrize(
    "config, message",
    [
        (
            {"mask": 0.9, "random": 0.2},
            "mask and random .* 1 together at most, got 1.1",
        ),
        ({"eval_random": 0.3}, "eval_mask and eval_random are shares"),
        ({"rate": 0.0}, "'rate' of data set 'masked_text' must be above 0, up to 0.5"),
        ({"length": 8}, "length must be at least 16, got 8"),
        ({"packages": ["nump"], "source": "docstrings"}, "did you mean 'numpy'"),
        ({"source": "./nowhere"}, "'nowhere' is no file, and no folder"),
        ({"test": "tset"}, "'tset'; did you mean 'test'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(place, config, message):
    with pytest.raises(settings.Invalid, match=message):
        opened(place, **config)


def test_a_text_without_neighbours_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("One.\n\nTwo.\n")
    with pytest.raises(settings.Invalid, match="no two sentences that follow"):
        opened(str(tmp_path))
