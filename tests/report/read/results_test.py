"""Reading work directories as killed and half-written runs leave them."""

import json
import shutil

import numpy as np
import pytest

from attn.report.read import results
from tests.report import synthetic


@pytest.fixture
def sweep(tmp_path):
    return synthetic.sweep(tmp_path / "sweep", ["none", "cbam"], seeds=2, images=1)


def problem(sweep, name):
    return next(p.problem for p in results.read(sweep).points if p.name == name)


def test_finished_points_are_read_whole(sweep):
    read = results.read(sweep)
    assert [p.name for p in read.points] == ["none-0", "none-1", "cbam-0", "cbam-1"]
    assert all(p.problem is None for p in read.points)
    point = read.points[2]
    assert (point.axes["attention"], point.seed) == ("cbam", 0)
    assert point.codes == ("4be1c07",)
    assert (point.result.parameters, point.result.macs) == (79_442, 5_431_110)
    assert point.result.values["error"] == point.curve("test", "error").values[-1]
    np.testing.assert_array_equal(
        point.curve("test", "loss").steps, [50, 100, 150, 200, 250]
    )


def test_a_half_written_line_is_left_out(sweep):
    path = sweep / "cbam-0" / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n")[:-9])
    point = results.read(sweep).points[2]
    assert point.curve("test", "loss").steps[-1] == 200
    assert point.curve("train", "loss").steps[-1] == 250


def test_of_a_step_logged_twice_the_later_line_counts(sweep):
    path = sweep / "cbam-0" / "metrics.jsonl"
    again = {"step": 20, "split": "train", "loss": 7.0, "error": 70.0}
    path.write_text(path.read_text() + json.dumps(again) + "\n")
    curve = results.read(sweep).points[2].curve("train", "loss")
    assert np.all(np.diff(curve.steps) > 0)
    assert curve.values[curve.steps == 20] == 7.0


def test_unfinished_points_say_how_far_they_got(sweep):
    (sweep / "none-0" / "result.json").unlink()
    shutil.rmtree(sweep / "none-1")
    (sweep / "cbam-0" / "result.json").unlink()
    (sweep / "cbam-0" / "metrics.jsonl").unlink()
    assert problem(sweep, "none-0") == "recorded up to step 250 of 250"
    assert problem(sweep, "none-1") == "not started"
    assert problem(sweep, "cbam-0") == "started, but no step is recorded"


def test_points_with_one_problem_are_listed_together(sweep):
    for name in ("none-1", "cbam-0"):
        shutil.rmtree(sweep / name)
    (sweep / "cbam-1" / "result.json").write_text("")
    assert results.read(sweep).unfinished == {
        "not started": ["none-1", "cbam-0"],
        "its result.json cannot be read": ["cbam-1"],
    }


def test_failed_points_say_what_failed(sweep):
    (sweep / "none-0" / "result.json").write_text('{"test": {"err')
    path = sweep / "none-1" / "result.json"
    path.write_text(json.dumps({"test": {"error": float("nan")}}))
    (sweep / "cbam-0" / "result.json").unlink()
    with (sweep / "cbam-0" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 260, "split": "train", "loss": NaN, "error": 90}\n')
    assert problem(sweep, "none-0") == "its result.json cannot be read"
    assert problem(sweep, "none-1") == "failed: its test error is not a number"
    assert problem(sweep, "cbam-0") == "failed: its loss is not a number from step 260"


def test_a_missing_cost_is_unknown_and_no_error(sweep):
    path = sweep / "cbam-0" / "result.json"
    path.write_text(json.dumps({"test": {"error": 4.5}, "macs": None}))
    result = results.read(sweep).points[2].result
    assert (result.values["error"], result.macs, result.parameters) == (4.5, None, None)


@pytest.mark.parametrize("content", [None, "{", '{"points": [{"axes": {}}]}', "[]"])
def test_what_is_no_sweep_is_refused_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(ValueError, match="is not a sweep") as error:
        results.read(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "experiment.json and one folder per point" in str(error.value)


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        results.read(tmp_path / "nowhere")
