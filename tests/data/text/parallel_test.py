"""Pairs of texts from files and sets of TFDS, and what is wrong with them."""

import itertools
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from attn import data, settings
from attn.data.text import pairs as parallel_pairs
from attn.data.text import parallel, prepared
from tests.data.streams import taken

PAIRS = pathlib.Path(__file__).parent / "pairs"
LINES = {
    "en": ["One.", "Two, three.", "Four."],
    "de": ["Eins.", "Zwei, drei.", "Vier."],
}


def opened(**config):
    return data.open({"name": "parallel", "vocab_size": 280, **config})


def pairs(dataset, split="test"):
    """The texts of a split, by their rows."""
    words, found = dataset.facts["tokenizer"], {}
    for batch in taken(dataset.split(split, 4)):
        for row in np.flatnonzero(batch["weight"]):
            texts = (words.decode(batch[name][row]) for name in ("source", "target"))
            found[int(batch["index"][row])] = tuple(texts)
    return [found[row] for row in sorted(found)]


def write(place, lines=LINES, names=("train", "test")):
    for name, (end, texts) in itertools.product(names, lines.items()):
        (place / f"{name}.{end}").write_text("\n".join(texts) + "\n")


@pytest.mark.parametrize("source, target", [("en", "de"), ("fr", "en")])
def test_a_folder_of_pairs_of_files(source, target):
    dataset = opened(
        path=str(PAIRS), source=source, target=target, validation="validation"
    )
    for split in ("validation", "test"):
        lines = [
            (PAIRS / f"{split}.{end}").read_text().splitlines()
            for end in (source, target)
        ]
        assert pairs(dataset, split) == list(zip(*lines, strict=True))
    assert dataset.size("train") == 40
    assert dataset.facts["notes"] == {"split": "by file"}
    assert dataset.files["tokenizer.json"] == dataset.facts["tokenizer"].file


def test_two_files_by_their_path(tmp_path):
    write(tmp_path, names=["corpus"])
    dataset = opened(path=f"{tmp_path}/corpus", train="train[:2]", test="train[2:]")
    assert dataset.size("train") == 2 and pairs(dataset) == [("Four.", "Vier.")]
    whole = opened(path=f"{tmp_path}/corpus", test="train")
    assert whole.facts["tokenizer"] == dataset.facts["tokenizer"]


def test_empty_lines_are_dropped_in_pairs_and_counted(tmp_path, caplog):
    write(tmp_path)
    (tmp_path / "train.en").write_text("\nOne.\n  \nTwo\n\nThree\r\n")
    (tmp_path / "train.de").write_text("Null.\nEins.\nx\n\nLeer.\nDrei")
    dataset = opened(path=str(tmp_path), validation="train")
    assert pairs(dataset, "validation") == [("One.", "Eins."), ("Three", "Drei")]
    assert "4 pairs with an empty side are left out" in caplog.messages
    notes = dataset.facts["notes"]
    assert notes["left out"] == {"pairs with an empty side": 4}
    assert notes["sources of test in train"] == 1  # "One."


@pytest.mark.parametrize(
    "files, message",
    [
        ({"train.de": b"Eins.\nZwei.\n"}, r"train\.en has 3 lines and .*train\.de 2;"),
        (
            {"test.de": b"a\nb\nc\nd\n"},
            r"test\.en has 3 lines and .*test\.de 4; line n",
        ),
        (
            {"train.de": b"Eins.\nZw\xc3\n"},
            r"line 2 of .*train\.de is not UTF-8: .*0xc3",
        ),
        ({"test.de": None}, r"test\.de cannot be read: No such file"),
        (
            {"train.en": None, "train.de": None},
            r"no train\.en and train\.de, but test$",
        ),
        ({"train.de": b"\n\n\n"}, "no pair of the training split"),
        ({"train.de": b"\xef\xbb\xbfa\nb\nc"}, None),
    ],
)
def test_what_is_wrong_with_files_is_one_sentence(tmp_path, files, message):
    write(tmp_path)
    for name, content in files.items():
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content)
    if message is None:  # a mark of the order of bytes is no text
        assert pairs(opened(path=str(tmp_path), test="train"))[0] == ("One.", "a")
        return
    with pytest.raises(settings.Invalid, match=message) as error:
        opened(path=str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "config, message",
    [
        ({}, "needs the setting 'path'"),
        ({"path": "x", "target": "en"}, "must be two languages, got 'en' twice"),
        ({"path": "nowhere"}, r"nowhere\.en cannot be read"),
        ({"path": str(PAIRS), "source": "nl", "target": "da"}, "no files in these"),
        ({"path": str(PAIRS), "test": "tset"}, "'tset'; did you mean 'test'"),
    ],
)
def test_settings_that_do_not_fit(config, message):
    with pytest.raises(settings.Invalid, match=message):
        opened(**config)


def test_tokens_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    write(tmp_path)
    before = pairs(opened(path=str(tmp_path)))
    parallel_pairs._prepared.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(parallel, "_read", lambda *_: pytest.fail("read again"))
        kept = opened(path=str(tmp_path))
        assert pairs(kept) == before
        assert pairs(opened(path=str(tmp_path), buckets=1)) == before
    (tmp_path / "test.de").write_text("Eins!\nZwei, drei.\nVier.\n")
    parallel_pairs._prepared.cache_clear()
    assert pairs(opened(path=str(tmp_path)))[0] == ("One.", "Eins!")


class Talks(tfds.core.GeneratorBasedBuilder):
    """A set of translations as TFDS has them."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="de-en"),)
    name = "test_talks_translate"

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.Translation(languages=("de", "en")),
            supervised_keys=("de", "en"),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split):
        for n in range(5):
            yield n, {"en": f"Talk {n} of {split}", "de": f"Rede {n}, {split}, schön"}


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("sets"))
    builder = Talks(data_dir=place, config="de-en", file_format="array_record")
    builder.download_and_prepare()
    return {"name": "test_talks_translate/de-en", "directory": place}


def test_a_set_of_tfds_by_name(talks):
    for source in ("", "de", "en"):
        dataset = opened(**talks, source=source)
        found = pairs(dataset)
        expected = {(f"Rede {n}, test, schön", f"Talk {n} of test") for n in range(5)}
        if source == "en":
            expected = {pair[::-1] for pair in expected}
        assert set(found) == expected
    assert opened(**talks, most=2).size("test") == 2
    with pytest.raises(settings.Invalid, match=r"'fr'.*valid: de, en"):
        opened(**talks, source="fr")


def test_a_set_of_tfds_without_a_split_to_train_on(talks, monkeypatch):
    columns = prepared.columns
    tested = lambda *given: {"test": columns(*given)["test"]}
    monkeypatch.setattr(prepared, "columns", tested)
    with pytest.raises(settings.Invalid, match="no split 'train' to train on, but te"):
        opened(**talks, most=3)


def test_names_of_tfds_that_are_translations(tmp_path):
    for name in ("wmt14_translate/de-en", "ted_hrlr_translate/pt_to_en"):
        with pytest.raises(settings.Invalid, match=f"'{name}' is not prepared in"):
            data.open({"name": name, "directory": str(tmp_path), "longest": 100})
    with pytest.raises(
        settings.Invalid, match=r"tfds, tensorflow_datasets\.translate;"
    ):
        data.open({"name": "wmt16_translate/de-en", "directory": str(tmp_path)})
    data.check({"name": "wmt14_translate/de-en:1.0.0", "source": "en"})
