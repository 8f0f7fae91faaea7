"""Several short sequences in one row, so that little of it is padding."""

import bisect
import dataclasses

import numpy as np

from attn import settings
from attn.data.source import Batch, Source


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Bins of sequences, the lengths of a bin summing up to `capacity` at most.

    Longest first, each to the fullest bin that has room for it; equal ones in order.

    Args:
        lengths: int [size].
        capacity: of a bin.

    Returns:
        The sequences in each bin, in the order in which they lie there.

    Raises:
        Invalid: a sequence is longer than a bin.
    """
    if lengths.max() > capacity:
        raise settings.Invalid(
            f"a sequence of {lengths.max()} tokens does not fit a row of {capacity}"
        )
    bins: list[list[int]] = []
    rooms: list[int] = []  # that occur, ascending
    by_room: dict[int, list[int]] = {}  # bins
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        place = bisect.bisect_left(rooms, length)
        if place < len(rooms):
            room = rooms[place]
            found = by_room[room].pop()
            if not by_room[room]:
                del rooms[place]
        else:
            room, found = capacity, len(bins)
            bins.append([])
        bins[found].append(row)
        left = room - length
        if not by_room.setdefault(left, []):
            bisect.insort(rooms, left)
        by_room[left].append(found)
    return bins


def packed(source: Source, lengths: np.ndarray, capacity: int) -> Source:
    """A source of rows that hold several examples each, always the same ones together.

    Every field of sequences, which `source` gives as a list of arrays [n], becomes

        NAME           [B, capacity], the sequences one after the other, then zeros
        NAME_segment   int32 [B, capacity]: 1, 2, ... for the examples, 0 for padding
        NAME_position  int32 [B, capacity]: the place within the example

    and attention is to be kept within equal segments. Other fields cannot be packed.

    Args:
        source: that draws nothing.
        lengths: of its examples, the longest of their fields, int [size].
        capacity: tokens of a row.
    """
    if source.draws:
        raise settings.Invalid("examples that draw random numbers cannot be packed")
    bins = best_fit(lengths, capacity)

    def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
        members = [bins[row] for row in rows.tolist()]
        flat = source.read(
            np.concatenate(members), np.zeros((sum(map(len, members)), 0))
        )
        ends = np.cumsum([len(member) for member in members])[:-1]
        found: Batch = {}
        for name, sequences in flat.items():
            groups = [
                sequences[a:b] for a, b in zip([0, *ends], [*ends, None], strict=True)
            ]
            array, segment, position = _rows(groups, capacity)
            found[name] = array
            found[f"{name}_segment"], found[f"{name}_position"] = segment, position
        return found

    return dataclasses.replace(source, size=len(bins), read=read, buckets=None)


def _rows(
    groups: list[list[np.ndarray]], capacity: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, segments and positions of the sequences of each row."""
    shape = (len(groups), capacity)
    array = np.zeros(shape, groups[0][0].dtype)
    segment, position = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, sequences in enumerate(groups):
        first = 0
        for number, sequence in enumerate(sequences, start=1):
            place = np.s_[row, first : first + len(sequence)]
            array[place], segment[place] = sequence, number
            position[place] = np.arange(len(sequence))
            first += len(sequence)
    return array, segment, position
