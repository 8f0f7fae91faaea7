"""Rows: which points they gather, what they are compared to, and their text."""

import json

import pytest
import scipy.stats

from attn.report.analyse import columns, numbers, summary, table
from attn.report.analyse.statistics import Interval
from attn.report.draw import style
from attn.report.read import results
from tests.report import papers, synthetic


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("table") / "sweep"
    names = ["squeeze_excite", "none", "spatial_transformer"]
    return synthetic.sweep(root, names, seeds=3, images=1)


def made(tmp_path, axes, points, errors, baseline):
    return synthetic.bare(tmp_path, axes, points, errors, baseline=baseline)


def texts(sweep, name):
    """The cells of a column."""
    (found,) = [c for c in columns.columns(sweep, table.rows(sweep)) if c.name == name]
    return found.cells


def test_one_row_for_each_attention_compared_to_the_baseline(finished):
    sweep = results.read(finished)
    rows = table.rows(sweep)
    assert [row.label for row in rows] == [
        "squeeze_excite",
        "none",
        "spatial_transformer",
    ]
    assert [row.baseline for row in rows] == [False, True, False]
    error = [[p.result.values["error"] for p in row.points] for row in rows]
    # what each example got is not recorded: over seeds alone
    wanted = scipy.stats.ttest_ind(error[2], error[1], equal_var=False)
    low, high = wanted.confidence_interval()
    assert rows[2].difference.low == pytest.approx(low)
    assert rows[2].difference.high == pytest.approx(high)
    assert rows[1].difference is None
    assert rows[2].verdict == "better"


def test_each_row_is_compared_to_the_baseline_of_its_other_axes(tmp_path):
    points = [
        {"attention": attention, "depth": depth, "seed": seed}
        for depth in (20, 56)
        for attention in ("none", "cbam")
        for seed in (0, 1)
    ]
    errors = [10.0, 12.0, 9.0, 11.5, 5.0, 6.0, 7.0, 8.5]
    axes = ["attention", "depth", "seed"]
    rows = table.rows(made(tmp_path, axes, points, errors, {"attention": "none"}))
    assert [row.label for row in rows] == [
        "none · depth 20",
        "cbam · depth 20",
        "none · depth 56",
        "cbam · depth 56",
    ]
    means = [row.difference and row.difference.mean for row in rows]
    assert means == [None, pytest.approx(-0.75), None, pytest.approx(2.25)]


def test_a_difference_needs_a_seed_finished_in_both(tmp_path):
    points = [{"a": a, "seed": s} for a in ("none", "x", "y") for s in (0, 1)]
    errors = [10.0, None, None, 8.0, None, None]
    sweep = made(tmp_path, ["a", "seed"], points, errors, {"a": "none"})
    base, other, late = table.rows(sweep)
    assert (base.headline.count, other.headline.count) == (1, 1)
    assert other.difference == Interval(-2.0, None, 1)
    assert (late.difference, late.verdict) == (None, "")
    assert texts(sweep, "seeds")[1] == "1 of 2"


def test_one_seed_has_no_interval_and_says_so(tmp_path):
    points = [{"a": "none", "seed": 0}, {"a": "x", "seed": 0}]
    sweep = made(tmp_path, ["a", "seed"], points, [4.0, 3.0], {"a": "none"})
    rows = table.rows(sweep)
    cells = [texts(sweep, name)[1] for name in ("error", "difference", "verdict")]
    assert [cell.strip(numbers.FIGURE_SPACE) for cell in cells] == [
        "3.00",
        f"{numbers.MINUS}1.00",
        "one seed",
    ]
    said = " ".join(summary.notes(sweep, rows))
    assert "Every row has one seed only, so no interval." in said
    assert "nan" not in f"{cells}{said}".lower()


def test_without_its_baseline_a_sweep_has_no_differences(tmp_path):
    sweep = made(tmp_path, ["a"], [{"a": "x"}], [3.0], {"a": "none"})
    rows = table.rows(sweep)
    assert rows[0].difference is None
    assert "The baseline (a = none) is not among the points." in summary.notes(
        sweep, rows
    )


def test_a_row_that_ran_other_code_is_marked(finished, tmp_path):
    sweep = synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=2, images=1)
    other = json.dumps(synthetic.environment("feed123"))
    (sweep / "cbam-1" / "environment.json").write_text(other)
    read = results.read(sweep)
    rows = table.rows(read)
    assert [columns.mark(row) for row in rows] == ["", numbers.DAGGER]
    assert (
        f"{numbers.DAGGER} cbam-1 ran code feed123, most ran 4be1c07."
        in summary.notes(read, rows)
    )
    assert not any(map(columns.mark, table.rows(results.read(finished))))


def test_summary_names_the_best_and_what_is_not_distinguishable(finished):
    said = " ".join(summary.summary(table.rows(results.read(finished))))
    assert "Better than none: spatial_transformer." in said
    assert "Not distinguishable from none: squeeze_excite." in said
    assert summary.summary([]) == ["No point is finished yet."]


def test_numbers_are_written_for_people():
    assert numbers.number(-0.5, 1) == f"{numbers.MINUS}0.5"
    assert numbers.number(-0.001, 2, sign=True) == "0.00"
    assert numbers.number(1234.5, 1, sign=True) == "+1,234.5"
    assert numbers.unit([5.2e6, None, 90.0]) == (1e6, "M")
    assert [numbers.duration(s) for s in (59.6, 185, 7620)] == [
        "1 min 00 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
    assert numbers.span(0.00008, 0.128) == ("0.000", "0.128")
    aligned = numbers.aligned(["1.0 ± 10.5", "2.0 ± 0.5", "3.0", numbers.DASH])
    assert aligned[1] == "2.0 ± \N{FIGURE SPACE}0.5"
    assert {len(text) for text in aligned[:3]} == {10}


def test_rows_of_a_column_follow_each_other_and_share_a_look_by_kind(tmp_path):
    points = [
        {"net": net, "kind": kind, "set": name, "seed": 0}
        for net in ("A", "B")
        for kind in ("none", "x", "y")
        for name in ("p", "q")
    ]
    published = {"columns": "set", "rows": [{"axes": {}, "values": {"p": 1.0}}]}
    sweep = synthetic.bare(
        tmp_path,
        ["net", "kind", "set", "seed"],
        points,
        range(1, 13),
        baseline={"kind": "none"},
        published=published,
    )
    rows = table.rows(sweep)
    assert table.column_axis(sweep) == "set"
    assert [row.column for row in rows] == ["p"] * 6 + ["q"] * 6
    assert [row.kind for row in rows[:6]] == [row.kind for row in rows[6:]]
    assert (rows[1].kind, rows[1].family, rows[1].variant) == ("A · x", "A", "x")
    looks = style.styles(rows)
    assert looks[:6] == looks[6:]
    assert len(set(looks[:6])) == 6
    assert looks[1].colour == looks[4].colour != looks[2].colour
    assert looks[0].colour == looks[3].colour == style.BASELINE


@pytest.mark.parametrize(("count", "axis"), [(4, None), (5, "place")])
def test_many_rows_are_laid_out_by_the_last_axis_of_few_values(tmp_path, count, axis):
    points = [
        {"kind": f"k{i}", "place": place, "seed": 0}
        for i in range(count)
        for place in ("a", "b", "c")
    ]
    axes = ["kind", "place", "seed"]
    sweep = synthetic.bare(tmp_path, axes, points, range(1, 3 * count + 1))
    assert table.column_axis(sweep) == axis


def test_sentences_name_rows_of_a_kind_together_with_their_columns(tmp_path):
    root = papers.transformers(
        tmp_path / "s",
        ["FCN"],
        ["none", "affine"],
        ["r", "rts"],
        images=1,
        snapshots=(),
    )
    sweep = results.read(root)
    rows = table.rows(sweep)
    said = " ".join(summary.summary(rows) + summary.notes(sweep, rows))
    assert "Better than its baseline: FCN · affine (all 2)." in said
    assert "r 5." in said.split("Better")[0]
    assert "rts 4." in said.split("Better")[0]
    assert "the one like it with transformer = none" in said
    assert (
        "Widths are scaled so that the parameters of a point agree with 400,000 within"
        " 1 %." in said
    )
    assert "Up to 3 points were trained together in one program" in said
