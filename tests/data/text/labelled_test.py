"""Texts and images as sequences of tokens with a class."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from attn import data, settings
from attn.data.text import prepared
from attn.data.text.symbols import Bytes
from tests.data.streams import taken

TEXTS = {
    "good": ["A fine film.", "Très bien, été", "x" * 90],
    "bad": ["A poor film.", "Two\nlines of it.", "Dull."],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    for split in ("train", "test"):
        for name, texts in TEXTS.items():
            (place / split / name).mkdir(parents=True)
            for number, text in enumerate(texts):
                path = place / split / name / f"{number}.txt"
                path.write_text(f"{text} {split}\n")
    return place


def opened(source, **config):
    config = {"source": str(source), "buckets": 2, **config}
    return data.open({"name": "labelled_text", **config})


def examples(dataset, split="test"):
    for batch in taken(dataset.split(split, 2)):
        for row in np.flatnonzero(batch["weight"]):
            tokens = batch["tokens"][row][batch["tokens_mask"][row]]
            yield tokens, dataset.facts["class_names"][batch["label"][row]]


def test_hidden_files_are_passed_over(place):
    found = list(examples(opened(place)))
    for path in list(place.rglob("*.txt")):
        path.with_name(f"._{path.name}").write_bytes(b"\xff")
    again = list(examples(opened(place)))
    assert len(again) == len(found) > 0


def test_bytes_of_files(place):
    dataset = opened(place)
    words, found = dataset.facts["tokenizer"], set()
    for tokens, name in examples(dataset):
        assert tokens[0] == dataset.facts["cls"] == 1 and (tokens[1:] >= 2).all()
        found.add((words.decode(tokens), name))
    assert found == {(f"{t} test", n) for n, texts in TEXTS.items() for t in texts}
    assert dataset.facts["class_names"] == ("bad", "good")
    assert dataset.facts["vocab_size"] == 258 and dataset.facts["num_classes"] == 2
    lengths = {b["tokens"].shape[1] for b in taken(dataset.train(2, seed=0), 20)}
    assert lengths == {24, 104} and dataset.facts["max_length"] == 104
    assert set(dataset.files) == {"data.json"}


def test_bytes_are_cut(place):
    lengths = {len(tokens) for tokens, _ in examples(opened(place, length=16))}
    assert max(lengths) == 16
    assert (
        Bytes().decode(Bytes().encode("été ✓")[:-1]) == "été \N{REPLACEMENT CHARACTER}"
    )
    assert Bytes().words([1, *Bytes().encode("a é\n")]) == [
        *("[CLS]", "a", "▁", "<C3>", "<A9>", "<0A>"),
    ]


def test_words_of_files(place, tmp_path):
    dataset = opened(place, units="words", vocab_size=270)
    words, facts, found = dataset.facts["tokenizer"], dataset.facts, set()
    for tokens, name in examples(dataset):
        assert tokens[0] == facts["cls"] and tokens[-1] == facts["sep"]
        found.add((words.decode(tokens), name))
    assert found == {(f" {t} test", n) for n, texts in TEXTS.items() for t in texts}
    path = tmp_path / "tokenizer.json"
    path.write_bytes(dataset.files["tokenizer.json"])
    other = opened(place, units="words", tokenizer=str(path))
    assert other.facts["tokenizer"] == words
    cut = [len(t) for t, _ in examples(opened(place, units="words", length=9))]
    assert max(cut) == 9 and facts["max_length"] > 16


def test_folders_without_splits_and_their_parts(place):
    parts = {"train": "train[:50%]", "test": "train[50%:]"}
    dataset = opened(place / "train", **parts)
    assert [dataset.size(split) for split in ("train", "test")] == [3, 3]


def test_a_package_named_twice_counts_once():
    twice = data.DATASETS["labelled_text"](packages=["optax", "flax", "optax"])
    assert twice.packages == ("optax", "flax")


def test_docstrings_by_package():
    dataset = opened("docstrings", packages=["optax", "flax"], validation="validation")
    assert dataset.facts["class_names"] == ("flax", "optax")
    labels = np.concatenate([b["label"] for b in taken(dataset.split("test", 8))])
    assert set(labels) == {0, 1} and (np.diff(labels) != 0).sum() > 10  # mixed
    assert "optax" in dataset.facts["notes"]["packages"]


class Reviews(tfds.core.GeneratorBasedBuilder):
    """Texts as TFDS has them."""

    VERSION = tfds.core.Version("1.0.0")
    name = "test_reviews"

    def _info(self):
        features = {
            "text": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["neg", "pos"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        splits = ("train", "test", "unsupervised")
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split):
        for n in range(6):
            text = f"Été {n} of {split}. It was good. It was short."
            label = -1 if split == "unsupervised" else n % 2
            yield n, {"text": text, "label": label}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("sets"))
    Reviews(data_dir=place, file_format="array_record").download_and_prepare()
    return place


def test_a_set_of_tfds_by_name(reviews):
    dataset = opened("test_reviews", directory=reviews)
    words = dataset.facts["tokenizer"]
    found = {(words.decode(tokens), name) for tokens, name in examples(dataset)}
    assert found == {
        (f"Été {n} of test. It was good. It was short.", ("neg", "pos")[n % 2])
        for n in range(6)
    }
    with pytest.raises(settings.Invalid, match="valid: test, train, parts"):
        opened("test_reviews", directory=reviews, train="unsupervised")
    assert opened("test_reviews", directory=reviews, most=4).size("train") == 4


def test_a_set_of_tfds_without_a_split_to_train_on(reviews, monkeypatch):
    columns = prepared.columns

    def tested(*given):
        return {k: v for k, v in columns(*given).items() if k != "train"}

    monkeypatch.setattr(prepared, "columns", tested)
    with pytest.raises(settings.Invalid, match=r"no split 'train' .*, but test$"):
        opened("test_reviews", directory=reviews, most=3)


def test_a_set_of_tfds_as_masked_text(reviews):
    config = {"name": "masked_text", "source": "test_reviews", "directory": reviews}
    dataset = data.open({**config, "vocab_size": 300, "train": "unsupervised"})
    words = dataset.facts["tokenizer"]
    (batch, *_) = taken(dataset.train(4, seed=0), 1)
    whole = batch["tokens"].copy()
    for row, (places, mask) in enumerate(
        zip(batch["places"], batch["places_mask"], strict=True)
    ):
        whole[row, places[mask]] = batch["masked"][row][mask]
    assert all("It was" in words.decode(row) for row in whole)
    assert any(" of unsupervised." in words.decode(row) for row in whole)


@pytest.mark.parametrize(
    "source, config, message",
    [
        ("./nowhere", {}, "folder of texts 'nowhere' does not exist"),
        ("{place}/train/good", {}, "has no texts to train on: they are looked for as"),
        ("{place}", {"length": 2}, "length must be at least 3, got 2"),
        ("docstrings", {"tokenizer": "a.json"}, "needs units='words', got 'bytes'"),
        ("mnist_5k", {}, "'mnist_5k' has no field 'text', but image, label"),
    ],
)
def test_what_does_not_fit_is_one_sentence(place, directory, source, config, message):
    if source == "mnist_5k":
        config = {"directory": directory}
    with pytest.raises(settings.Invalid, match=message):
        opened(source.format(place=place), **config)


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.txt").write_bytes(b"fine\nbut \xe9t\xe9\n")
    with pytest.raises(settings.Invalid, match=r"line 2 of .*a\.txt is not UTF-8"):
        opened(tmp_path)


def test_pixels_are_the_image_row_by_row(directory):
    place = {"directory": directory}
    images = data.open({"name": "mnist_5k", **place})
    for by in (1, 5):
        dataset = data.open({"name": "pixels", "shrink": by, **place})
        side = 28 // by
        assert dataset.facts["max_length"] == 1 + side**2
        with dataset.split("test", 3) as some, images.split("test", 3) as others:
            tokens, image = next(some), next(others)
        np.testing.assert_array_equal(tokens["label"], image["label"])
        grey = np.round(images.picture(image["image"])[..., 0] * 255)
        for row, column in ((0, 0), (side - 2, 3), (3, side - 1)):
            square = grey[:, row * by : (row + 1) * by, column * by : (column + 1) * by]
            expected = 2 + np.floor(square.mean(axis=(1, 2)) + 1e-6)
            found = tokens["tokens"][:, 1 + row * side + column]
            np.testing.assert_array_equal(found, expected)
        assert (tokens["tokens"][:, 0] == 1).all() and tokens["tokens_mask"].all()


def test_colours_are_grey_in_pixels(directory):
    place = {"directory": directory, "train": "train[:9]"}
    dataset = data.open({"name": "pixels", "source": "photos", **place})
    images = data.open({"name": "photos", **place})
    with dataset.split("test", 2) as some, images.split("test", 2) as others:
        tokens, image = next(some)["tokens"], next(others)["image"]
    grey = images.picture(image) @ np.array([0.299, 0.587, 0.114]) * 255
    np.testing.assert_allclose(tokens[:, 1:] - 2, grey.reshape(2, -1), atol=1)
    with pytest.raises(settings.Invalid, match=r"at most the side .*, got 49"):
        data.open({"name": "pixels", "source": "photos", "shrink": 49, **place})
