"""Pairs of texts: what belongs together, what does not, and that neither text tells."""

import numpy as np
import pytest

from attn import data, settings
from attn.data.text import babel, documents, matched
from tests.data.streams import check_resumes_and_is_cut_alike, taken

LINES = {
    "train": ["1\ta\tb\tone two\tthree", "0.0\tc\td\tfour\tfive six seven", "1\tx\ty"],
    "eval": ["0\té\tû"],
    "test": ["1\tp\tq", "0\tr\ts"],
}


@pytest.fixture
def place(tmp_path):
    for name, lines in LINES.items():
        (tmp_path / f"set.{name}.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def phrases(monkeypatch):
    few = babel.Babel(train_size=400, eval_size=60)
    monkeypatch.setattr(documents, "TRANSLATED", few)
    matched._opened.cache_clear()
    yield few.texts()[0]
    matched._opened.cache_clear()


def opened(source, **config):
    config = {"source": str(source), "vocab_size": 300, **config}
    return data.open({"name": "text_pairs", "validation": "validation", **config})


def pairs(dataset, split="train"):
    """Both texts and the label of each row of a split."""
    batches = dataset.split(split, 8) if split != "train" else dataset.train(8, seed=0)
    words, sep = dataset.facts["tokenizer"], dataset.facts.get("sep")
    for batch in taken(batches, 60 if split == "train" else None):
        for row in np.flatnonzero(batch.get("weight", np.ones(len(batch["label"])))):
            mask = batch.get("tokens_mask")
            if mask is None:
                names = ("first", "second")
                rows = [batch[n][row][batch[f"{n}_mask"][row]] for n in names]
                assert all(one[0] == dataset.facts["cls"] for one in rows)
            else:
                whole = batch["tokens"][row][mask[row]]
                assert whole[0] == dataset.facts["cls"] and whole[-1] == sep
                middle = whole.tolist().index(sep)
                segments = batch["segments"][row][mask[row]]
                assert segments.tolist() == [0] * (middle + 1) + [1] * (
                    len(whole) - middle - 1
                )
                rows = whole[:middle], whole[middle + 1 :]
            first, second = (words.decode(one).strip() for one in rows)
            yield first, second, int(batch["label"][row])


def test_files_joined_and_apart(place):
    wanted = {("p", "q", 1), ("r", "s", 0)}
    (place / "._train.tsv").write_bytes(b"\xff")  # hidden, and so passed over
    assert set(pairs(opened(place), "test")) == wanted
    dataset = opened(place, form="apart", units="bytes")
    assert set(pairs(dataset, "test")) == wanted
    assert dataset.facts["vocab_size"] == 258 and "sep" not in dataset.facts
    train = {("one two", "three", 1), ("four", "five six seven", 0), ("x", "y", 1)}
    assert set(pairs(dataset)) == train
    assert set(pairs(dataset, "validation")) == {("é", "û", 0)}
    assert dataset.facts["num_classes"] == 2


def test_of_two_texts_the_longer_one_is_cut_first(tmp_path):
    short, long = "ab cd", "efghij klmnop " * 9
    lines = [f"1\t{short}\t{long}", f"0\t{long}\t{short}", f"1\t{long}\t{long}"]
    (tmp_path / "train.tsv").write_text("\n".join(lines))
    dataset = opened(tmp_path, length=24, validation="", test="train", vocab_size=261)
    found = list(pairs(dataset, "test"))
    assert found[0][0] == found[1][1] == short
    for first, second, _ in found:
        assert long.startswith(first) or first == short
        assert long.startswith(second) or second == short
        assert len(first) + len(second) in (18, 19)  # a space before each is a token
    assert abs(len(found[2][0]) - len(found[2][1])) <= 1


def test_translations_and_others_next_to_them(phrases):
    dataset = opened("babel", length=256)
    right = dict(zip(phrases["train"].sources, phrases["train"].targets, strict=True))
    targets = sorted(set(right.values()))
    labels, begin = [], []
    for first, second, label in set(pairs(dataset)):
        assert label == (right[first] == second)
        labels.append(label)
        if not label:
            near = targets.index(second) - targets.index(right[first])
            assert min(abs(near), len(targets) - abs(near)) <= matched.NEAR
            begin.append(second[:2] == right[first][:2])
    assert 0.4 < np.mean(labels) < 0.6 and np.mean(begin) > 0.5


def test_words_are_those_of_running_text_of_the_same_source(phrases):
    dataset = opened("babel", vocab_size=400)
    other = data.open({"name": "masked_text", "source": "babel", "vocab_size": 400})
    assert dataset.facts["tokenizer"] == other.facts["tokenizer"]


def test_docstrings_of_one_package_or_of_two():
    packages = ["flax", "optax", "skimage"]
    docs, _ = documents.by_package(packages)
    package = {" ".join(d)[:60]: p for name in docs for p, d in docs[name]}
    dataset = opened(
        "docstrings", packages=packages, form="apart", units="bytes", length=400
    )
    counts = np.zeros((2, 3))
    for first, second, label in pairs(dataset):
        one, other = package.get(first[:60]), package.get(second[:60])
        if one is None or other is None:
            continue  # letters of several bytes
        assert label == (one == other) and first != second
        counts[label, packages.index(other)] += 1
    shares = counts / counts.sum(axis=1, keepdims=True)
    assert (np.abs(shares - 1 / 3) < 0.09).all()  # no text alone tells


def test_batches_resume_and_are_cut_alike(place):
    check_resumes_and_is_cut_alike(opened(place, buckets=1), 4, start=2)


@pytest.mark.parametrize(
    "source, config, message",
    [
        ("./nowhere", {}, "folder of pairs 'nowhere' does not exist"),
        ("{place}/empty", {}, r"has no file \*train.tsv of pairs"),
        ("{place}/wrong", {}, "line 2 of .*train.tsv must have a label, .*'2.*a.*b'"),
        (
            "{place}/shifted",
            {},
            r"line 1 of .*must have a label, .*'1.tid1.tid2.ttext.t'",
        ),
        ("{place}/two", {}, "two files of pairs, a.train.tsv and b.train.tsv"),
        ("docstrings", {"packages": ["flax"]}, "need two packages .*, got flax"),
        ("docstrings", {"units": "bytes"}, "form='joined' needs units='words'"),
        (
            "docstrings",
            {"form": "apart", "units": "bytes", "tokenizer": "a.json"},
            "tokenizer='a.json' needs units='words', got 'bytes'",
        ),
        ("docstrings", {"length": 7}, "length must be at least 8, got 7"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, source, config, message):
    for name in ("empty", "wrong", "shifted", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "wrong" / "train.tsv").write_text("1\ta\tb\n2\ta\tb\n")
    shifted = tmp_path / "shifted" / "train.tsv"
    shifted.write_text("1\tid1\tid2\ttext\t\r\n")  # the last column is empty
    for name in "ab":
        (tmp_path / "two" / f"{name}.train.tsv").write_text("1\ta\tb\n")
    with pytest.raises(settings.Invalid, match=message):
        opened(source.format(place=tmp_path), validation="", **config)
