"""Sequences of unlike length as one array, against lists."""

import numpy as np
import pytest

from attn.data.text.ragged import ragged

LISTS = [[1, 2, 3], [], [4], [5, 6, 7, 8], []]


def lists(found):
    return [row.tolist() for row in found.rows()]


def test_rows_are_the_sequences():
    found = ragged(LISTS)
    assert lists(found) == LISTS and found.size == 5
    assert found.lengths.tolist() == [3, 0, 1, 4, 0]
    assert found.flat.dtype == np.int32
    assert lists(ragged([])) == [] and lists(ragged([[]])) == [[]]


@pytest.mark.parametrize("numbers", [[3, 0, 0], [1, 4], [], [4, 3, 2, 1, 0]])
def test_some_of_them(numbers):
    found = ragged(LISTS).take(np.array(numbers, np.int64))
    assert lists(found) == [LISTS[n] for n in numbers]
    assert lists(found.cut(9)) == lists(found)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_their_beginnings(length):
    assert lists(ragged(LISTS).cut(length)) == [one[:length] for one in LISTS]
