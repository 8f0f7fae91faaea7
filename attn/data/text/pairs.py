"""Pairs of texts as sources and targets of tokens, for translation."""

import dataclasses
import functools
import io
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from attn import settings
from attn.data import buckets, cache, splits
from attn.data.source import Batch, Source
from attn.data.text import tokenizer
from attn.data.text.ragged import Ragged
from attn.data.text.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[START]", "[END]", "[UNK]")
MULTIPLE = 8  # of which every padded length is one

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # launch.py silences libraries


class Texts(NamedTuple):
    """One split of a set of pairs.

    sources, targets: the texts, n each.
    kinds: what each pair is of, int32 [n], or None where there is one kind.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    kinds: np.ndarray | None = None


class Tokens(NamedTuple):
    """One split as tokens, without start and end."""

    sources: Ragged
    targets: Ragged
    kinds: np.ndarray | None

    @property
    def lengths(self) -> np.ndarray:
        """Of the longer side of each pair, with the start or the end, int [n]."""
        return np.maximum(self.sources.lengths, self.targets.lengths + 1)


class Prepared(NamedTuple):
    """A whole set of pairs as tokens."""

    tokenizer: Tokenizer
    splits: Mapping[str, Tokens]
    edges: tuple[int, ...]
    notes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Base of sets of pairs, which say what their texts are (`texts`).

    Fields, of L tokens each:

        source     int32 [L], the words of the source
        target_in  int32 [L], the start and the words of the target
        target     int32 [L], the words of the target and the end
        kind       int32, where pairs are of several kinds (facts: kinds, their names)

    with their masks source_mask, target_in_mask and target_mask, bool [L]; padding is
    0. Facts: vocab_size, max_length, pad, start, end, tokenizer
    (`attn.data.text.tokenizer.Tokenizer`) and notes: what there is to know of the data.
    Source and target share a vocabulary (Vaswani et al. 2017, section 5.1).

    Attributes:
        vocab_size: sub-words and special tokens, trained on the whole split "train".
        tokenizer: path of a `tokenizer.json` that is used instead.
        longest: tokens of a side, start or end included.
        over: what becomes of pairs over `longest`: left out, or cut to it. How many
            there are is said, and noted.
        buckets: lengths to which sequences are padded, at most.
        budget: "tokens" makes batches of shorter sequences larger, to about as many
            tokens each; "examples" has as many examples in every batch.
    """

    vocab_size: settings.Positive = 2000
    tokenizer: str = ""
    longest: settings.Positive = 64
    over: Literal["skip", "cut"] = "skip"
    buckets: settings.Positive = 4
    budget: Literal["tokens", "examples"] = "tokens"

    def texts(self) -> tuple[Mapping[str, Texts], dict[str, Any]]:
        """The texts of each split, "train" among them, and what to note of them."""
        raise NotImplementedError

    def identity(self) -> list[str]:
        """What else tells one set of texts from another, found without reading them.

        With the settings, it is what their tokens are kept on disk by.
        """
        raise NotImplementedError

    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds of pairs, where there are several.

        Then those of "test" of a kind are the split "test_KIND".
        """
        return ()

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        found = _prepared(self)
        sizes = {name: one.sources.size for name, one in found.splits.items()}
        label = getattr(self, "name", type(self).__name__.lower())
        name, part = splits.part(split, sizes, label)
        return _source(self, found, _part(found.splits[name], part))


@functools.lru_cache(maxsize=4)
def _prepared(pairs: Pairs) -> Prepared:
    """Everything as tokens; remembers the last few, and on disk what they were."""
    code = pathlib.Path(__file__).read_bytes()
    # these have no part in it
    made = dataclasses.replace(pairs, buckets=1, budget="tokens", tokenizer="")
    words = tokenizer.load(pairs.tokenizer) if pairs.tokenizer else None
    key = [code, type(pairs).__name__, repr(made), tokenizer.version()]
    key += [words.file if words else b"", *pairs.identity()]
    content = cache.kept("pairs", key, lambda: _packed(*_tokens(pairs, words)))
    words, found, notes = _unpacked(content)
    for what in ("left out", "cut"):
        for name, count in notes.get(what, {}).items():
            log.warning("%d %s are %s", count, name, what)
    if not found["train"].sources.size:
        raise settings.Invalid(
            f"no pair of the training split has at most longest={pairs.longest} tokens"
        )
    for number, kind in enumerate(pairs.kinds()):
        rows = np.flatnonzero(found["test"].kinds == number)
        found[f"test_{kind}"] = _taken(found["test"], rows)
    lengths = np.concatenate([one.lengths for one in found.values()])
    edges = buckets.boundaries(lengths, pairs.buckets, multiple=MULTIPLE)
    return Prepared(words, found, edges, notes)


def _tokens(
    pairs: Pairs, words: Tokenizer | None
) -> tuple[Tokenizer, dict[str, Tokens], dict[str, Any]]:
    """The tokenizer, by default a new one, the tokens of each split, and notes."""
    texts, notes = pairs.texts()
    if words is None:
        seen = [*texts["train"].sources, *texts["train"].targets]
        words = tokenizer.train(seen, pairs.vocab_size, SPECIAL)
    found, over = {}, 0
    for name, split in texts.items():
        sides = (words.encode_all(side) for side in (split.sources, split.targets))
        found[name], count = _limited(Tokens(*sides, split.kinds), pairs)
        over += count
    if over:
        what = "left out" if pairs.over == "skip" else "cut"
        notes.setdefault(what, {})[f"pairs of over {pairs.longest} tokens"] = over
    return words, found, notes | _overlap(texts)


def _packed(
    words: Tokenizer, found: Mapping[str, Tokens], notes: Mapping[str, Any]
) -> bytes:
    """What `_tokens` gives as the bytes of an .npz."""
    arrays = {"words": np.frombuffer(words.file, np.uint8)}
    arrays["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    for name, tokens in found.items():
        for side, ragged in (("s", tokens.sources), ("t", tokens.targets)):
            arrays[f"{side}/{name}"], arrays[f"{side}ends/{name}"] = ragged
        if tokens.kinds is not None:
            arrays[f"kinds/{name}"] = tokens.kinds
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _unpacked(
    content: bytes,
) -> tuple[Tokenizer, dict[str, Tokens], dict[str, Any]]:
    """What `_packed` made bytes of."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    names = [name[2:] for name in arrays if name.startswith("s/")]
    found = {
        name: Tokens(
            Ragged(arrays[f"s/{name}"], arrays[f"sends/{name}"]),
            Ragged(arrays[f"t/{name}"], arrays[f"tends/{name}"]),
            arrays.get(f"kinds/{name}"),
        )
        for name in names
    }
    words = Tokenizer(arrays["words"].tobytes())
    return words, found, json.loads(arrays["notes"].tobytes())


def _overlap(texts: Mapping[str, Texts]) -> dict[str, int]:
    """How many sources of other splits are in the training split too."""
    known = set(texts["train"].sources)
    counts = {
        f"sources of {name} in train": sum(one in known for one in split.sources)
        for name, split in texts.items()
        if name != "train"
    }
    return {name: count for name, count in counts.items() if count}


def _limited(tokens: Tokens, pairs: Pairs) -> tuple[Tokens, int]:
    """Pairs of the longest length at most, and how many were over it."""
    over = tokens.lengths > pairs.longest
    if not over.any():
        return tokens, 0
    if pairs.over == "cut":
        sources = tokens.sources.cut(pairs.longest)
        targets = tokens.targets.cut(pairs.longest - 1)
        return Tokens(sources, targets, tokens.kinds), int(over.sum())
    return _taken(tokens, np.flatnonzero(~over)), int(over.sum())


def _part(tokens: Tokens, part: range) -> Tokens:
    if len(part) == tokens.sources.size:
        return tokens
    return _taken(tokens, np.arange(part.start, part.stop))


def _taken(tokens: Tokens, rows: np.ndarray) -> Tokens:
    kinds = None if tokens.kinds is None else tokens.kinds[rows]
    return Tokens(tokens.sources.take(rows), tokens.targets.take(rows), kinds)


def _source(pairs: Pairs, found: Prepared, tokens: Tokens) -> Source:
    words = found.tokenizer
    start, end = (np.array([words.special(n)], np.int32) for n in ("start", "end"))

    def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
        del draws
        targets = [tokens.targets.row(row) for row in rows.tolist()]
        batch = {
            "source": [tokens.sources.row(row) for row in rows.tolist()],
            "target_in": [np.concatenate([start, target]) for target in targets],
            "target": [np.concatenate([target, end]) for target in targets],
        }
        return batch if tokens.kinds is None else batch | {"kind": tokens.kinds[rows]}

    facts = {
        "vocab_size": words.vocab_size,
        "max_length": found.edges[-1],
        "pad": words.special("pad"),
        "start": int(start[0]),
        "end": int(end[0]),
        "tokenizer": words,
        "notes": found.notes,
    }
    plan = buckets.by_length(
        tokens.lengths, found.edges, tokens=pairs.budget == "tokens"
    )
    return Source(
        tokens.sources.size,
        read,
        facts | ({"kinds": pairs.kinds()} if pairs.kinds() else {}),
        buckets=plan,
        files=tokenizer.files(words, found.notes),
    )
