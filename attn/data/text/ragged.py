"""Many sequences of unlike length as one array."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Ragged(NamedTuple):
    """Sequences one after the other: sequence i is flat[ends[i]:ends[i + 1]].

    flat: [sum of the lengths].
    ends: int64 [n + 1], ascending from 0.
    """

    flat: np.ndarray
    ends: np.ndarray

    @property
    def size(self) -> int:
        """How many sequences there are."""
        return len(self.ends) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Of each sequence, int64 [n]."""
        return np.diff(self.ends)

    def row(self, number: int) -> np.ndarray:
        """Sequence `number`, which is not to be written to."""
        return self.flat[self.ends[number] : self.ends[number + 1]]

    def rows(self) -> Iterator[np.ndarray]:
        """All sequences."""
        return map(self.row, range(self.size))

    def take(self, numbers: np.ndarray) -> "Ragged":
        """The sequences of some numbers, int [m]."""
        lengths = self.lengths[numbers]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        shift = np.repeat(self.ends[:-1][numbers] - ends[:-1], lengths)
        return Ragged(self.flat[np.arange(ends[-1]) + shift], ends)

    def cut(self, length: int) -> "Ragged":
        """The sequences, each to its first `length` entries."""
        place = np.arange(len(self.flat)) - np.repeat(self.ends[:-1], self.lengths)
        ends = np.concatenate([[0], np.cumsum(np.minimum(self.lengths, length))])
        return Ragged(self.flat[place < length], ends)


def ragged(sequences: Iterable[Sequence[int]]) -> Ragged:
    """Sequences of ints, as int32."""
    arrays = [np.asarray(sequence, np.int32) for sequence in sequences]
    ends = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
    flat = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
    return Ragged(flat, ends.astype(np.int64))
