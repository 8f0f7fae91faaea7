"""Buckets: which rows a batch has, on any number of shards and from any start."""

import collections

import numpy as np
import pytest

from attn import settings
from attn.data import buckets

LENGTHS = np.random.default_rng(0).integers(2, 31, 157)
EDGES = (8, 16, 32)


def made(tokens=True):
    return buckets.by_length(LENGTHS, EDGES, tokens=tokens)


@pytest.mark.parametrize("tokens", [True, False])
def test_rows_fit_their_bucket_and_no_smaller_one(tokens):
    plan = made(tokens)
    for number in range(60):
        rows = plan.training(3, number, 4, (0, 1))
        place = EDGES.index(rows.length)
        assert LENGTHS[rows.rows].max() <= rows.length
        assert place == 0 or LENGTHS[rows.rows].min() > EDGES[place - 1]
        assert len(rows.rows) == (4 * 32 // rows.length if tokens else 4)
        assert (rows.weight == 1).all()


def test_every_row_of_a_bucket_comes_once_in_its_epoch():
    plan, seen = made(), collections.defaultdict(list)
    for number in range(400):
        rows = plan.training(1, number, 4, (0, 1))
        assert rows.places[0] == len(seen[rows.length])
        seen[rows.length].extend(rows.rows.tolist())
    for members, length in zip(plan.members, plan.lengths, strict=True):
        stream, size = seen[length], len(members)
        epochs = [stream[k * size : (k + 1) * size] for k in range(3)]
        assert all(sorted(epoch) == members.tolist() for epoch in epochs)
        assert epochs[0] != epochs[1]
    # no bucket is seen much more often than another
    rates = [len(seen[b]) / len(m) for m, b in zip(plan.members, EDGES, strict=True)]
    assert max(rates) / min(rates) < 1.2


def test_a_batch_is_a_function_of_seed_and_number():
    plan, again = made(), made()
    numbers = [0, 7, 31, 200]
    for number in numbers:
        one, other = (p.training(2, number, 4, (0, 1)) for p in (plan, again))
        np.testing.assert_array_equal(one.rows, other.rows)
        assert one.length == other.length and (one.places == other.places).all()
    turns = [
        [plan.training(seed, n, 4, (0, 1)).length for n in range(30)] for seed in (0, 1)
    ]
    assert turns[0] != turns[1]


@pytest.mark.parametrize("count", [2, 4])
def test_shards_are_the_parts_of_a_batch(count):
    plan = made()
    for make in (
        lambda n, shard: plan.training(1, n, 4, shard),
        lambda n, shard: plan.evaluation(n, 4, shard),
    ):
        for number in range(plan.count(4)):
            whole = make(number, (0, 1))
            parts = [make(number, (i, count)) for i in range(count)]
            for field in ("rows", "weight"):
                joined = np.concatenate([getattr(part, field) for part in parts])
                np.testing.assert_array_equal(joined, getattr(whole, field))
            assert [part.places[0] - whole.places[0] for part in parts] == [
                i * len(parts[0].rows) for i in range(count)
            ]


@pytest.mark.parametrize("passes", [1, 3])
def test_an_evaluation_has_every_row_as_often_as_it_passes(passes):
    plan, counts = made(), np.zeros(len(LENGTHS))
    for number in range(plan.count(4, passes)):
        rows = plan.evaluation(number, 4, (0, 1), passes)
        assert LENGTHS[rows.rows].max() <= rows.length
        np.add.at(counts, rows.rows, rows.weight)
    np.testing.assert_array_equal(counts, passes)


def test_no_two_buckets_draw_the_same_numbers():
    plan = made()
    streams = {plan.training(0, n, 4, (0, 1)).stream for n in range(40)}
    assert len(streams) == 3 and "" not in streams
    assert buckets.single(9).training(0, 1, 4, (0, 1)).stream == ""


def test_boundaries_part_the_examples_evenly():
    edges = buckets.boundaries(LENGTHS, 4)
    counts = np.bincount(np.searchsorted(edges, LENGTHS))
    assert len(edges) == 4 and edges[-1] == LENGTHS.max()
    assert counts.min() > 0.8 * len(LENGTHS) / 4
    eight = buckets.boundaries(LENGTHS, 4, multiple=8)
    assert all(edge % 8 == 0 for edge in eight) and eight[-1] == 32
    assert buckets.boundaries(np.full(9, 5), 3) == (5,)


def test_a_bucket_without_rows_is_left_out():
    plan = buckets.by_length(np.array([3, 4, 20]), EDGES)
    assert plan.lengths == (8, 32) and plan.multiples == (4, 1)


def test_what_is_too_long_is_refused():
    with pytest.raises(settings.Invalid, match=r"of 40 tokens is longer than .* 32"):
        buckets.by_length(np.array([3, 40]), EDGES)
