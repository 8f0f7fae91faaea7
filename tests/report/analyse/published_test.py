"""Ours beside the paper's: which cells meet, and how the orders agree."""

import itertools
import json

import pytest

from attn.report.analyse import numbers, published, table
from attn.report.read import results
from tests.report import papers, synthetic


def compared(root, theirs, errors, columns=("p",), axis="set", keys=str):
    """A table of networks by sets: `theirs` and `errors` by network, then by set."""
    points, flat = [], []
    for net, by_set in errors.items():
        for name, by_seed in zip(columns, by_set, strict=True):
            for seed, error in enumerate(by_seed):
                points.append({"net": net, axis: name, "seed": seed})
                flat.append(error)
    rows = [
        {"axes": {"net": net}, "values": dict(zip(map(keys, columns), v, strict=True))}
        for net, v in theirs.items()
    ]
    record = {"source": "A paper", "columns": axis, "rows": rows}
    sweep = synthetic.bare(root, ["net", axis, "seed"], points, flat, published=record)
    return published.compare(sweep, table.rows(sweep))


def test_pairs_are_counted_by_the_intervals_of_their_differences(tmp_path):
    errors = {
        "a": [[4.0, 4.4, 4.8]],
        "b": [[7.1, 6.0, 6.6]],  # above a: the paper says so too
        "c": [[2.0, 2.4, 2.3]],  # below both, where the paper has it on top
        "d": [[9.0, 5.0, 1.0]],  # not distinguishable from any
    }
    theirs = {"a": [10], "b": [20], "c": [30], "d": [30]}
    found = compared(tmp_path, theirs, errors)
    (one,) = found.agreements
    # ab same; ac, bc other; ad, bd open; cd tied in the paper
    assert (one.same, one.other, one.open, one.single, one.tied) == (1, 2, 2, 0, 1)
    assert one.ordered == 5
    said = " ".join(published.sentences(found))
    assert (
        "Of the 5 pairs of rows that the paper orders within a column, ours orders 1"
        " the same way, 2 the other way, 2 are not distinguishable." in said
    )


def kendall(x, y):
    """Tau-b written out: concordant less discordant over the pairs without ties."""
    sign = lambda a, b: (a > b) - (a < b)
    pairs = list(itertools.combinations(range(len(x)), 2))
    both = [(sign(x[i], x[j]), sign(y[i], y[j])) for i, j in pairs]
    untied = [sum(s[k] != 0 for s in both) for k in (0, 1)]
    return sum(a * b for a, b in both) / (untied[0] * untied[1]) ** 0.5


def test_tau_is_over_the_means_of_a_column_and_then_their_mean(tmp_path):
    theirs = {"a": [1, 9], "b": [2, 8], "c": [2, 5], "d": [4, 5], "e": [5, None]}
    means = {"a": [3, 1], "b": [2, 7], "c": [5, 6], "d": [9, 4], "e": [6, 2]}
    errors = {net: [[m - 0.5, m + 0.5] for m in v] for net, v in means.items()}
    found = compared(tmp_path, theirs, errors, columns=("p", "q"))
    p, q = found.agreements
    assert p.tau == pytest.approx(kendall([1, 2, 2, 4, 5], [3, 2, 5, 9, 6]))
    assert q.tau == pytest.approx(kendall([9, 8, 5, 5], [1, 7, 6, 4]))
    assert (p.count, q.count, found.overall.count) == (5, 4, 9)
    assert found.overall.tau == pytest.approx((p.tau + q.tau) / 2)
    assert found.overall.tied == p.tied + q.tied == 2


def test_three_rows_have_no_rank_agreement(tmp_path):
    theirs = {"a": [1], "b": [2], "c": [3]}
    errors = {"a": [[1.0, 1.1]], "b": [[2.0, 2.2]], "c": [[3.0, 3.1]]}
    found = compared(tmp_path, theirs, errors)
    assert found.agreements[0].tau is found.overall.tau is None
    assert "tau" not in " ".join(published.sentences(found))
    more = compared(
        tmp_path / "more", theirs | {"d": [4]}, errors | {"d": [[4.0, 4.5]]}
    )
    assert more.overall.tau == 1.0


def test_one_seed_says_nothing_of_an_order(tmp_path):
    found = compared(tmp_path, {"a": [1], "b": [2]}, {"a": [[1.0]], "b": [[2.0]]})
    assert (found.overall.single, found.overall.open) == (1, 0)
    assert "1 have a row of one seed" in " ".join(published.sentences(found))


def test_what_one_side_lacks_is_shown_as_such(tmp_path):
    errors = {"a": [[1.0, 2.0]], "mine": [[3.0, 4.0]], "late": [[None, None]]}
    found = compared(tmp_path, {"theirs": [7], "late": [8], "a": [1.5]}, errors)
    told = {line.label: (line.cells[0], line.remark) for line in found.lines}
    assert list(told) == ["theirs", "late", "a", "mine"]
    shown = {
        label: (published.ours(cell)[:4], published.theirs(cell), remark)
        for label, (cell, remark) in told.items()
    }
    assert shown == {
        "theirs": (numbers.DASH, "7.0", "not among our points"),
        "late": (numbers.DASH, "8.0", ""),
        "a": ("1.50", "1.5", ""),
        "mine": ("3.50", numbers.DASH, "not in the paper"),
    }
    assert not found.overall.ordered
    assert published.sentences(found) == [
        "No pair of rows that the paper orders is finished among ours yet."
    ]


def test_a_paper_of_equal_values_orders_nothing(tmp_path):
    found = compared(tmp_path, {"a": [1], "b": [1]}, {"a": [[1.0]], "b": [[2.0]]})
    assert published.sentences(found) == [
        "To the 1 pair of rows the paper gives equal values."
    ]


def test_columns_that_are_numbers_survive_the_record(tmp_path):
    errors = {"a": [[1.0], [2.0]], "b": [[3.0], [4.0]]}
    theirs = {"a": [5, 6], "b": [7, 8]}
    found = compared(tmp_path, theirs, errors, columns=(64, 128), axis="size")
    assert [column.name for column in found.columns] == ["64", "128"]
    ours = [[cell.ours.mean for cell in line.cells] for line in found.lines]
    assert ours == [[1.0, 2.0], [3.0, 4.0]]
    assert [[cell.theirs for cell in line.cells] for line in found.lines] == [
        [5, 6],
        [7, 8],
    ]


def test_quantities_are_held_against_ours_where_both_have_them(tmp_path):
    root = papers.reductions(tmp_path / "s", ["none", 16], seeds=2, images=1)
    sweep = results.read(root)
    found = published.compare(sweep, table.rows(sweep))
    assert found.axis is None
    assert [c.head for c in found.columns] == [
        "test error, %",
        "top-5 error",
        "parameters",
    ]
    line = next(line for line in found.lines if line.label == "reduction 16")
    shown = [(published.ours(cell), published.theirs(cell)) for cell in line.cells]
    assert shown[0][0].startswith("8.") or shown[0][0].startswith("9.")
    assert shown[0][1] == "22.28"
    assert shown[1:] == [(numbers.DASH, "6.03"), ("78,106", "28.1 M")]
    assert found.agreements[1:] == (None, None)
    assert found.overall.ordered == 1


def test_a_cell_with_other_code_is_marked(tmp_path):
    root = papers.reductions(tmp_path / "s", ["none", 16], seeds=2, images=1)
    other = json.dumps(synthetic.environment("feed123"))
    (root / "16-1" / "environment.json").write_text(other)
    sweep = results.read(root)
    found = published.compare(sweep, table.rows(sweep))
    marks = {line.label: line.cells[0].mark for line in found.lines}
    assert marks["reduction 16"] == numbers.DAGGER
    assert marks["none"] == ""
    cell = next(line.cells[0] for line in found.lines if line.label == "reduction 16")
    assert published.ours(cell).endswith(numbers.DAGGER)


def test_the_best_of_a_column_needs_more_than_the_interval(tmp_path):
    points = [
        {"kind": kind, "set": name, "seed": seed}
        for name in ("p", "q")
        for kind in ("none", "x")
        for seed in (0, 1)
    ]
    errors = [5.0, 5.1, 4.0, 4.1, 5.0, 6.0, 4.9, 1.0]
    rows = [{"axes": {"kind": k}, "values": {"p": 1, "q": 2}} for k in ("none", "x")]
    sweep = synthetic.bare(
        tmp_path,
        ["kind", "set", "seed"],
        points,
        errors,
        baseline={"kind": "none"},
        published={"columns": "set", "rows": rows},
    )
    found = published.compare(sweep, table.rows(sweep))
    assert published.best(found) == {(1, 0)}


@pytest.mark.parametrize("record", [None, {}, {"rows": []}, {"rows": [1, {}]}, "x"])
def test_no_table_is_no_comparison(tmp_path, record):
    points = [{"net": "a", "seed": 0}]
    sweep = synthetic.bare(tmp_path, ["net", "seed"], points, [1.0], published=record)
    assert published.compare(sweep, table.rows(sweep)) is None
