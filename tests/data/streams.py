"""Batches that a test takes from a stream, and what every stream of batches keeps."""

import itertools

import numpy as np


def taken(batches, count=999):
    """The first batches, or all where there are fewer."""
    with batches:
        return list(itertools.islice(batches, count))


def check_resumes_and_is_cut_alike(dataset, count, start):
    """Training batches from `start` on, and in two shards, are those of the whole.

    Returns the first `count` batches, for further checks.
    """
    whole = taken(dataset.train(8, seed=3), count)
    late = taken(dataset.train(8, seed=3, start=start), count - start)
    halves = [taken(dataset.train(8, seed=3, shard=(i, 2)), count) for i in (0, 1)]
    for one, other in zip(whole[start:], late, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    for one, *parts in zip(whole, *halves, strict=True):
        for name in one:
            joined = np.concatenate([part[name] for part in parts])
            np.testing.assert_array_equal(one[name], joined)
    return whole
