"""Sequences of tokens of unlike length: in buckets (`attn.data.buckets`), or packed."""

import dataclasses
from typing import Literal

import numpy as np

from attn import settings
from attn.data import buckets, order, splits
from attn.data.draws import integers
from attn.data.source import Batch, Source
from attn.data.text import packing

PAD, START, END = 0, 1, 2
WORDS = 3  # the first token that is a word
SEED = 0  # of the sequences, the same in every run


@dataclasses.dataclass(frozen=True)
class Sequences:
    """sequences: pairs of random sequences, to be copied, reversed or sorted.

    A synthetic set for encoders and decoders. Fields, of L tokens each:

        source     int32 [L], the words
        target_in  int32 [L], the start and the words of the target
        target     int32 [L], the words of the target and the end

    with their masks source_mask, target_in_mask and target_mask, bool [L], or packed
    (`attn.data.text.packing`). Facts: vocab_size, max_length, pad, start, end. Splits
    "train", "validation" and "test".

    Attributes:
        task: what the target is.
        words: in the vocabulary, beside padding, start and end.
        low, high: fewest and most words of a sequence, uniform between.
        train_size: examples of "train".
        eval_size: examples of "validation" and of "test".
        buckets: lengths to which sequences are padded, at most.
        budget: "tokens" makes batches of shorter sequences larger, to about as many
            tokens each; "examples" has as many examples in every batch.
        row_length: tokens of rows into which several pairs are packed; None for one
            pair a row, in buckets.
    """

    task: Literal["copy", "reverse", "sort"] = "copy"
    words: settings.Positive = 16
    low: settings.Positive = 4
    high: settings.Positive = 12
    train_size: settings.Positive = 4096
    eval_size: settings.Positive = 512
    buckets: settings.Positive = 2
    budget: Literal["tokens", "examples"] = "tokens"
    row_length: settings.Positive | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise settings.Invalid(
                f"low must be at most high, got {self.low} and {self.high}"
            )

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        sizes = dict.fromkeys(order.PURPOSES, self.eval_size)
        sizes["train"] = self.train_size
        name, part = splits.part(split, sizes, "sequences")
        whole = self._words(order.PURPOSES[name], sizes[name])
        examples = whole[part.start : part.stop]
        lengths = np.array([len(words) + 1 for words in examples])  # start or end
        edges = buckets.boundaries(np.arange(self.low, self.high + 1) + 1, self.buckets)
        longest = self.row_length or edges[-1]

        def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
            del draws
            return self._pairs([examples[row] for row in rows.tolist()])

        source = Source(
            len(examples),
            read,
            {
                "vocab_size": WORDS + self.words,
                "max_length": longest,
                "pad": PAD,
                "start": START,
                "end": END,
            },
            buckets=buckets.by_length(lengths, edges, tokens=self.budget == "tokens"),
        )
        if self.row_length is None:
            return source
        return packing.packed(source, lengths, self.row_length)

    def _words(self, purpose: int, size: int) -> list[np.ndarray]:
        """The sources of a split: a length each, and its words."""
        draws = order.uniform(SEED, purpose, 0, size, 1 + self.high, "sequences")
        lengths = self.low + integers(draws[:, 0], self.high - self.low + 1)
        words = (WORDS + integers(draws[:, 1:], self.words)).astype(np.int32)
        return [row[:length] for row, length in zip(words, lengths, strict=True)]

    def _pairs(self, sources: list[np.ndarray]) -> Batch:
        change = {"copy": lambda x: x, "reverse": lambda x: x[::-1], "sort": np.sort}
        targets = [change[self.task](words) for words in sources]
        start, end = np.array([START], np.int32), np.array([END], np.int32)
        return {
            "source": sources,
            "target_in": [np.concatenate([start, words]) for words in targets],
            "target": [np.concatenate([words, end]) for words in targets],
        }
