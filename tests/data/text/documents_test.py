"""Documents: docstrings without leaks, text files, and what is wrong with them."""

import pytest

from attn import settings
from attn.data.text import babel, documents

CODE = '''
"""A module of examples. It has two sentences here.

Things to know
--------------

This paragraph is *prose* about `numpy` and :func:`jax.jit <x>`.
It goes on, e.g. in a second line! Does it end there?

>>> left_out = "an example."

* A list that is left out.

    Indented code that is left out.
"""

def function(x):
    r"""Returns the very same \\value as it got.

    Args:
      x: Left out as well.
    """

class Empty:
    pass
'''


def test_prose_of_docstrings():
    found = [documents._prose(text) for text in documents._of_module(CODE)]
    assert found == [
        [
            "A module of examples.",
            "It has two sentences here.",
            "This paragraph is prose about numpy and jax.jit.",
            "It goes on, e.g. in a second line!",
            "Does it end there?",
        ],
        [r"Returns the very same \value as it got."],
    ]
    assert (
        documents._prose("Too short. A is 1 2 3 4 5 6 7. and no capital letter.") == []
    )
    assert list(documents._of_module("def broken(:")) == []


@pytest.fixture(scope="module")
def optax():
    return documents.docstrings(("optax",))


def test_docstrings_of_a_package(optax):
    found, notes = optax
    assert (
        set(found) == {"train", "validation", "test"} and "optax" in notes["packages"]
    )
    sizes = {name: len(docs) for name, docs in found.items()}
    assert sizes["train"] > 200 and min(sizes.values()) > 10
    for docs in found.values():
        for document in docs:
            for sentence in document:
                assert 4 <= len(sentence.split()) <= 60
                assert ">>>" not in sentence and "\n" not in sentence


def test_no_sentence_is_in_two_splits(optax):
    sets = [{s for document in docs for s in document} for docs in optax[0].values()]
    one, two, three = sets
    assert not one & two and not one & three and not two & three


def test_documents_break_where_a_sentence_was_seen():
    parts = documents._without(["a", "b", "c", "d", "b", "b", "e"], {"b"})
    assert list(parts) == [["a"], ["c", "d"], ["e"]]
    assert list(documents._without(["b"], {"b"})) == []


def test_files_by_split(tmp_path):
    (tmp_path / "train.txt").write_text("One.\nTwo.\n\n\nThree.\n  \nFour. \nFive.")
    (tmp_path / "test.txt").write_text("Six.\n")
    (tmp_path / "validation.txt").write_text("\n")
    found, _ = documents.read(str(tmp_path), (), "", None)
    assert found == {
        "train": [["One.", "Two."], ["Three."], ["Four.", "Five."]],
        "test": [["Six."]],
    }
    assert documents.read(str(tmp_path), (), "", 1)[0]["train"] == [["One.", "Two."]]


def test_files_without_splits_are_split_by_document(tmp_path):
    texts = [f"Sentence {n}.\nIt goes on, {n}." for n in range(200)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "first.txt").write_text("\n\n".join(texts[:100]))
    (tmp_path / "second.txt").write_text("\n\n".join(texts[100:]))
    (tmp_path / "third.md").write_text("Not read.")
    (tmp_path / "._second.txt").write_bytes(b"\xff")
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / ".checkpoints" / "second.txt").write_text("Not read.")
    found, _ = documents.read(str(tmp_path), (), "", None)
    assert sorted("\n".join(d) for docs in found.values() for d in docs) == sorted(
        texts
    )
    assert 8 < len(found["validation"]) < 40 and 8 < len(found["test"]) < 40
    # whatever else there is
    alone, _ = documents.read(str(tmp_path / "second.txt"), (), "", None)
    assert all(d in found[name] for name, docs in alone.items() for d in docs)


@pytest.mark.parametrize(
    "content, message",
    [
        (
            b"one\ntwo \xff\xfe\n",
            r"line 2 of .*a\.txt is not UTF-8: byte 0xff at col.* 5",
        ),
        (b"\n\n", "has no documents to train on"),
        (None, r"is no file, and no folder with \.txt files"),
    ],
)
def test_what_is_wrong_with_files_is_one_sentence(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(settings.Invalid, match=message):
        documents.read(str(tmp_path), (), "", None)


def test_phrases_are_followed_by_their_translations(monkeypatch):
    few = babel.Babel(train_size=60, eval_size=10)
    monkeypatch.setattr(documents, "TRANSLATED", few)
    found, notes = documents.read("babel", (), "", None)
    assert {name: len(docs) for name, docs in found.items()} == {
        "train": 60,
        "validation": 10,
        "test": 10,
    }
    texts, same = few.texts()
    assert notes == same and "held out" in notes["split"]
    sides = zip(texts["test"].sources, texts["test"].targets, strict=True)
    assert found["test"] == [list(pair) for pair in sides]


def test_other_names(tmp_path):
    with pytest.raises(settings.Invalid, match="'nump'; did you mean 'numpy'"):
        documents.read("docstrings", ("nump",), "", None)
    with pytest.raises(settings.Invalid, match="'lm1b' is not prepared in"):
        documents.read("lm1b", (), str(tmp_path), None)
