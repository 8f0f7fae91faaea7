"""Differences over seeds and examples: two exact limits, and coverage by simulation."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from attn.report.analyse import comparison
from attn.report.analyse.comparison import Sample
from attn.report.read import outcomes
from benchmarks.coverage import Case, coverage, draw

ONES = np.ones((3, 7))


def difference(row, baseline, share=False):
    """The difference of two tables of outcomes [S, n]."""
    made = [outcomes.of(side, np.ones_like(side)) for side in (row, baseline)]
    sides = (Sample(tuple(m.values), len(m.index), m) for m in made)
    return comparison.difference(*sides, share=share)


def of_seeds(row, baseline, examples=None):
    """The difference of two rows by the values of their seeds."""
    sides = (Sample(tuple(side), examples) for side in (row, baseline))
    return comparison.difference(*sides, share=examples is not None)


def test_without_examples_it_is_the_interval_of_welch():
    row, baseline = [3.1, 2.7, 3.9], [5.2, 4.1, 5.0, 6.9, 3.3]
    found = of_seeds(row, baseline)
    wanted = scipy.stats.ttest_ind(row, baseline, equal_var=False)
    assert found.mean == pytest.approx(np.mean(row) - np.mean(baseline))
    assert found.df == pytest.approx(wanted.df)
    assert found.p_value == pytest.approx(wanted.pvalue)
    for confidence in (0.9, 0.99):
        low, high = wanted.confidence_interval(confidence)
        assert found.half(confidence) == pytest.approx((high - low) / 2)


def test_with_seeds_that_are_all_alike_it_is_the_paired_interval_over_examples():
    rng = np.random.default_rng(0)
    row, baseline = rng.normal(size=(2, 1, 30)).repeat(4, axis=1)
    found = difference(row, baseline + 0.3)
    wanted = scipy.stats.ttest_rel(row[0], baseline[0] + 0.3)
    assert found.df == pytest.approx(wanted.df)
    assert found.p_value == pytest.approx(wanted.pvalue)
    low, high = wanted.confidence_interval(0.95)
    assert found.half() == pytest.approx((high - low) / 2)


def test_parts_of_the_variance_worked_out_by_hand():
    # means over seeds (3, 1, 2) and (2, 2, 2), over examples 1, 3 and 2, 2
    row = np.array([[2.0, 0.0, 1.0], [4.0, 2.0, 3.0]])
    baseline = np.array([[1.0, 3.0, 2.0], [3.0, 1.0, 2.0]])
    sides = [outcomes.of(side, np.ones((2, 3))) for side in (row, baseline)]
    assert [list(side.values) for side in sides] == [[1.0, 3.0], [2.0, 2.0]]
    # no interaction in the row; in the baseline +-1 and 0, four of them over 2 degrees
    assert [side.interaction for side in sides] == pytest.approx([0.0, 2.0])
    # the differences 1, -1, 0 have variance 1; an interaction of 2 over two seeds is 1
    assert comparison.shared(*sides).variance == pytest.approx(0.0)
    found = difference(row, baseline)
    # values 1, 3 of variance 2 over two seeds; the baseline's seeds are alike
    assert [part.variance for part in found.parts] == pytest.approx([1.0, 0.0])


def test_the_variance_is_that_of_the_mean_difference():
    case = Case(count=200, error=10.0, own=0.7, seed=1.0)
    means, variances = [], []
    for number in range(600):
        sides = draw(case, np.random.default_rng([5, number]))
        found = difference(*(totals for totals, _ in sides))
        means.append(found.mean)
        variances.append(found.error**2)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.12)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    "case",
    [
        Case(count=250, error=2.0),
        Case(count=300, error=15.0, own=1.5),
        Case(count=300, error=15.0, own=0.5, seed=1.0),
        Case(count=300, error=10.0, seed=3.0, gap=4.0),
        Case(count=250, own=0.5, kind="weighted"),
        Case(count=250, own=1.5, seed=1.0, kind="mean"),
    ],
    ids=["alike", "own", "both", "seeds", "weighted", "mean"],
)
def test_the_interval_covers_what_it_says(case, seeds):
    case = dataclasses.replace(case, seeds=seeds)
    found = coverage(case, 1000, ("ours",))
    # 1000 replications: a standard deviation of 0.7 %
    assert 92.8 <= found["ours"] <= 97.9


def test_seeds_alone_and_a_plain_bootstrap_cover_too_little():
    own = Case(count=300, error=15.0, own=1.5, seeds=10)
    assert coverage(own, 200, ("t",))["t"] < 70
    seeds = Case(count=250, error=10.0, seed=3.0)
    assert coverage(seeds, 200, ("bootstrap",))["bootstrap"] < 90


def test_p_values_are_dual_to_the_intervals():
    rng = np.random.default_rng(3)
    inside = decided = 0
    for number in range(200):
        case = Case(count=100, error=10.0, own=0.3, gap=8.0 * (number % 2))
        sides = draw(case, rng)
        found = difference(*(totals for totals, _ in sides), share=True)
        half = found.half(0.95)
        assert (found.p_value < 0.05) == (abs(found.mean) > half)
        small = abs(found.mean) + half < 9.0
        assert (found.equivalence(9.0) < 0.05) == small
        inside, decided = inside + small, decided + (found.p_value < 0.05)
    assert 20 < inside < 180 and 20 < decided < 180


def test_few_disagreements_leave_a_share_open_however_alike_the_seeds_are():
    # each seed of the row gets one more example wrong, another one each time
    row, baseline = np.zeros((3, 100)), np.zeros((3, 100))
    for seed in range(3):
        row[seed, seed] = 100.0
    found = difference(row, baseline, share=True)
    assert found.error == pytest.approx(0.0, abs=1e-9)
    assert found.half() == pytest.approx(1.959964 / 3**0.5)
    assert found.p_value > 0.05
    row[np.arange(3), np.arange(3) + 50] = 100.0  # six in all
    assert difference(row, baseline, share=True).p_value < 0.05


def test_seeds_alone_do_not_tell_which_examples_are_wrong():
    values, baseline = [16.0, 16.0, 16.0], [16.3, 16.3, 16.3]
    found = of_seeds(values, baseline, 1000)
    # three images of 1,000: at least three disagreements, give or take sqrt(3)
    assert found.half() == pytest.approx(1.959964 * 3**0.5 / 10, rel=1e-5)


def test_the_smaller_of_two_splits_is_what_shares_are_counted_in():
    small, large = Sample((5.0,) * 3, 100), Sample((4.0,) * 3, 1000)
    for sides in ((small, large), (large, small)):
        found = comparison.difference(*sides, share=True)
        assert (found.count, found.half()) == (100, pytest.approx(1.959964))


def test_a_single_seed_has_a_difference_and_no_interval():
    found = of_seeds([3.0], [4.0, 5.0])
    assert (found.mean, found.half(), found.p_value) == (-1.5, None, None)
    assert found.equivalence(9.0) is None
    assert of_seeds([], [1.0]) is None
    one = outcomes.of(ONES[:1], ONES[:1])
    assert comparison.shared(one, one).variance == 0.0


def test_rows_are_compared_on_the_same_examples():
    small, large = (outcomes.of(side, side) for side in (ONES[:, :4], ONES[:, :5]))
    with pytest.raises(ValueError, match="same examples, not on 4 and 5"):
        comparison.shared(small, large)


def test_large_tables_take_no_time():
    totals = np.random.default_rng(0).random((10, 10_000))
    rows = [outcomes.of(totals + k, np.ones_like(totals)) for k in range(20)]
    found = [comparison.shared(row, rows[0]).variance for row in rows]
    assert np.allclose(found, 0.0)
