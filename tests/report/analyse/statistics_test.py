"""Intervals against scipy's t distribution and differences worked out by hand."""

import numpy as np
import pytest
import scipy.stats

from attn.report.analyse import statistics

VALUES = [3.1, 2.7, 3.9, 3.3, 2.2]


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_is_that_of_scipy(confidence):
    found = statistics.interval(VALUES, confidence)
    low, high = scipy.stats.t.interval(
        confidence, len(VALUES) - 1, np.mean(VALUES), scipy.stats.sem(VALUES)
    )
    assert found.mean == pytest.approx(np.mean(VALUES))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.count == 5


def test_three_seeds_use_the_tabulated_quantile():
    # t(0.975, 2) = 4.3027 (any table); the standard deviation of 1, 2, 3 is 1.
    assert statistics.interval([1.0, 2.0, 3.0]).half == pytest.approx(
        4.3027 / 3**0.5, rel=1e-4
    )


def test_one_value_has_no_interval_and_none_has_nothing():
    assert statistics.interval([2.5]) == statistics.Interval(2.5, None, 1)
    assert statistics.interval([]) is None


def test_paired_interval_drops_what_seeds_have_in_common():
    base = {0: 10.0, 1: 14.0, 2: 6.0}
    values = {2: 5.1, 0: 9.0, 1: 12.9}  # another order: pairs go by seed
    found = statistics.paired(values, base)
    test = scipy.stats.ttest_rel([9.0, 12.9, 5.1], [10.0, 14.0, 6.0])
    wanted = test.confidence_interval(0.95)
    assert found.mean == pytest.approx(-1.0)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.half < 0.3 < statistics.interval(base.values()).half


def test_few_images_leave_a_difference_open_however_alike_the_seeds_are():
    base = {0: 16.0, 1: 17.5, 2: 17.0}
    values = {seed: error - 0.3 for seed, error in base.items()}
    # three images of 1,000: at least three disagreements, give or take sqrt(3)
    found = statistics.paired(values, base, examples=1000)
    assert found.half == pytest.approx(1.959964 * 3**0.5 / 10, rel=1e-5)
    assert statistics.verdict(found) == "not distinguishable"
    many = statistics.paired(values, base, examples=100_000)
    assert statistics.verdict(many) == "better"


def test_seeds_that_differ_more_than_the_images_keep_their_interval():
    base, values = {0: 10.0, 1: 14.0, 2: 6.0}, {0: 9.0, 1: 11.9, 2: 5.9}
    found = statistics.paired(values, base, examples=1000)
    assert found == statistics.paired(values, base)
    same = statistics.paired(base, base, examples=1000)
    assert statistics.verdict(same) == "not distinguishable"


def test_paired_uses_only_seeds_that_both_have():
    found = statistics.paired({0: 1.0, 1: 2.0, 7: 50.0}, {0: 2.0, 1: 2.5, 3: 9.0})
    assert (found.mean, found.count) == (pytest.approx(-0.75), 2)
    assert statistics.paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("mean", "half", "said"),
    [
        (-1.0, 0.9, "better"),
        (1.0, 0.9, "worse"),
        (-1.0, 1.0, "not distinguishable"),
        (0.5, 2.0, "not distinguishable"),
        (-9.0, None, "one seed"),
    ],
)
def test_verdict_is_nothing_where_the_interval_includes_zero(mean, half, said):
    assert statistics.verdict(statistics.Interval(mean, half, 3)) == said
