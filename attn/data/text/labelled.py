"""labelled_text: texts with a class each, as bytes or sub-words."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

from attn import settings
from attn.data import splits
from attn.data.images import folder
from attn.data.source import Source
from attn.data.text import classified, documents, prepared, tokenizer
from attn.data.text.classified import Classified
from attn.data.text.ragged import Ragged, ragged
from attn.data.text.symbols import CLS, FIRST, PAD, Bytes
from attn.data.text.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")  # as of masked_text


class Texts(NamedTuple):
    """Texts and labels by split, the names of the classes, and what to note."""

    texts: dict[str, list[str]]
    labels: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    notes: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """labelled_text: texts with a class each, as bytes or sub-words.

    Fields "tokens" and "segments" (0), int32 [L], with their masks, and "label". Bytes
    are [CLS] and the text, as the Long Range Arena has them (Tay et al. 2021,
    arXiv:2011.04006, section 2.2.2); sub-words are [CLS], the text and [SEP], for BERT
    (Devlin et al. 2019, section 3.2). Longer texts are cut. Facts: vocab_size,
    max_length, pad, cls, sep (of sub-words), tokenizer, num_classes, class_names and
    notes.

    Attributes:
        source: "docstrings", of which package a docstring is; the path of a folder
            ROOT/CLASS/*.txt or ROOT/SPLIT/CLASS/*.txt, with a "/" in it; or the name
            of a set of TensorFlow Datasets with "text" and "label", such as
            "imdb_reviews".
        units: what the tokens are.
        length: tokens of a text, with those at its ends.
        packages: whose docstrings are read.
        directory: where sets of TFDS lie; "" for its usual place.
        most: texts read of each split; None for all. Not of folders.
        vocab_size: sub-words and special tokens, trained on the whole split "train".
        tokenizer: path of a `tokenizer.json` that is used instead; for a model that
            was trained already, the one in its work directory.
        buckets: lengths to which texts are padded, at most.
        budget: as of `attn.data.text.pairs.Pairs`.
    """

    source: str = "docstrings"
    units: Literal["bytes", "words"] = "bytes"
    length: settings.Positive = 256
    packages: tuple[str, ...] = tuple(documents.PACKAGES)
    directory: str = ""
    most: settings.Positive | None = None
    vocab_size: settings.Positive = 4000
    tokenizer: str = ""
    buckets: settings.Positive = 3
    budget: Literal["tokens", "examples"] = "tokens"

    def __post_init__(self) -> None:
        packages = tuple(dict.fromkeys(self.packages))  # to be hashed, each one class
        object.__setattr__(self, "packages", packages)
        check_tokenizer(self)
        if self.length < 3:
            raise settings.Invalid(f"length must be at least 3, got {self.length}")

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        words, found, texts = _opened(self)
        sizes = {name: one.tokens.size for name, one in found.items()}
        name, part = splits.part(split, sizes, self.source)
        facts = {
            "vocab_size": words.vocab_size,
            "tokenizer": words,
            "notes": texts.notes,
            **special(words),
        }
        return classified.source(
            found[name].part(part),
            classified.edges(found, self.buckets),
            self.budget,
            texts.class_names,
            facts,
            files=tokenizer.files(words, texts.notes),
        )


@functools.lru_cache(maxsize=2)
def _opened(
    config: LabelledText,
) -> tuple[Bytes | Tokenizer, dict[str, Classified], Texts]:
    """All splits as tokens."""
    texts = _texts(config)
    words = vocabulary(config, texts.texts["train"])
    found = {
        name: Classified(tokens(words, some, config.length), texts.labels[name])
        for name, some in texts.texts.items()
    }
    return words, found, texts


def check_tokenizer(config: Any) -> None:
    """Refuses the path of a tokenizer where tokens are bytes."""
    if config.tokenizer and config.units == "bytes":
        raise settings.Invalid(
            f"tokenizer={config.tokenizer!r} needs units='words', got 'bytes'"
        )


def vocabulary(config: Any, texts: Iterable[str]) -> Bytes | Tokenizer:
    """What makes the tokens of some texts that are to be classified.

    Args:
        config: of a data set, with units, tokenizer and vocab_size.
        texts: to train sub-words on, unless there is a tokenizer.
    """
    if config.units == "bytes":
        return Bytes()
    if config.tokenizer:
        return tokenizer.load(config.tokenizer)
    return tokenizer.train((f" {t}" for t in texts), config.vocab_size, SPECIAL)


def special(words: Bytes | Tokenizer) -> dict[str, int]:
    """The special tokens, as facts."""
    if isinstance(words, Bytes):
        return {"pad": PAD, "cls": CLS}
    return {role: words.special(role) for role in ("pad", "cls", "sep")}


def tokens(words: Bytes | Tokenizer, texts: Iterable[str], length: int) -> Ragged:
    """Texts as tokens, with those at their ends, cut to a length."""
    if isinstance(words, Bytes):
        cut = [text.encode()[: length - 1] for text in texts]
        return ragged(
            np.concatenate(
                [[CLS], np.frombuffer(one, np.uint8).astype(np.int32) + FIRST]
            )
            for one in cut
        )
    first, last = [words.special("cls")], [words.special("sep")]
    # with a space before it, as sentences of masked_text
    rows = words.encode_all(f" {text}" for text in texts).cut(length - 2).rows()
    return ragged(np.concatenate([first, row, last]) for row in rows)


def _texts(config: LabelledText) -> Texts:
    if config.source == "docstrings":
        return _docstrings(config)
    if documents.is_path(config.source):
        return _files(pathlib.Path(config.source).expanduser())
    known, names = prepared.labelled(
        config.source, config.directory, ("text",), config.most
    )
    return Texts(
        {name: one["text"] for name, one in known.items()},
        {name: np.array(one["label"], np.int32) for name, one in known.items()},
        names,
        {"split": "as in TensorFlow Datasets"},
    )


def _docstrings(config: LabelledText) -> Texts:
    """Docstrings, in an order in which every part has its share of each package."""
    found, notes = documents.by_package(config.packages)
    names = tuple(sorted(config.packages))
    texts, labels = {}, {}
    for split, docs in found.items():
        whole = [(package, " ".join(sentences)) for package, sentences in docs]
        whole = sorted(whole, key=lambda pair: documents.number(pair[1]))[: config.most]
        texts[split] = [text for _, text in whole]
        labels[split] = np.array([names.index(p) for p, _ in whole], np.int32)
    return Texts(texts, labels, names, notes)


def _files(root: pathlib.Path) -> Texts:
    """Files in folders of classes.

    Raises:
        Invalid: no such folder, no texts in it, or one that is not UTF-8.
    """
    if not root.is_dir():
        raise settings.Invalid(f"the folder of texts {str(root)!r} does not exist")
    places = folder.class_folders(root)
    names = tuple(sorted({one.name for place in places.values() for one in place}))
    texts, labels = {}, {}
    for split, place in places.items():
        paths = [path for one in place for path in one.glob("[!.]*.txt")]
        paths.sort(key=folder.hash_of)
        texts[split] = ["\n".join(documents.lines(path)) for path in paths]
        found = [names.index(path.parent.name) for path in paths]
        labels[split] = np.array(found, np.int32)
    texts = {split: some for split, some in texts.items() if some}
    if not texts.get("train"):
        raise settings.Invalid(
            f"the folder {str(root)!r} has no texts to train on: they are looked for as"
            " CLASS/*.txt or train/CLASS/*.txt"
        )
    return Texts(texts, labels, names, {"split": "by folder"})
