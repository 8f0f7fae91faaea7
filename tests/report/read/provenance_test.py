"""Starts of a point: other code and other machines on the way are seen."""

import json

import pytest

from attn import report
from attn.report.analyse import columns, numbers, regression, settings, summary, table
from attn.report.formats import page
from attn.report.read import provenance, results, saved
from tests.report import synthetic

OTHER = "feed123"


def environment(commit="4be1c07", cores=2, started="2026-11-22T10:02:11"):
    found = synthetic.environment(commit)
    found["machine"]["cores"] = cores
    return found | {"started": started}


@pytest.fixture
def root(tmp_path):
    return synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=2, images=1)


def started(root, name, *environments):
    """Writes the environments of each start of a point; reads the sweep."""
    path = root / name / "environment.json"
    path.write_text(json.dumps(list(environments)))
    return results.read(root)


def test_one_start_is_as_before(root):
    old = results.read(root)
    new = started(root, "cbam-1", environment())
    for points in (old.points, new.points):
        assert [point.codes for point in points] == [("4be1c07",)] * 4
    assert provenance.when(new.points[3:]) == "2026-11-22 10:02"


def test_the_first_start_is_when_it_began(root):
    later = environment(started="2026-11-25T08:00:00")
    sweep = started(root, "none-0", environment(), later)
    assert provenance.when(sweep.points) == "2026-11-22 10:02"


@pytest.mark.parametrize("order", [("4be1c07", OTHER), (OTHER, "4be1c07")])
def test_a_point_that_two_versions_of_the_code_ran_is_marked(root, order):
    sweep = started(root, "cbam-1", *map(environment, order))
    rows = table.rows(sweep)
    assert [columns.mark(row) for row in rows] == ["", numbers.DAGGER]
    assert sweep.points[3].codes == order
    said = f"{numbers.DAGGER} cbam-1 ran code {order[0]} and then {order[1]}, most ran"
    assert f"{said} 4be1c07." in summary.notes(sweep, rows)
    shown = settings.environment(sweep.points)["commit"]
    assert shown == f"4be1c07; {order[0]} and then {order[1]} in cbam-1"


def test_both_versions_of_the_code_survive_the_file(root, tmp_path):
    sweep = started(root, "cbam-1", environment(), environment(OTHER))
    back = saved.read(saved.save(sweep, tmp_path / "r.json"))
    assert back.points[3].codes == ("4be1c07", OTHER)
    assert [columns.mark(row) for row in table.rows(back)] == ["", numbers.DAGGER]
    (said, *_) = regression.compare(sweep, back).differences
    assert "commit" not in said


def test_times_of_machines_that_differ_are_not_compared(root):
    alike = started(root, "cbam-1", environment(), environment())
    assert "against ms per step" in page.render([alike])
    sweep = started(root, "cbam-1", environment(), environment(cores=64))
    assert len(provenance.machines(sweep.points)) == 2
    assert "against ms per step" not in page.render([sweep])
    assert (
        "Points ran on 2 machines that differ, so their times are not compared."
        in summary.notes(sweep, table.rows(sweep))
    )
    assert (
        settings.environment(sweep.points)["machine.cores"]
        == "2; 2 and then 64 in cbam-1"
    )


@pytest.mark.parametrize(
    ("steps", "codes"),
    [
        ((0, 100), (OTHER, "4be1c07")),
        ((0, 0), ("4be1c07",)),  # nothing is left of what the first start trained
        ((None, None), (OTHER, "4be1c07")),
    ],
)
def test_only_starts_of_which_steps_are_left_count(root, steps, codes):
    both = environment(OTHER), environment()
    sweep = started(
        root, "cbam-1", *({**e, "step": s} for e, s in zip(both, steps, strict=True))
    )
    assert sweep.points[3].codes == codes
    assert "step" not in settings.environment(sweep.points)


@pytest.mark.parametrize("content", ["[]", "[3, null]", "{}", "[", '"x"'])
def test_environments_that_say_nothing_are_no_error(root, content):
    for path in root.glob("*/environment.json"):
        path.write_text(content)
    sweep = results.read(root)
    assert [point.starts for point in sweep.points] == [()] * 4
    assert settings.environment(sweep.points) == {}
    report.show([root])
