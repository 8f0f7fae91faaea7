"""What is found once for a split is what a batch of it would find."""

import numpy as np

from attn.data.digits import ink
from attn.data.digits.pool import Pool
from tests.data.digits import pool


def test_frames_and_order_are_those_of_the_split():
    digits, labels = pool.digits(), np.array([3, 1, 2] * 8, np.int32)
    split = Pool(digits, labels)
    assert split.size == 24
    np.testing.assert_array_equal(split.frames, [pool.frame(one) for one in digits])
    rows = np.array([5, 0, 5])
    np.testing.assert_array_equal(split.frames[rows], ink.frames(digits[rows, ..., 0]))
    assert split.frames is split.frames  # found once
    ordered = [*range(1, 24, 3), *range(2, 24, 3), *range(0, 24, 3)]
    np.testing.assert_array_equal(split.by_label, ordered)
