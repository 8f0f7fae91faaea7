"""Evaluations: examples of all machines in order, batches of unlike length."""

import numpy as np

from attn.train import evaluation


def test_examples_of_all_machines_come_in_the_order_of_the_split():
    sizes, machines = [4, 2, 3], 2  # of a batch on one machine
    split, held, first = np.arange(18), [[], []], 0
    for size in sizes:
        for machine in range(machines):
            held[machine].append(split[first : first + size])
            first += size
    gathered = np.concatenate([np.concatenate(parts) for parts in held])
    order = evaluation._order(sizes, machines)
    np.testing.assert_array_equal(gathered[order], split)


def test_shorter_batches_are_filled_up_with_zeros():
    parts = [np.ones((2, 3, 2), np.int32), 2 * np.ones((1, 2, 4), np.int32)]
    joined = evaluation._joined(*parts)
    assert joined.shape == (3, 3, 4)
    assert joined.dtype == np.int32
    assert joined.sum() == 12 + 16
    np.testing.assert_array_equal(joined[:2, :, :2], parts[0])
    np.testing.assert_array_equal(joined[2:, :2], parts[1])
    alike = evaluation._joined(parts[0], parts[0])
    np.testing.assert_array_equal(alike, np.concatenate([parts[0], parts[0]]))
