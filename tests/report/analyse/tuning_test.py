"""Expected best values against brute force, edges of grids, and what is said."""

import itertools
import json

import numpy as np
import pytest

from attn.report.analyse import tuning
from attn.report.read import tuning as records

VALUES = [3.0, 8.5, 1.25, 8.5, 4.0]


@pytest.mark.parametrize(("better", "best"), [("higher", max), ("lower", min)])
def test_the_expected_best_is_the_mean_over_all_draws(better, best):
    found = tuning.expected_best(VALUES, better)
    assert len(found) == len(VALUES)
    for n, value in enumerate(found, 1):
        draws = itertools.product(VALUES, repeat=n)
        assert value == pytest.approx(np.mean([best(draw) for draw in draws]))


def test_of_one_trial_it_is_the_mean_and_of_equal_ones_that():
    assert tuning.expected_best(VALUES, "lower")[0] == pytest.approx(np.mean(VALUES))
    assert tuning.expected_best([2.0] * 3, "higher") == pytest.approx([2.0] * 3)


def row(name, values, chosen, field="schedule.peak"):
    return {
        "axes": {"attention": name},
        "trials": [
            {
                "point": "p",
                "settings": {field: setting},
                "seed": 1,
                "validation": None if value is None else {"error": value, "loss": 1},
            }
            for setting, value in values.items()
        ],
        "chosen": None if chosen is None else {field: chosen},
    }


def read(tmp_path, *rows, field="schedule.peak"):
    record = {
        "metric": {"name": "error", "label": "error", "unit": "%", "better": "lower"},
        "fields": [field],
        "rows": rows,
    }
    (tmp_path / "tune.json").write_text(json.dumps(record))
    return records.read(tmp_path)


def test_says_what_was_tried_chosen_and_at_the_edge(tmp_path):
    found = read(
        tmp_path,
        row("none", {0.01: 8.0, 0.03: 6.0, 0.1: 7.0}, 0.03),
        row("cbam", {0.01: 8.0, 0.03: 7.0, 0.1: 5.0}, 0.1),
        row("lost", {0.01: 9.0, 0.03: None, 0.1: None}, 0.01),
    )
    said = " ".join(tuning.sentences(found))
    assert "each row had 3 trials of schedule.peak on the validation split" in said
    assert "none: 0.03; cbam: 0.1; lost: 0.01" in said
    edge = "The best value is at the edge of those tried, so that one beyond it may be"
    assert f"{edge} better: cbam (schedule.peak), lost (schedule.peak)." in said
    # of 6, 7, 8: the mean; (6 x 5 + 7 x 3 + 8) / 9; (6 x 19 + 7 x 7 + 8) / 27
    assert (
        "Expected best validation error, % after 1, 2, ... trials: none: 7.00, 6.56,"
        in said
    )
    assert "6.33; cbam: 6.67" in said
    assert "Trials that diverged: lost (2)." in said


@pytest.mark.parametrize(
    ("values", "chosen", "edges"),
    [
        ({1: 2.0, 2: 1.0, 3: 2.0}, 2, []),
        ({1: 1.0, 2: 2.0, 3: 2.0}, 1, ["f"]),
        ({3: 1.0, 2: 2.0, 1: 2.0}, 3, ["f"]),
        ({1: 1.0}, 1, []),  # nothing was tried beside it
        ({"adam": 1.0, "lion": 2.0}, "adam", []),  # names have no edge
        ({1: None, 2: None}, None, []),
    ],
)
def test_edges_are_of_numbers(tmp_path, values, chosen, edges):
    found = read(tmp_path, row("a", values, chosen, "f"), field="f")
    assert tuning.at_the_edge(found.rows[0]) == edges


@pytest.mark.parametrize("text", [None, "", "{}", '{"metric": null, "rows": []}'])
def test_no_record_is_no_tuning(tmp_path, text):
    if text is not None:
        (tmp_path / "tune.json").write_text(text)
    assert records.read(tmp_path) is None


def test_a_row_of_a_number_is_named_by_its_axis(tmp_path):
    found = read(tmp_path, row(8, {0.01: 2.0, 0.1: 1.0}, 0.1))
    (axis,) = found.rows[0].axes
    assert f"seeds: {axis} 8: 0.1." in " ".join(tuning.sentences(found))
