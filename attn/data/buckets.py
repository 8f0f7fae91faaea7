"""Batches of examples of unlike length: which rows, padded to which length.

A batch of one bucket has one static shape, so that a program is compiled once for each
bucket. The rows of a bucket are an endless stream of its own, in a new order in each
epoch, and the buckets take turns in a random order of which each epoch has another:
which bucket batch k is of, and its rows, are a function of (seed, k).

A split of examples of one length is a single bucket.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attn import settings
from attn.data import order

TURNS = "buckets"  # the stream of the order in which buckets take turns


class Rows(NamedTuple):
    """Rows of a batch, and where they stand.

    rows: of the split, int64 [B].
    places: positions in the stream of its bucket, int64 [B], which settle the random
        numbers of the rows.
    stream: name of that stream, to be added to the name of whose numbers are drawn.
    length: to which examples are padded, of images height and width; None where all
        have one length.
    weight: float32 [B], 0 for rows that only fill the last batch of an evaluation.
    """

    rows: np.ndarray
    places: np.ndarray
    stream: str
    length: int | tuple[int, int] | None
    weight: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """Rows of a split by the length of their examples.

    Attributes:
        members: rows of each bucket, int64 [n]. Buckets without rows are left out.
        lengths: to which the examples of each bucket are padded, ascending; of images
            height and width.
        multiples: how many times `batch_size` examples a batch of each bucket has.
    """

    members: tuple[np.ndarray, ...]
    lengths: tuple[int | tuple[int, int] | None, ...]
    multiples: tuple[int, ...]

    def count(self, batch_size: int, passes: int = 1) -> int:
        """Batches of an evaluation."""
        return sum(self._counts(batch_size, passes))

    def training(
        self, seed: int, number: int, batch_size: int, shard: tuple[int, int]
    ) -> Rows:
        """Rows of training batch `number`, or of one of n equal shards of it."""
        bucket, index = self._turn(seed, number, batch_size)
        first, local = self._range(bucket, index, batch_size, shard)
        members, stream = self.members[bucket], self._stream(bucket)
        rows = members[order.rows(seed, first, local, len(members), stream)]
        weight = np.ones(local, np.float32)
        places = np.arange(first, first + local)
        return Rows(rows, places, stream, self.lengths[bucket], weight)

    def evaluation(
        self, number: int, batch_size: int, shard: tuple[int, int], passes: int = 1
    ) -> Rows:
        """Rows of batch `number` of an evaluation, which goes through all in order.

        Args:
            number: below `count`.
            batch_size: of the bucket of the longest examples.
            shard: (i, n), the i-th of n equal parts.
            passes: how often the split is gone through.
        """
        ends = np.cumsum(self._counts(batch_size, passes))
        bucket = int(np.searchsorted(ends, number, side="right"))
        index = number - int(ends[bucket - 1] if bucket else 0)
        first, local = self._range(bucket, index, batch_size, shard)
        members = self.members[bucket]
        total = len(members) * passes
        places = np.arange(first, first + local)
        rows = members[np.minimum(places, total - 1) % len(members)]
        weight = (places < total).astype(np.float32)
        return Rows(rows, places, self._stream(bucket), self.lengths[bucket], weight)

    def _counts(self, batch_size: int, passes: int) -> list[int]:
        sizes = [batch_size * multiple for multiple in self.multiples]
        rows = [len(members) * passes for members in self.members]
        return [-(-n // size) for n, size in zip(rows, sizes, strict=True)]

    def _turn(self, seed: int, number: int, batch_size: int) -> tuple[int, int]:
        """The bucket of a training batch, and how many of its batches came before.

        In an epoch each bucket has as many turns as its rows fill batches, rounded.
        """
        if len(self.members) == 1:
            return 0, number
        counts = [
            max(1, round(len(members) / (batch_size * multiple)))
            for members, multiple in zip(self.members, self.multiples, strict=True)
        ]
        epoch, place = divmod(number, sum(counts))
        turns = np.repeat(np.arange(len(counts)), counts)
        turns = turns[order.permutation(seed, epoch, len(turns), TURNS)]
        bucket = int(turns[place])
        before = int(np.sum(turns[:place] == bucket))
        return bucket, epoch * counts[bucket] + before

    def _range(
        self, bucket: int, index: int, batch_size: int, shard: tuple[int, int]
    ) -> tuple[int, int]:
        """First position and length of a shard of a bucket's batch."""
        whole = batch_size * self.multiples[bucket]
        local = whole // shard[1]
        return index * whole + shard[0] * local, local

    def _stream(self, bucket: int) -> str:
        length = self.lengths[bucket]
        return "" if length is None else f"/{length}"


def single(size: int) -> Buckets:
    """The only bucket of a split of `size` examples of one length."""
    return Buckets((np.arange(size),), (None,), (1,))


def by_length(
    lengths: np.ndarray, boundaries: Sequence[int], *, tokens: bool = True
) -> Buckets:
    """Buckets of examples by their lengths.

    Args:
        lengths: of each row's example, int [size].
        boundaries: the lengths to which examples are padded, ascending.
        tokens: batches of shorter examples have more of them, so that every batch
            has about as many tokens as one of the longest; else as many examples.

    Raises:
        Invalid: an example is longer than the last boundary.
    """
    if lengths.max() > boundaries[-1]:
        raise settings.Invalid(
            f"an example of {lengths.max()} tokens is longer than the last boundary"
            f" {boundaries[-1]}"
        )
    bucket = np.searchsorted(boundaries, lengths)
    there = [b for b in range(len(boundaries)) if (bucket == b).any()]
    return Buckets(
        tuple(np.flatnonzero(bucket == b) for b in there),
        tuple(int(boundaries[b]) for b in there),
        tuple(boundaries[-1] // boundaries[b] if tokens else 1 for b in there),
    )


def boundaries(lengths: np.ndarray, count: int, *, multiple: int = 1) -> tuple:
    """Up to `count` boundaries between which about as many examples lie, ascending.

    Args:
        lengths: of the examples, int [size].
        count: at most so many; fewer where lengths repeat.
        multiple: of which every boundary is one, as accelerators like 8 or 128.
    """
    shares = np.arange(1, count + 1) / count
    edges = np.quantile(lengths, shares, method="higher")
    return tuple(sorted({-(-int(edge) // multiple) * multiple for edge in edges}))
