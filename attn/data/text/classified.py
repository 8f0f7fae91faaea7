"""Sequences of tokens with a class each, as sources."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from attn.data import buckets
from attn.data.source import Batch, Source
from attn.data.text.ragged import Ragged

MULTIPLE = 8  # of which every padded length is one


class Classified(NamedTuple):
    """Sequences of one split.

    tokens: of each sequence, with whatever stands at its ends.
    labels: int32 [n].
    """

    tokens: Ragged
    labels: np.ndarray

    def part(self, rows: range) -> "Classified":
        """Some of the sequences."""
        if len(rows) == self.tokens.size:
            return self
        numbers = np.arange(rows.start, rows.stop)
        return Classified(self.tokens.take(numbers), self.labels[numbers])


def edges(splits: Mapping[str, Classified], count: int) -> tuple[int, ...]:
    """Up to `count` lengths to which the sequences of all splits are padded."""
    lengths = np.concatenate([one.tokens.lengths for one in splits.values()])
    return buckets.boundaries(lengths, count, multiple=MULTIPLE)


def source(
    found: Classified,
    edges: tuple[int, ...],
    budget: Literal["tokens", "examples"],
    class_names: tuple[str, ...],
    facts: Mapping[str, Any],
    **rest: Any,
) -> Source:
    """Sequences as fields "tokens" and "segments", which are 0, and "label".

    Args:
        found: the sequences.
        edges: lengths to which they are padded.
        budget: "tokens" makes batches of shorter sequences larger.
        class_names: by label.
        facts: further ones.
        rest: further fields of `Source`.
    """

    def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
        del draws
        tokens = [found.tokens.row(row).astype(np.int32) for row in rows.tolist()]
        return {
            "tokens": tokens,
            "segments": [np.zeros_like(one) for one in tokens],
            "label": found.labels[rows],
        }

    known = {
        "num_classes": len(class_names),
        "class_names": class_names,
        "max_length": edges[-1],
    }
    plan = buckets.by_length(found.tokens.lengths, edges, tokens=budget == "tokens")
    return Source(found.tokens.size, read, {**known, **facts}, buckets=plan, **rest)
