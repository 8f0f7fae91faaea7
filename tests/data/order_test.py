"""The order of examples and their random numbers, as functions of a position."""

import itertools

import numpy as np
import pytest

from attn.data import order

PERMUTATION = [0, 2, 1, 5, 4, 3, 6, 7]
NUMBERS = [0.6104049219313411, 0.2737597465829883]


@pytest.mark.parametrize("draws", [1, 3, 4, 9])
def test_numbers_do_not_depend_on_the_range_asked_for(draws):
    whole = order.uniform(7, order.TRAIN, 0, 50, draws)
    assert whole.shape == (50, draws)
    np.testing.assert_array_equal(
        order.uniform(7, order.TRAIN, 13, 5, draws), whole[13:18]
    )


def test_positions_beyond_64_bits_of_counter_go_on():
    start = (1 << 64) // 2 - 2  # two counters a position: crosses the first word
    whole = order.uniform(0, order.TRAIN, start, 4, 8)
    np.testing.assert_array_equal(
        order.uniform(0, order.TRAIN, start + 2, 2, 8), whole[2:]
    )
    assert len(np.unique(whole)) == whole.size


def test_philox_counts_blocks_of_four_words():
    # What `uniform` relies on, and what `advance` means: counters, not numbers.
    ahead = np.random.Philox(key=[5, 1]).advance(3).random_raw(4)
    counted = np.random.Philox(key=[5, 1], counter=[3, 0, 0, 0]).random_raw(4)
    straight = np.random.Philox(key=[5, 1]).random_raw(16)[12:]
    np.testing.assert_array_equal(ahead, straight)
    np.testing.assert_array_equal(counted, straight)


def test_seeds_and_purposes_share_no_numbers():
    parts = [
        order.uniform(seed, purpose, 0, 100, 4)
        for seed in (0, 1, 2**64 - 1)
        for purpose in (order.ORDER, order.TRAIN, order.TEST)
    ]
    assert len(np.unique(parts)) == np.size(parts)


def test_endless_numbers_are_those_of_all_positions_in_turn():
    found = list(itertools.islice(order.endless(5, order.TEST, 3, "s"), 30))
    wanted = order.uniform(5, order.TEST, 0, 8, order.WORDS, "s").ravel()
    assert found == wanted[:30].tolist()


def test_numbers_are_uniform():
    numbers = order.uniform(3, order.TRAIN, 0, 20_000, 1)[:, 0]
    assert numbers.min() >= 0 and numbers.max() < 1
    # Kolmogorov and Smirnov: 1.95 / sqrt(n) is exceeded with probability 0.001.
    ranks = np.arange(1, numbers.size + 1) / numbers.size
    assert np.abs(np.sort(numbers) - ranks).max() < 1.95 / np.sqrt(numbers.size)


def test_streams_stay_as_they_are():
    """A change of these numbers changes the data order of everybody's runs."""
    assert order.permutation(0, 0, 8).tolist() == PERMUTATION
    np.testing.assert_allclose(
        order.uniform(1, order.TRAIN, 5, 1, 2)[0], NUMBERS, rtol=1e-12
    )


def test_each_epoch_has_every_row_once_in_an_order_of_its_own():
    size = 10
    stream = order.rows(4, 0, 3 * size, size).reshape(3, size)
    np.testing.assert_array_equal(np.sort(stream), np.tile(np.arange(size), (3, 1)))
    assert len({tuple(epoch) for epoch in stream.tolist()}) == 3
    assert order.rows(5, 0, size, size).tolist() != stream[0].tolist()


@pytest.mark.parametrize("start, count", [(0, 4), (8, 5), (9, 31), (30, 1)])
def test_rows_do_not_depend_on_the_range_asked_for(start, count):
    stream = order.rows(4, 0, 60, 10)
    np.testing.assert_array_equal(
        order.rows(4, start, count, 10), stream[start : start + count]
    )


def test_permutations_are_uniform():
    # Which of 5 rows comes first, over 2,000 epochs: 400 each, deviation 18.
    first = [order.permutation(0, epoch, 5)[0] for epoch in range(2000)]
    assert np.abs(np.bincount(first, minlength=5) - 400).max() < 5 * 18


def test_epochs_do_not_share_words():
    # Had two epochs the same random words, shifted, their ranks would correlate.
    ranks = [np.argsort(order.permutation(2, epoch, 400)) for epoch in range(2)]
    for shift in range(9):
        early, late = ranks[0][shift:], ranks[1][: 400 - shift]
        assert abs(np.corrcoef(early, late)[0, 1]) < 0.25
