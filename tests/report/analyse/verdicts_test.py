"""Verdicts of a sweep whose points tell what each test example got, and sentences."""

import dataclasses
import json

import numpy as np
import pytest

from attn.report.analyse import comparison, summary, table, verdicts
from attn.report.analyse.comparison import Sample
from attn.report.formats import markdown, page
from attn.report.read import outcomes, results, saved
from tests.report import synthetic

ERRORS = {"none": 20.0, "good": 8.0, "same": 20.0, "near": 19.0}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("verdicts") / "s"
    return synthetic.outcomes(root, ERRORS, rope=4.0)


def by_label(sweep):
    return {row.label: row for row in table.rows(sweep)}


def test_differences_are_over_seeds_and_examples(sweep):
    rows = by_label(sweep)
    sides = []
    for kind in ("good", "none"):
        files = [sweep.directory / f"{kind}-{s}" / outcomes.FILE for s in range(3)]
        totals = np.stack([np.load(file)["error.total"] for file in files])
        made = outcomes.of(totals, np.ones_like(totals))
        sides.append(Sample(tuple(totals.mean(1)), 400, made))
    wanted = comparison.difference(*sides, share=True)
    assert wanted.examples.variance > 2 * sum(part.variance for part in wanted.parts)
    assert rows["good"].difference.mean == pytest.approx(wanted.mean)
    assert rows["good"].difference.half == pytest.approx(wanted.half())
    assert [row.verdict for row in rows.values()] == [
        "",
        "better",
        "equivalent",
        "equivalent",
    ]


def test_a_file_of_results_decides_the_same(sweep, tmp_path):
    path = saved.save(sweep, tmp_path / "r.json")
    back = saved.read(path)
    assert back.rope == 4.0
    for old, new in zip(table.rows(sweep), table.rows(back), strict=True):
        assert new.verdict == old.verdict
        if old.difference:
            assert new.difference.half == pytest.approx(old.difference.half, rel=1e-3)
            assert new.decision.p_value == pytest.approx(old.decision.p_value, 0.01)
    lines = path.read_text().splitlines()
    # a line for each row: its covariances with those before it
    assert sum(line.count(",") > 2 and "[" in line for line in lines) <= 8
    assert saved.text(json.loads(path.read_text())) == path.read_text()
    again = saved.read(saved.save(back, tmp_path / "again.json"))
    assert [row.verdict for row in table.rows(again)] == [
        row.verdict for row in table.rows(sweep)
    ]


def test_notes_say_over_what_and_what_is_open(sweep):
    rows = table.rows(sweep)
    said = " ".join(summary.summary(rows) + summary.notes(sweep, rows))
    assert "Better than none: good. Equivalent to none: same, near." in said
    assert "measured over seeds and test examples" in said
    assert "seeds alone" not in said
    assert "corrected for the 3 comparisons of the table (Holm)" in said
    assert "Equivalent is what surely differs by less than \N{PLUS-MINUS SIGN}4" in said
    text = markdown.text(sweep)
    assert "| equivalent |" in text
    assert "measured over seeds and test examples" in text
    assert 'opacity=".12"' in page.render([sweep])


def test_without_a_region_of_equivalence_they_stay_open(sweep):
    plain = dataclasses.replace(sweep, rope=None)
    rows = by_label(plain)
    assert rows["same"].verdict == "not distinguishable"
    said = " ".join(verdicts.notes(plain, list(rows.values())))
    assert "Equivalent" not in said
    for label in ("same", "near"):
        needed = rows[label].decision.needed
        shown = needed.seeds or (needed.examples and f"{needed.examples:,}")
        assert not shown or f"{label} ({shown})" in said
    assert rows["near"].decision.needed.seeds or rows["near"].decision.needed.examples
    assert 'opacity=".12"' not in page.render([plain])


def test_rows_without_outcomes_say_that_they_are_over_seeds(tmp_path):
    sweep = synthetic.outcomes(tmp_path / "s", ERRORS)
    for seed in range(3):
        (sweep.directory / f"near-{seed}" / outcomes.FILE).unlink()
    sweep = results.read(sweep.directory)
    rows = by_label(sweep)
    assert rows["near"].compared.examples is None
    assert rows["good"].compared.examples is not None
    said = " ".join(verdicts.notes(sweep, list(rows.values())))
    assert "The differences of near have intervals over seeds alone" in said
    assert "what each test example got is not recorded" in said
    assert "narrower than the number of test examples allows" in said


def test_what_holds_only_without_correction_is_named(tmp_path):
    points = [{"a": a, "seed": s} for a in ("none", *"xyzuvw") for s in (0, 1, 2)]
    errors = [10.0, 10.2, 10.1] * 7
    errors[3:6] = [9.6, 9.8, 9.8]  # p = 0.02, of six
    errors[6:9] = [4.0, 4.1, 4.2]
    sweep = synthetic.bare(
        tmp_path, ["a", "seed"], points, errors, baseline={"a": "none"}
    )
    rows = by_label(sweep)
    assert (rows["x"].verdict, rows["x"].uncorrected) == (
        "not distinguishable",
        "better",
    )
    assert verdicts.summary(list(rows.values()))[0] == "Better than none: y."
    assert "Only without correction for their number: better x." in verdicts.summary(
        list(rows.values())
    )
