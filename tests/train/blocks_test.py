"""Measured blocks: kept with a work directory, and for the machine."""

import json

import jax
import numpy as np
import pytest

from attn import ops, settings
from attn.ops.dot_product import Limits, measure
from attn.train import blocks
from attn.workdir import files

LENGTH, WHOLE = 2048, (1024, 1024)
Q = jax.ShapeDtypeStruct((2, LENGTH, 2, 8), np.float32)
NAME = "2048-2048-2-2-8-8-float32-all.json"


@pytest.fixture
def measured(monkeypatch):
    """The cases that were measured; each gets blocks of 16 x 32."""
    cases = []

    def fastest(case):
        cases.append(case)
        return Limits(16, 32)

    monkeypatch.setattr(measure, "fastest", fastest)
    return cases


def lengths():
    plan = ops.explain(Q, Q, Q).plan
    return plan.q, plan.k


def within(directory, how="measured", cache="", note=lambda text: None):
    with blocks.choose(how, directory, str(cache), note):
        return lengths()


def begun(directory, how=None):
    """Its record, as `local.describe` writes it; older ones do not tell of blocks."""
    record = {"name": "mine", "points": []} | ({"blocks": how} if how else {})
    files.write_json(directory / "experiment.json", record)


def test_a_case_is_measured_once_and_kept_with_the_work_directory(tmp_path, measured):
    notes = []
    assert within(tmp_path / "w", note=notes.append) == (16, 32)
    assert len(measured) == 1
    (said,) = notes
    assert said == f"measuring blocks of attention, 2048 x 2048 ({NAME[:-5]})"
    path = tmp_path / "w" / ".blocks" / NAME
    assert json.loads(path.read_text()) == {"q": 16, "k": 32, "at_once": 2**18}
    path.write_text(json.dumps({"q": 32, "k": 8, "at_once": 1}))
    # from there they come, by another process and without the flag, too
    begun(tmp_path / "w", "measured")
    assert within(tmp_path / "w") == (32, 8)
    assert len(notes) == 1
    assert within(tmp_path / "w", "table", note=notes.append) == (32, 8)
    assert notes[1:] == ["blocks of attention are measured, as this sweep was begun"]
    assert len(measured) == 1
    assert lengths() == WHOLE


def test_what_has_one_plan_alone_is_not_measured(tmp_path, measured):
    few = jax.ShapeDtypeStruct((2, 20, 2, 8), np.float32)
    with blocks.choose("measured", tmp_path, "", print):
        plan = ops.explain(few, few, few).plan
    assert (plan.q, plan.k) == (20, 20) and not measured


def test_a_plan_measures_and_leaves_the_work_directory_as_it_is(tmp_path, measured):
    with blocks.choose("measured", tmp_path / "w", "", print, keep=False):
        assert lengths() == (16, 32)
        assert lengths() == (16, 32)
    assert len(measured) == 1 and not (tmp_path / "w").exists()


def test_the_table_holds_where_nothing_is_asked(tmp_path, measured):
    assert within(tmp_path / "w", "table") == WHOLE
    assert not measured and not (tmp_path / "w").exists()
    with blocks.choose("measured", tmp_path / "w", "", print):
        pass  # nothing to be measured, nothing written
    assert not (tmp_path / "w").exists()


def test_a_machine_measures_once_for_all_work_directories(tmp_path, measured):
    for name in ("a", "b"):
        assert within(tmp_path / name, cache=tmp_path / "xla") == (16, 32)
    assert len(measured) == 1
    assert (tmp_path / "b" / ".blocks" / NAME).exists()


def test_another_machine_measures_anew(tmp_path, measured, monkeypatch):
    within(tmp_path / "a", cache=tmp_path / "xla")
    here = blocks.machine.environment()
    other = here | {"processor": "another"}
    monkeypatch.setattr(blocks.machine, "environment", lambda: other)
    within(tmp_path / "b", cache=tmp_path / "xla")
    assert len(measured) == 2
    within(tmp_path / "a", cache=tmp_path / "xla")  # it keeps to what it began with
    assert len(measured) == 2


def test_of_two_that_measure_at_once_the_first_counts(tmp_path, monkeypatch):
    folder = tmp_path / "w" / ".blocks"

    def fastest(case):  # meanwhile another one has written
        files.make(folder)
        files.write_json(folder / NAME, {"q": 8, "k": 8, "at_once": 1})
        return Limits(16, 32)

    monkeypatch.setattr(measure, "fastest", fastest)
    assert within(tmp_path / "w") == (8, 8)


@pytest.mark.parametrize("how", ["table", None])
def test_a_work_directory_that_was_begun_without_is_refused(tmp_path, measured, how):
    begun(tmp_path, how)
    with pytest.raises(settings.Invalid, match="was begun with the table's blocks"):
        within(tmp_path)
    assert within(tmp_path, "table") == WHOLE


@pytest.mark.parametrize(
    "content", ["{}", '{"q": 0, "k": 8, "at_once": 1}', '{"q": 8}', "[]", "3", ""]
)
def test_damaged_limits_are_one_sentence(tmp_path, measured, content):
    within(tmp_path / "w")
    (tmp_path / "w" / ".blocks" / NAME).write_text(content)
    with pytest.raises(settings.Invalid, match="remove it"):
        within(tmp_path / "w")


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(settings.Invalid, match=r"unknown --blocks 'fast'.*table"):
        within(tmp_path, "fast")


def test_they_are_no_strange_files(tmp_path, measured):
    within(tmp_path / "w")
    files.check(tmp_path / "w")


def test_no_folder_is_made_of_an_address(tmp_path, measured, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert within(tmp_path / "w", cache="gs://bucket/xla") == (16, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
