"""What differences decide: verdicts, Holm's correction, and what would decide more."""

import math

import pytest

from attn.report.analyse import decision
from attn.report.analyse.comparison import Difference, Part


def difference(mean, error=1.0, **options):
    """A difference of ten seeds each with this standard error."""
    parts = (Part(error**2 / 2, 9), Part(error**2 / 2, 9))
    return Difference(mean, 10, 10, parts, **options)


def test_holm_by_hand():
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 and not below the one before
    found = decision.holm([0.01, 0.04, None, 0.03, 0.005])
    assert found[2] is None
    assert [found[i] for i in (0, 1, 3, 4)] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert decision.holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    assert decision.holm([]) == []


@pytest.mark.parametrize(
    ("mean", "better", "rope", "said"),
    [
        (-5.0, "lower", None, "better"),
        (-5.0, "higher", None, "worse"),
        (5.0, "lower", None, "worse"),
        (5.0, "higher", None, "better"),
        (1.0, "lower", None, "not distinguishable"),
        (1.0, "lower", 3.0, "not distinguishable"),
        (0.5, "lower", 3.0, "equivalent"),
        (-5.0, "lower", 8.0, "equivalent"),  # surely different, and too little
        (-5.0, "lower", 7.0, "better"),
    ],
)
def test_verdicts(mean, better, rope, said):
    [found] = decision.decide([difference(mean)], better, rope=rope)
    assert found.verdict == found.uncorrected == said


def test_one_of_many_rows_has_to_be_clearer():
    rows = [difference(mean) for mean in (2.4, 0.1, -0.3, 0.2, 0.5)]
    found = decision.decide(rows, "higher")
    assert [one.uncorrected for one in found].count("better") == 1
    assert {one.verdict for one in found} == {"not distinguishable"}
    assert found[0].p_value == pytest.approx(5 * rows[0].p_value)
    clear = decision.decide([difference(-6.0), *rows[1:]], "lower")
    assert clear[0].verdict == "better"


def test_a_row_with_one_seed_does_not_count():
    rows = [Difference(-9.0, 1, 10), difference(2.4)]
    found = decision.decide(rows, "higher")
    assert [one.verdict for one in found] == ["one seed", "better"]
    assert found[0].p_value is found[0].needed is None


def planned(now, seeds):
    """The same mean and parts of the variance with so many seeds of each."""
    parts = tuple(Part(p.variance * now.row / seeds, seeds - 1) for p in now.parts)
    return Difference(now.mean, seeds, seeds, parts, now.examples)


@pytest.mark.parametrize("rope", [None, 3.0])
@pytest.mark.parametrize("examples", [None, Part(0.2, 900.0)])
def test_so_many_seeds_would_decide_it_and_one_less_would_not(examples, rope):
    now = difference(1.4, examples=examples)
    found = decision.needed(now, rope=rope).seeds
    margin = max(1.4, (rope or 0) - 1.4)
    assert found > 0
    assert planned(now, 10 + found).half() < margin
    assert planned(now, 10 + found - 1).half() >= margin


def test_where_the_examples_leave_it_open_seeds_do_not_help():
    now = difference(1.4, examples=Part(1.0, 999.0), count=1000)
    found = decision.needed(now)
    assert found.seeds is None
    # with any number of seeds 1.96 sqrt(1000 / examples) has to be below 1.4
    assert found.examples == math.ceil(1000 * (1.959964 / 1.4) ** 2)
    assert decision.needed(difference(0.0, count=1000)) == decision.Needed()


def test_seeds_count_for_the_row_that_stays_open_after_correction():
    rows = [difference(mean) for mean in (9.0, 1.5, 1.0)]
    found = decision.decide(rows, "lower")
    assert found[0].needed is None
    assert found[1].needed == decision.needed(rows[1], confidence=1 - 0.05 / 2)
    assert found[1].needed.seeds > decision.needed(rows[1]).seeds
