"""Rule-made pairs: what is held out, one right translation each, batches of them."""

import json
import re

import numpy as np
import pytest

from attn import data, settings
from attn.data.text import babel, phrases
from attn.data.text.babel import Babel
from tests.data.streams import check_resumes_and_is_cut_alike, taken

SMALL = {"train_size": 600, "eval_size": 100, "vocab_size": 400}


def opened(**config):
    return data.open({"name": "babel", "validation": "validation", **SMALL, **config})


@pytest.fixture(scope="module", params=["de", "fr"])
def texts(request):
    return Babel(language=request.param, **SMALL).texts()[0]


def test_a_source_has_one_translation_and_is_in_one_split(texts):
    sources = [source for split in texts.values() for source in split.sources]
    assert len(set(sources)) == len(sources) == 800
    targets = [target for split in texts.values() for target in split.targets]
    assert np.mean([a == b for a, b in zip(sources, targets, strict=True)]) < 0.1
    assert all(re.fullmatch(r"[^\s]+( [^\s]+)*", text) for text in sources + targets)


def test_whole_years_are_held_out(texts):
    years = {}
    for name, split in texts.items():
        dated = [
            source
            for source, kind in zip(split.sources, split.kinds, strict=True)
            if list(phrases.KINDS)[kind] in ("date", "interval")
        ]
        years[name] = {re.search(r"\d{4}", source)[0] for source in dated}
        assert len(dated) > 0.3 * len(split.sources)
    one, two, three = years.values()
    assert not one & two and not one & three and not two & three
    assert len(one) > 100 and min(len(two), len(three)) > 5


def test_whole_sets_of_names_are_held_out(texts):
    sets = {}
    for name, split in texts.items():
        rows = np.flatnonzero(split.kinds == list(phrases.KINDS).index("list"))
        lists = [
            re.split(r", (?:and |or )?| and | or ", split.sources[r]) for r in rows
        ]
        sets[name] = {frozenset(one) for one in lists}
        if name != "train":
            assert min(map(len, sets[name])) > 1  # a name alone is to be learnt
    one, two, three = sets.values()
    assert not one & two and not one & three and not two & three
    assert {babel.side(f"{n}") for n in range(99)} == {"train", "validation", "test"}


def test_amounts_are_held_out_as_they_are_written():
    assert phrases._rest(4.0, "mile") == phrases._rest(4, "mile") == "4 mile"
    assert phrases._rest(9999.9, "mile") == "9999.9 mile" and not phrases._rest(2, "m")


def test_phrases_are_those_of_the_languages():
    split = Babel(**SMALL).texts()[0]["train"]
    kinds = np.array(list(phrases.KINDS))[split.kinds]
    pairs = list(zip(kinds, split.sources, split.targets, strict=True))
    weekdays = {"Monday": "Montag", "Sunday": "Sonntag"}
    for kind, source, target in pairs:
        for english, german in weekdays.items():
            assert (english in source) == (german in target)
        if kind == "relative":
            assert source.endswith(" ago") == target.startswith("vor ")
        if kind == "list":
            assert (" or " in source) == (" oder " in target)
    shares = [np.mean(kinds == kind) for kind in phrases.KINDS]
    expected = np.array(list(phrases.KINDS.values())) / 20
    np.testing.assert_allclose(shares, expected, atol=0.05)


def test_batches_are_the_texts():
    dataset = opened()
    words = dataset.facts["tokenizer"]
    texts, _ = Babel(**SMALL).texts()
    seen = []
    for batch in taken(dataset.split("test", 8)):
        for row in np.flatnonzero(batch["weight"]):
            fields = {
                name: batch[name][row][batch[f"{name}_mask"][row]]
                for name in ("source", "target_in", "target")
            }
            number = batch["index"][row]
            assert words.decode(fields["source"]) == texts["test"].sources[number]
            assert words.decode(fields["target"]) == texts["test"].targets[number]
            start, end = dataset.facts["start"], dataset.facts["end"]
            assert fields["target_in"].tolist() == [start, *fields["target"][:-1]]
            assert fields["target"][-1] == end and end not in fields["target"][:-1]
            assert batch["kind"][row] == texts["test"].kinds[number]
            seen.append(number)
    assert sorted(seen) == list(range(100))
    shapes = {b["source"].shape for b in taken(dataset.train(8, seed=0), 20)}
    longest = dataset.facts["max_length"]
    assert {rows * length <= 8 * longest for rows, length in shapes} == {True}
    assert all(length % 8 == 0 for _, length in shapes) and len(shapes) > 1


def test_the_kinds_of_the_test_split_are_splits_of_their_own():
    dataset = opened()
    kinds = dataset.facts["kinds"]
    number = {kind: opened(test=f"test_{kind}").size("test") for kind in kinds}
    assert sum(number.values()) == 100 and min(number.values()) > 0
    dates = opened(test="test_date")
    words, found = dates.facts["tokenizer"], []
    for batch in taken(dates.split("test", 8)):
        assert (batch["kind"] == kinds.index("date")).all()
        found += [words.decode(row) for row in batch["source"][batch["weight"] > 0]]
    texts = Babel(**SMALL).texts()[0]["test"]
    assert sorted(found) == sorted(
        source
        for source, kind in zip(texts.sources, texts.kinds, strict=True)
        if kinds[kind] == "date"
    )
    with pytest.raises(settings.Invalid, match=r"'test_list' .* is empty"):
        opened(only=["date"], test="test_list")


def test_facts_and_files():
    dataset = opened()
    assert dataset.facts["vocab_size"] == 400 and dataset.facts["pad"] == 0
    assert dataset.files["tokenizer.json"] == dataset.facts["tokenizer"].file
    assert json.loads(dataset.files["data.json"]) == dataset.facts["notes"]
    assert dataset.facts["notes"]["babel"] == "2.19.0"
    assert dict(dataset.facts) == dict(opened().facts)
    assert dataset.facts["kinds"] == tuple(phrases.KINDS)
    assert opened(train="train[:50%]").facts["tokenizer"] == dataset.facts["tokenizer"]


def test_batches_resume_and_are_cut_alike():
    dataset = opened()
    check_resumes_and_is_cut_alike(dataset, 6, start=4)


@pytest.mark.parametrize("over", ["skip", "cut"])
def test_long_pairs_are_counted_and_said(over, caplog):
    whole = opened()
    dataset = opened(longest=16, over=over)
    (line,) = caplog.messages
    count = int(re.fullmatch(r"(\d+) pairs of over 16 tokens are .*", line)[1])
    what = "left out" if over == "skip" else "cut"
    assert line.endswith(f" are {what}")
    sizes = [d.size(s) for d in (whole, dataset) for s in ("train", *d.splits)]
    lost = sum(sizes[:3]) - sum(sizes[3:])
    assert count == (lost if over == "skip" else count) and 10 < count < 500
    assert (lost > 0) == (over == "skip")
    assert dataset.facts["max_length"] == 16
    assert dataset.facts["notes"][what] == {"pairs of over 16 tokens": count}
    ends = [b["target"][b["target_mask"]] for b in taken(dataset.split("test", 8))]
    assert sum((e == dataset.facts["end"]).sum() for e in ends) >= dataset.size("test")


@pytest.mark.parametrize(
    "config, message",
    [
        ({"language": "nl"}, "one of 'de', 'fr', got 'nl'"),
        ({"only": ["dates"]}, "unknown kind of pairs 'dates'; did you mean 'date'"),
        ({"longest": 2}, "no pair of the training split has at most longest=2 tokens"),
        ({"vocab_size": 30}, "vocab_size must be at least 260"),
        (
            {"only": ["relative"], "train_size": 99999},
            "not enough pairs of relative for 99999 that",
        ),
        ({"validation": "valid"}, "did you mean 'validation'"),
        ({"tokenizer": "nowhere.json"}, "'nowhere.json' cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_sentence(config, message):
    with pytest.raises(settings.Invalid, match=message):
        opened(**config)


def test_other_words_of_the_package_are_said(monkeypatch, caplog):
    monkeypatch.setitem(babel.LOCALES, "fr", "0" * 16)
    _, notes = Babel(language="fr", **SMALL).texts()
    assert caplog.messages == [
        "babel 2.19.0 has other words than the pairs were looked at with"
    ]
    assert notes["babel"] == "2.19.0 (other words than 2.19.0)"
