"""Probes of models that read words: which sentences, which words, which matrices."""

import json

import jax
import numpy as np
import pytest
from sacrebleu import metrics

from attn import data
from attn.tasks import answers
from attn.train import partition
from attn.train.probes import masked_words, rows, translations
from attn.train.program import Program
from tests.train import small


def read(path):
    with np.load(path) as file:
        return {name: file[name] for name in file}


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    """A program, its variables, and what the probe writes of it."""
    config = small.config(
        data={"name": "sequences", "words": 8, "validation": "validation[:40]"},
        model={
            "name": "transformer",
            "width": 16,
            "depth": 1,
            "num_heads": 2,
            "mlp_dim": 16,
        },
        task={"name": "translation", "beams": 1, "extra_length": 3},
    )
    program = Program(config, jax.devices()[:1])
    variables = partition.fetch(program.init_state(1).variables())
    place = tmp_path_factory.mktemp("translations")
    assert translations.write(place, program, variables, program.dataset) == []
    return program, variables, place


def test_sentences_are_from_the_best_to_the_worst(translated):
    *_, place = translated
    found = read(place / "examples.npz")
    scores = []
    for k, caption in enumerate(found["sentence"]):
        rank, _, score = caption.partition(": chrF ")
        pair = found["translation"][k], [found["reference"][k]]
        want = metrics.CHRF().sentence_score(*pair).score
        assert float(score) == pytest.approx(want, abs=0.06)
        scores.append(want)
        assert rank == translations.RANKS[k]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]
    assert sorted(found["source"][0].split()) == sorted(found["reference"][0].split())
    fields = {field["name"]: field for field in json.loads(str(found["index"]))}
    assert fields["translation"]["expected"] == "reference"


@pytest.fixture(scope="module")
def captured(translated):
    """The index of the file, its arrays, and by path what a longer batch attends to."""
    program, variables, place = translated
    found = read(place / "token_attention.npz")
    index = json.loads(str(found["index"]))
    sides = {}
    for side in ("source", "target_in"):
        numbers = [list(map(int, words)) for words in index["words"][side]]
        sides[side], mask = answers.padded(numbers, 19, 0)
        sides.setdefault("source_mask", mask)
    _, maps = program.capture(variables, sides)
    weights = {
        path.rpartition("/")[0]: np.asarray(entry.values, np.float64)
        for path, entry in maps.items()
    }
    return index, found, weights


def test_matrices_are_of_what_was_said(translated, captured):
    *_, place = translated
    sentences = read(place / "examples.npz")
    index, found, weights = captured
    words = index["words"]
    for i, text in enumerate(sentences["translation"]):
        assert words["source"][i] == sentences["source"][i].split()
        assert [w for w in words["target"][i] if w != "2"] == text.split()
        assert words["target_in"][i] == ["1", *words["target"][i][:-1]]
    assert {m["path"] for m in index["maps"]} == {
        "encoder0/mixer",
        "decoder0/self",
        "decoder0/cross",
    }
    for entry in index["maps"]:
        for i in range(5):
            rows, columns = (len(words[side][i]) for side in entry["sides"])
            want = weights[entry["path"]][i][:, :rows, :columns]
            part = found[entry["mean"]][i][:rows, :columns]
            np.testing.assert_allclose(part, want.mean(axis=0), atol=2e-3)
        rows, columns = (len(words[side][2]) for side in entry["sides"])
        want = weights[entry["path"]][2][:, :rows, :columns]
        heads = found[entry["heads"]][:, :rows, :columns]
        np.testing.assert_allclose(heads, want, atol=2e-3)


def test_entropy_is_a_mean_over_the_words_that_ask(captured):
    index, _, weights = captured
    (entry,) = [e for e in index["maps"] if e["path"] == "decoder0/cross"]
    total, count = 0, 0
    for i, (source, asks) in enumerate(
        zip(index["words"]["source"], index["words"]["target"], strict=True)
    ):
        part = weights["decoder0/cross"][i][:, : len(asks), : len(source)]
        total += -(part * np.log(part)).sum(axis=(1, 2))
        count += len(asks)
    np.testing.assert_allclose(entry["entropy"], total / count, atol=1e-3)


def test_the_first_rows_are_the_same_whatever_the_buckets():
    known = {"name": "sequences", "validation": "validation", "words": 8}
    fields = ("source", "source_mask")
    one, three = (
        rows.first(data.open({**known, "buckets": n}), "validation", 20, fields)
        for n in (1, 3)
    )
    length = three["source"].shape[1]
    for name in fields:
        np.testing.assert_array_equal(one[name][:, :length], three[name])
        assert not one[name][:, length:].any()


def test_masked_words_are_shown_with_the_best_guesses(tmp_path):
    here = "tests.tasks.masked_language_test"
    config = small.config(
        data={"name": f"{here}:Masked", "train": "train", "test": "test"},
        model={"name": f"{here}:Guesser"},
        task={"name": "masked_language"},
    )
    program = Program(config, jax.devices()[:1])
    variables = partition.fetch(program.init_state(1).variables())
    masked_words.write(tmp_path, program, variables, program.dataset)
    found = read(tmp_path / "examples.npz")
    batch = rows.first(program.dataset, "test", 5, program.fields)
    outputs = program.apply(variables, batch)["masked"]
    chances = np.asarray(jax.nn.softmax(outputs))
    for i in range(5):
        assert found["text"][i] == " ".join(map(str, batch["tokens"][i]))
        for k in range(4):
            best = np.argsort(-chances[i, k])[:5]
            there = batch["places_mask"][i, k]
            listed = ", ".join(f"{w} {100 * chances[i, k, w]:.0f} %" for w in best)
            assert found[f"5 best {k + 1}"][i] == (listed if there else "")
            assert found[f"guess {k + 1}"][i] == (str(best[0]) if there else "")
            right = str(batch["masked"][i, k]) if there else ""
            assert found[f"masked word {k + 1}"][i] == right
    assert not (tmp_path / "token_attention.npz").exists()  # it has no attention
