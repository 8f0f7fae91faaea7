"""text_pairs: two texts each, and how they go together.

Of phrases and their translations every other pair is false: its second text is the
translation of another phrase, among those next to the right one in the alphabet, which
begin alike. Of docstrings a pair is of one package or of two, and each package comes as
often as any other in both kinds; so neither text alone tells the label. These pairs are
a function of a fixed seed.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from attn import settings
from attn.data import buckets, order, splits
from attn.data.draws import integers
from attn.data.source import Batch, Source
from attn.data.text import documents, labelled, prepared, tokenizer
from attn.data.text.classified import MULTIPLE
from attn.data.text.ragged import Ragged, ragged
from attn.data.text.symbols import Bytes
from attn.data.text.tokenizer import Tokenizer

SEED = 0  # of the pairs, the same in every run
NEAR = 4  # neighbours in the alphabet on each side, of which one is taken
FILES = {"train": "train", "validation": "eval", "test": "test"}


class Texts(NamedTuple):
    """One split: n texts, n others, and labels int32 [n]."""

    first: Sequence[str]
    second: Sequence[str]
    labels: np.ndarray


class Pairs(NamedTuple):
    """Pairs by split, names of classes, notes, and texts to train sub-words on."""

    texts: dict[str, Texts]
    class_names: tuple[str, ...]
    notes: dict[str, Any]
    corpus: Sequence[str]


class Tokens(NamedTuple):
    """One split as tokens: one row for each pair, or one for each of its texts."""

    rows: tuple[Ragged, ...]
    segments: Ragged | None
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Of the longer row of each pair, int [n]."""
        return np.max([one.lengths for one in self.rows], axis=0)


@dataclasses.dataclass(frozen=True)
class TextPairs:
    """text_pairs: two texts each, and how they go together.

    Fields, of L tokens each, with their masks, and "label":

        tokens, segments   int32 [L], [CLS] A [SEP] B [SEP] and 0 or 1, if texts are
                           "joined" (Devlin et al. 2019, arXiv:1810.04805, section 3.2)
        first, second      int32 [L], if they are "apart": bytes behind [CLS] as in the
                           Long Range Arena (Tay et al. 2021, arXiv:2011.04006, section
                           2.2.3), or sub-words between [CLS] and [SEP]

    Facts: vocab_size, max_length, pad, cls, sep (of sub-words), tokenizer, num_classes,
    class_names and notes.

    Attributes:
        source: "docstrings", whether two of them are of the same package; "babel",
            whether a German text translates an English one; the path of a folder of
            files *train.tsv, *eval.tsv and *test.tsv, whose lines have the label, 0 or
            1, in the first column and the texts in the last two, as the Arena's
            have; or the name of a set of TensorFlow Datasets with a "label", such as
            "glue/mrpc".
        columns: the two texts of a set of TensorFlow Datasets.
        form: one row for both texts, of sub-words; or one for each.
        units: what the tokens are.
        length: tokens of a row, with the special ones; of two texts that are joined
            the longer one is cut first.
        packages: whose docstrings are read.
        directory: where sets of TFDS lie; "" for its usual place.
        most: pairs of each split; None for all.
        vocab_size: sub-words and special tokens, trained on the whole split "train".
        tokenizer: path of a `tokenizer.json` that is used instead; for a model that
            was trained already, the one in its work directory.
        buckets: lengths to which rows are padded, at most.
        budget: as of `attn.data.text.pairs.Pairs`.
    """

    source: str = "docstrings"
    columns: tuple[str, str] = ("sentence1", "sentence2")
    form: Literal["joined", "apart"] = "joined"
    units: Literal["bytes", "words"] = "words"
    length: settings.Positive = 64
    packages: tuple[str, ...] = tuple(documents.PACKAGES)
    directory: str = ""
    most: settings.Positive | None = None
    vocab_size: settings.Positive = 4000
    tokenizer: str = ""
    buckets: settings.Positive = 3
    budget: Literal["tokens", "examples"] = "tokens"

    def __post_init__(self) -> None:
        for name in ("packages", "columns"):  # to be hashed
            object.__setattr__(self, name, tuple(getattr(self, name)))
        labelled.check_tokenizer(self)
        if self.length < 8:
            raise settings.Invalid(f"length must be at least 8, got {self.length}")
        if self.form == "joined" and self.units == "bytes":
            raise settings.Invalid(
                "form='joined' needs units='words', as bytes have no [SEP]; got 'bytes'"
            )

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        words, found, (_, class_names, notes, _) = _opened(self)
        sizes = {name: len(one.labels) for name, one in found.items()}
        name, part = splits.part(split, sizes, self.source)
        lengths = {name: one.lengths for name, one in found.items()}
        edges = buckets.boundaries(
            np.concatenate(list(lengths.values())), self.buckets, multiple=MULTIPLE
        )
        facts = {
            "num_classes": len(class_names),
            "class_names": class_names,
            "max_length": edges[-1],
            "vocab_size": words.vocab_size,
            "tokenizer": words,
            "notes": notes,
            **labelled.special(words),
        }
        return Source(
            len(part),
            functools.partial(_read, found[name], part.start),
            facts,
            buckets=buckets.by_length(
                lengths[name][part.start : part.stop],
                edges,
                tokens=self.budget == "tokens",
            ),
            files=tokenizer.files(words, notes),
        )


def _read(tokens: Tokens, start: int, rows: np.ndarray, draws: np.ndarray) -> Batch:
    del draws
    numbers = (rows + start).tolist()
    taken = lambda column: [column.row(n).astype(np.int32) for n in numbers]
    batch: Batch = {"label": tokens.labels[rows + start]}
    if tokens.segments is None:
        first, second = tokens.rows
        return {"first": taken(first), "second": taken(second), **batch}
    return {"tokens": taken(*tokens.rows), "segments": taken(tokens.segments), **batch}


@functools.lru_cache(maxsize=2)
def _opened(config: TextPairs) -> tuple[Bytes | Tokenizer, dict[str, Tokens], Pairs]:
    """All splits as tokens."""
    pairs = _pairs(config)
    words = labelled.vocabulary(config, pairs.corpus)
    found = {}
    for name, one in pairs.texts.items():
        one = Texts(*(column[: config.most] for column in one))
        if config.form == "apart":
            sides = (one.first, one.second)
            rows = tuple(labelled.tokens(words, s, config.length) for s in sides)
            found[name] = Tokens(rows, None, one.labels)
        else:
            row, segments = _joined(words, one, config.length)
            found[name] = Tokens((row,), segments, one.labels)
    return words, found, pairs


def _joined(words: Tokenizer, texts: Texts, length: int) -> tuple[Ragged, Ragged]:
    """[CLS] A [SEP] B [SEP] of each pair, and the segments of its tokens."""
    cls, sep = ([words.special(role)] for role in ("cls", "sep"))
    sides = (words.encode_all(f" {t}" for t in side) for side in texts[:2])
    rows, segments = [], []
    for a, b in zip(*(side.rows() for side in sides), strict=True):
        a, b = _fit(a, b, length - 3)
        rows.append(np.concatenate([cls, a, sep, b, sep]))
        segments.append(np.repeat([0, 1], [len(a) + 2, len(b) + 1]))
    return ragged(rows), ragged(segments)


def _fit(a: np.ndarray, b: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """The beginnings of two texts, of which the longer one is cut first."""
    keep = max(room - room // 2, room - len(b))
    return a[:keep], b[: room - min(len(a), keep)]


def _pairs(config: TextPairs) -> Pairs:
    """The texts of all splits."""
    if config.source == "docstrings":
        docs, notes = documents.by_package(config.packages)
        found = {name: _packages(name, some) for name, some in docs.items()}
        return Pairs(found, ("of two packages", "of one package"), notes, _all(found))
    if config.source == "babel":
        docs, notes = documents.translations()
        found = {name: _translations(name, some) for name, some in docs.items()}
        # that of masked_text, whose models then fit
        corpus = [text for pair in docs["train"] for text in pair]
        return Pairs(found, ("of another", "the translation"), notes, corpus)
    if documents.is_path(config.source):
        found = _files(pathlib.Path(config.source).expanduser())
        return Pairs(found, ("0", "1"), {"split": "by file"}, _all(found))
    rows, names = prepared.labelled(
        config.source, config.directory, config.columns, config.most
    )
    found = {
        name: Texts(*(one[c] for c in config.columns), np.array(one["label"], np.int32))
        for name, one in rows.items()
    }
    return Pairs(found, names, {"split": "as in TensorFlow Datasets"}, _all(found))


def _all(texts: Mapping[str, Texts]) -> list[str]:
    """The texts of training, each once."""
    return sorted({*texts["train"].first, *texts["train"].second})


def _packages(split: str, docs: Sequence[tuple[str, Sequence[str]]]) -> Texts:
    """As many pairs as there are docstrings, of one package or of two."""
    by_name: dict[str, list[str]] = {}
    for package, sentences in docs:
        by_name.setdefault(package, []).append(" ".join(sentences))
    names = sorted(name for name, texts in by_name.items() if len(texts) > 1)
    if len(names) < 2:
        raise settings.Invalid(
            f"pairs of docstrings need two packages with some in {split!r}, got"
            f" {', '.join(names) or 'none'}"
        )
    purpose = order.PURPOSES[split]
    draws = order.uniform(SEED, purpose, 0, len(docs), 5, "text_pairs").T
    label, one = (draws[0] < 0.5).astype(np.int32), integers(draws[1], len(names))
    another = (one + 1 + integers(draws[2], len(names) - 1)) % len(names)
    other = np.where(label, one, another)
    first, second = [], []
    for own, theirs, a, b in zip(one, other, draws[3], draws[4], strict=True):
        texts, others = by_name[names[own]], by_name[names[theirs]]
        place = int(a * len(texts))
        if own == theirs:  # not the same text twice
            others = texts[:place] + texts[place + 1 :]
        first.append(texts[place])
        second.append(others[int(b * len(others))])
    return Texts(first, second, label)


def _translations(split: str, docs: Sequence[Sequence[str]]) -> Texts:
    """Phrases with their translations, or with those of others, every other time."""
    sources, targets = zip(*docs, strict=True)
    known, place = np.unique(np.array(targets, object), return_inverse=True)
    purpose = order.PURPOSES[split]
    draws = order.uniform(SEED, purpose, 0, len(docs), 2, "text_pairs").T
    label = (draws[0] < 0.5).astype(np.int32)
    near = integers(draws[1], 2 * NEAR) - NEAR
    near += near >= 0  # not itself
    others = known[(place + near) % len(known)]
    second = np.where(label, np.array(targets, object), others)
    return Texts(sources, second.tolist(), label)


def _files(folder: pathlib.Path) -> dict[str, Texts]:
    """The pairs of the files of tab-separated values in a folder.

    Raises:
        Invalid: no folder, no file to train on, two of one split, or a line that is not
            of this form.
    """
    if not folder.is_dir():
        raise settings.Invalid(f"the folder of pairs {str(folder)!r} does not exist")
    found = {}
    for split, end in FILES.items():
        paths = sorted(folder.glob(f"*{end}.tsv"))
        paths = [path for path in paths if not path.name.startswith(".")]
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths[:2])
            raise settings.Invalid(f"{folder} has two files of pairs, {names}")
        if paths:
            found[split] = _file(paths[0])
    if "train" not in found:
        raise settings.Invalid(f"{folder} has no file *train.tsv of pairs to train on")
    return found


def _file(path: pathlib.Path) -> Texts:
    first, second, labels = [], [], []
    for number, line in enumerate(documents.lines(path, around="\r"), start=1):
        columns = line.split("\t")
        known = len(columns) >= 3 and columns[0] in ("0", "1", "0.0", "1.0")
        if not known or not all(text.strip() for text in columns[-2:]):
            raise settings.Invalid(
                f"line {number} of {path} must have a label, 0 or 1, and two texts with"
                f" tabs between them, got {line[:40]!r}"
            )
        labels.append(int(float(columns[0])))
        first.append(columns[-2])
        second.append(columns[-1])
    return Texts(first, second, np.array(labels, np.int32))
