"""masked_text: running text with masked words, and pairs of segments, for BERT.

Devlin, Chang, Lee and Toutanova 2019, arXiv:1810.04805, section 3.1 and appendices A.1
and A.2. A row is a run of sentences of one document, about as many as fill it, cut
between two sentences anew each time that it comes: segment A before the cut, and for B
either what follows or, every other time, sentences of another document. 15 % of the
positions are chosen anew each time; of these 80 % become [MASK], 10 % a random word,
and 10 % stay as they are. Every sentence is encoded with a space before it.

The other objective predicts the next word from those before it, of a model that is
causal ("LTR" in section 5.1). It trains on all words of a row, none of them masked, and
is evaluated on the words that are masked for the first, so that a perplexity is of the
same words: given all words before them, and not those around them.

What differs from the authors' code: masks are drawn at each step, not ten times
beforehand. Runs of one sentence, which have nothing to follow, are left out instead of
becoming random pairs, which keeps the pairs half and half. What does not follow is the
rest behind a cut as well, of a run in another document, and about as long, so that
neither its style nor its length tells. Rows are padded to buckets, and no tenth of them
is made shorter for that. A pair that is too long loses the beginning of A and the end
of B, so that what meets remains.
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np

from attn import settings
from attn.data import buckets, splits
from attn.data.draws import integers, named
from attn.data.source import Batch, Source
from attn.data.text import documents, tokenizer
from attn.data.text.ragged import Ragged
from attn.data.text.runs import Runs, cut
from attn.data.text.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")
ENDS = 3  # [CLS] and two [SEP]
MULTIPLE = 8  # of which every padded length is one
TRIES = 64  # texts of other documents of which the one of the nearest length is taken

Share = Annotated[float, settings.Range("a number from 0 to 1", 0, 1)]

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # launch.py silences libraries


@dataclasses.dataclass(frozen=True)
class MaskedText:
    """masked_text: running text with masked words, and pairs of segments.

    Fields, with L tokens and P places of masked words:

        tokens    int32 [L]: [CLS] A [SEP] B [SEP], with tokens_mask
        segments  int32 [L]: 0 for [CLS] A [SEP], 1 for B [SEP]
        places    int32 [P]: where words are masked, ascending, with places_mask; or,
                  to predict next words, the places before them
        masked    int32 [P]: the words that were there, or come next
        is_next   int32: 1 if B follows A, else 0

    Facts: vocab_size, max_length, pad, cls, sep, mask, tokenizer, notes, and causal,
    whether a place must not be told of later ones. Splits are those of the source;
    `attn.data.text.documents` says which. Validation and test have the same masks each
    time, in the proportions `eval_mask` and `eval_random`, so that models that were
    trained with other ones can be compared.

    Attributes:
        source: "docstrings"; "babel", phrases with their translations; the path of a
            text file or of a folder of them; or the name of a set of TensorFlow
            Datasets with a "text" of several sentences, such as "imdb_reviews".
        packages: whose docstrings are read.
        directory: where sets of TFDS lie; "" for its usual place.
        most: documents read of each split; None for all.
        vocab_size: sub-words and special tokens, trained on the whole split "train".
        tokenizer: path of a `tokenizer.json` that is used instead.
        length: tokens of a row.
        buckets: lengths to which rows are padded, at most.
        budget: as of `attn.data.text.pairs.Pairs`.
        next_sentence: whether B follows A only half of the time; else there is one
            segment, [CLS] A [SEP], from the same rows, and no is_next.
        predict: "masked" words, or the "next" word at every place, unmasked.
        rate: share of the positions that are masked.
        mask: share of these that become [MASK], in "train" and parts of it.
        random: share of these that become a random word; the others stay.
        eval_mask, eval_random: likewise, in other splits.
    """

    source: str = "docstrings"
    packages: tuple[str, ...] = tuple(documents.PACKAGES)
    directory: str = ""
    most: settings.Positive | None = None
    vocab_size: settings.Positive = 4000
    tokenizer: str = ""
    length: settings.Positive = 64
    buckets: settings.Positive = 3
    budget: Literal["tokens", "examples"] = "tokens"
    next_sentence: bool = True
    predict: Literal["masked", "next"] = "masked"
    rate: Annotated[float, settings.Range("above 0, up to 0.5", 0, 0.5, "low")] = 0.15
    mask: Share = 0.8
    random: Share = 0.1
    eval_mask: Share = 0.8
    eval_random: Share = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "packages", tuple(self.packages))  # to be hashed
        for one, other in (("mask", "random"), ("eval_mask", "eval_random")):
            if (total := getattr(self, one) + getattr(self, other)) > 1 + 1e-9:
                raise settings.Invalid(
                    f"{one} and {other} are shares of the masked words and must be 1"
                    f" together at most, got {total:g}"
                )
        if self.length < 2 * MULTIPLE:
            raise settings.Invalid(
                f"length must be at least {2 * MULTIPLE}, got {self.length}"
            )

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        words, runs, notes = _runs(self)
        sizes = {name: len(one.starts) for name, one in runs.items()}
        name, part = splits.part(split, sizes, self.source)
        lengths = {name: _lengths(self, one) for name, one in runs.items()}
        edges = buckets.boundaries(
            np.concatenate(list(lengths.values())), self.buckets, multiple=MULTIPLE
        )
        plan = buckets.by_length(
            lengths[name][part.start : part.stop],
            edges,
            tokens=self.budget == "tokens",
        )
        made = _Maker(self, words, runs[name].part(part), name == "train", plan)
        facts = {
            "vocab_size": words.vocab_size,
            "max_length": edges[-1],
            "tokenizer": words,
            "notes": notes,
            "causal": self.predict == "next",
        }
        roles = ("pad", "cls", "sep", "mask")
        return Source(
            len(part),
            made.read,
            facts | {role: words.special(role) for role in roles},
            draws=sum(made.counts.values()),
            buckets=plan,
            lengths=dict.fromkeys(("places", "masked"), made.places),
            files=tokenizer.files(words, notes),
        )


def _lengths(config: MaskedText, runs: Runs) -> np.ndarray:
    """Of the rows of some runs, int [n]."""
    ends = ENDS if config.next_sentence else ENDS - 1
    return np.minimum(runs.tokens + ends, config.length)


@functools.lru_cache(maxsize=4)
def _prepared(
    source: str,
    packages: tuple[str, ...],
    directory: str,
    most: int | None,
    vocabulary: str | int,
) -> tuple[Tokenizer, dict[str, tuple[Ragged, np.ndarray]], dict[str, Any]]:
    """Tokenizer, and tokens of the sentences and ends of the documents by split.

    Args:
        source, packages, directory, most: as of `documents.read`.
        vocabulary: the path of a tokenizer, or the size of one to be trained.
    """
    found, notes = documents.read(source, packages, directory, most)
    flat = {name: [s for d in docs for s in d] for name, docs in found.items()}
    if isinstance(vocabulary, str):
        words = tokenizer.load(vocabulary)
    else:
        train = [f" {sentence}" for sentence in flat["train"]]
        words = tokenizer.train(train, vocabulary, SPECIAL)
    return (
        words,
        {
            name: (
                # each as what stands in a text, wherever it comes to stand
                words.encode_all([f" {sentence}" for sentence in flat[name]]),
                np.cumsum([len(document) for document in docs]),
            )
            for name, docs in found.items()
        },
        notes,
    )


@functools.lru_cache(maxsize=4)
def _runs(config: MaskedText) -> tuple[Tokenizer, dict[str, Runs], dict[str, Any]]:
    """The runs of every split."""
    words, found, notes = _prepared(
        config.source,
        config.packages,
        config.directory,
        config.most,
        config.tokenizer or config.vocab_size,
    )
    runs, alone = {}, 0
    for name, (sentences, ends) in found.items():
        runs[name], count = cut(sentences, ends, config.length - ENDS)
        alone += count
    if alone:
        log.info("%d runs of a single sentence are left out", alone)
        notes = {**notes, "left out": {"runs of a single sentence": alone}}
    if not len(runs["train"].starts):
        raise settings.Invalid(
            f"the text {config.source!r} has no two sentences that follow each other,"
            " and rows are runs of at least two, with next_sentence or without"
        )
    return words, {name: one for name, one in runs.items() if len(one.starts)}, notes


class _Maker:
    """Makes rows of one split."""

    def __init__(
        self,
        config: MaskedText,
        words: Tokenizer,
        runs: Runs,
        train: bool,
        plan: buckets.Buckets,
    ) -> None:
        self._config, self._runs = config, runs
        self._cls, self._sep, self._mask = (
            np.array([words.special(role)], np.int32) for role in ("cls", "sep", "mask")
        )
        self._words = words.ordinary
        self._next = config.predict == "next"
        self._all = self._next and train  # words are predicted
        self._shares = (
            (config.mask, config.random)
            if train
            else (config.eval_mask, config.eval_random)
        )
        self._room = np.zeros(len(runs.starts), np.int64)  # of each row
        for members, length in zip(plan.members, plan.lengths, strict=True):
            self._room[members] = min(length, config.length)
        # runs of the same document, of which no other one is taken
        self._first = np.searchsorted(runs.document, runs.document)
        self._last = np.searchsorted(runs.document, runs.document, side="right")
        longest = plan.lengths[-1]
        self.counts = {
            "cut": 1,
            "next": 1,
            "other": 2 * TRIES,
            "place": longest,
            "kind": longest,
            "word": longest,
        }

    def places(self, length: int) -> int:
        """How many places of words to be predicted a row of some length has."""
        if self._all:
            return length - ENDS + 1
        return max(1, round(self._config.rate * length))

    def read(self, rows: np.ndarray, draws: np.ndarray) -> Batch:
        """Rows as the fields of `MaskedText`."""
        given = named(draws, self.counts)
        columns: dict[str, list] = {
            name: [] for name in ("tokens", "segments", "places", "masked", "is_next")
        }
        for at, row in enumerate(rows.tolist()):
            own = {name: values[at] for name, values in given.items()}
            first, second, follows = self._segments(row, own)
            for name, value in self._masked(first, second, own).items():
                columns[name].append(value)
            columns["is_next"].append(follows)
        batch: Batch = dict(columns)
        batch["is_next"] = np.array(columns["is_next"], np.int32)
        if not self._config.next_sentence:
            del batch["is_next"]
        return batch

    def _segments(
        self, row: int, draws: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Tokens of A and B, and whether B follows A."""
        runs, room = self._runs, int(self._room[row]) - ENDS
        start, stop = int(runs.starts[row]), int(runs.stops[row])
        if not self._config.next_sentence:
            return runs.span(start, stop)[: room + 1], runs.sentences.flat[:0], True
        middle = start + 1 + int(draws["cut"][0] * (stop - start - 1))
        first, second = runs.span(start, middle), runs.span(middle, stop)
        follows = bool(draws["next"][0] < 0.5)
        others = len(runs.starts) - int(self._last[row] - self._first[row])
        if not follows and others:
            wanted = min(len(second), self._config.length)
            second = self._other(row, wanted, draws["other"])
        return *_fit(first, second, room), follows or not others

    def _other(self, row: int, wanted: int, draws: np.ndarray) -> np.ndarray:
        """Sentences of another document, what follows a cut of one of its runs.

        Of a few the one whose length is nearest to `wanted`, so that lengths do not
        tell what follows.
        """
        runs, ends = self._runs, self._runs.sentences.ends
        first, last = int(self._first[row]), int(self._last[row])
        which, where = draws.reshape(2, TRIES)
        others = integers(which, len(runs.starts) - (last - first))
        others += (last - first) * (others >= first)
        starts, stops = runs.starts[others], runs.stops[others]
        starts = starts + 1 + integers(where, stops - starts - 1)
        lengths = np.minimum(ends[stops] - ends[starts], self._config.length)
        best = np.argmin(np.abs(lengths - wanted))
        return runs.span(int(starts[best]), int(stops[best]))

    def _masked(
        self, first: np.ndarray, second: np.ndarray, draws: Mapping[str, np.ndarray]
    ) -> Batch:
        """A row of two segments, or of one if B is empty, and the words to predict."""
        ends = [second, self._sep] if len(second) else []
        tokens = np.concatenate([self._cls, first, self._sep, *ends])
        segments = np.zeros(len(tokens), np.int32)
        segments[len(first) + 2 :] = 1
        words = np.delete(np.arange(len(tokens)), [0, len(first) + 1])
        words = words[: len(first) + len(second)]
        count = min(self.places(len(tokens)), len(words))
        chosen = np.argsort(draws["place"][: len(words)], kind="stable")[:count]
        places = np.sort(words[chosen])
        masked = tokens[places]
        if self._next:
            places = places - 1
            return _row(tokens, segments, places, masked)
        kind, mask, random = draws["kind"][:count], *self._shares
        some = self._words[integers(draws["word"][:count], len(self._words))]
        changed = np.where(kind < mask + random, some, masked)
        tokens[places] = np.where(kind < mask, self._mask, changed)
        return _row(tokens, segments, places, masked)


def _row(
    tokens: np.ndarray, segments: np.ndarray, places: np.ndarray, masked: np.ndarray
) -> Batch:
    return {
        "tokens": tokens,
        "segments": segments,
        "places": places.astype(np.int32),
        "masked": masked,
    }


def _fit(
    first: np.ndarray, second: np.ndarray, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """The end of one text and the beginning of another, the longer one cut first."""
    over = len(first) + len(second) - room
    if over > 0:
        half = room // 2
        keep = max(half, room - len(second))  # of the first
        first = first[max(0, len(first) - keep) :]
        second = second[: room - len(first)]
    return first, second
