"""Runs of sentences that follow each other in a document."""

from typing import NamedTuple

import numpy as np

from attn.data.text.ragged import Ragged


class Runs(NamedTuple):
    """Runs of sentences of one split.

    sentences: tokens of all of them.
    starts, stops: first sentence of each run, and the one behind its last, int [n].
    document: of each run, ascending, int [n].
    """

    sentences: Ragged
    starts: np.ndarray
    stops: np.ndarray
    document: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """How many each run has, int [n]."""
        return self.sentences.ends[self.stops] - self.sentences.ends[self.starts]

    def part(self, rows: range) -> "Runs":
        """Some of the runs."""
        at = np.s_[rows.start : rows.stop]
        return self._replace(
            starts=self.starts[at], stops=self.stops[at], document=self.document[at]
        )

    def span(self, start: int, stop: int) -> np.ndarray:
        """The tokens of sentences `start` to `stop` - 1."""
        ends = self.sentences.ends
        return self.sentences.flat[ends[start] : ends[stop]]


def cut(sentences: Ragged, ends: np.ndarray, most: int) -> tuple[Runs, int]:
    """Documents cut into runs of two sentences or more, and how many had only one.

    Args:
        sentences: of all documents.
        ends: the sentence behind the last one of each document.
        most: tokens; a run ends where it has so many.
    """
    starts, stops, document, alone = [], [], [], 0
    lengths, first = sentences.lengths.tolist(), 0
    for number, end in enumerate(ends.tolist()):
        while first < end:
            stop, total = first, 0
            while stop < end and total < most:
                total += lengths[stop]
                stop += 1
            # a long sentence is not alone where another follows
            stop = min(max(stop, first + 2), end)
            if stop - first > 1:
                starts.append(first)
                stops.append(stop)
                document.append(number)
            else:
                alone += 1
            first = stop
    columns = (np.array(column, np.int64) for column in (starts, stops, document))
    return Runs(sentences, *columns), alone
