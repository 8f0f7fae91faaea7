"""Standing: every point is in one place, silence is told without comparing clocks."""

import json
import os

import pytest

from attn import settings
from attn.train import evaluation
from attn.workdir import files, standing
from attn.workdir.leases import FOLDER, Leases


@pytest.fixture
def sweep(tmp_path):
    """A sweep of six points, none begun."""
    points = [{"name": f"p{k}", "axes": {"k": k}} for k in range(6)]
    record = {"title": "Six points", "points": points}
    files.write_json(tmp_path / "experiment.json", record)
    (tmp_path / FOLDER).mkdir()
    return tmp_path


def done(sweep, name, seconds=10.0):
    (sweep / name).mkdir()
    files.write_json(sweep / name / "result.json", {"seconds": seconds})


def test_every_point_is_in_one_place(sweep):
    leases = Leases(sweep)
    done(sweep, "p0")
    (sweep / "p1").mkdir()
    files.write_json(sweep / "p1" / standing.DIVERGED, "loss is NaN at step 3")
    lease = leases.take("p2")
    lease.notes = {"step": 30, "steps": 100, "seconds_left": 7.0}
    lease.renew()
    leases.take("p3").give_up("OSError: no space")
    (sweep / "p4").mkdir()
    leases.take("p4").give_up()
    found = standing.read(sweep)
    assert (found.title, found.points) == ("Six points", 6)
    assert found.done == ["p0"]
    assert found.failed == {"p1": "loss is NaN at step 3", "p3": "OSError: no space"}
    (training,) = found.training
    assert (training.name, training.step, training.seconds_left) == (
        *("p2", (30, 100)),
        7.0,
    )
    assert str(os.getpid()) in training.worker
    assert training.silent is None
    assert (found.begun, found.waiting) == (["p4"], ["p5"])


def test_time_left_is_shared_by_those_that_train(sweep):
    done(sweep, "p0", 10.0)
    done(sweep, "p1", 20.0)
    for name, host in (("p2", "a"), ("p3", "b")):
        lease = Leases(sweep, {"host": host}).take(name)
        lease.notes = {"step": 1, "steps": 2, "seconds_left": 6.0}
        lease.renew()
    # twice 6 s, and two points of 15 s, by two workers
    assert standing.read(sweep).seconds_left == pytest.approx((12 + 30) / 2)


def test_points_that_train_together_have_one_time_left(sweep):
    leases = Leases(sweep)
    done(sweep, "p0", 10.0)
    for name in ("p1", "p2", "p3", "p4", "p5"):
        lease = leases.take(name)
        lease.notes = {"step": 1, "steps": 2, "seconds_left": 8.0}
        lease.renew()
    assert standing.read(sweep).seconds_left == 8.0


def test_time_left_is_unknown_without_a_worker_or_a_finished_point(sweep):
    assert standing.read(sweep).seconds_left is None
    Leases(sweep).take("p0")
    assert standing.read(sweep).seconds_left is None
    for k in range(6):
        done(sweep, f"p{k}")
    assert standing.read(sweep).seconds_left == 0


def test_silence_is_told_by_the_clock_of_the_file_system(sweep, monkeypatch):
    Leases(sweep, {"place": "elsewhere"}).take("p0")
    path = sweep / FOLDER / "p0.1"
    stamp = path.stat().st_mtime
    monkeypatch.setattr("time.time", lambda: stamp + 1e6)  # a clock that is wrong
    assert standing.read(sweep).training[0].silent is None
    os.utime(path, (stamp - 300, stamp - 300))
    assert standing.read(sweep).training[0].silent == pytest.approx(300, abs=5)
    assert {p.name for p in (sweep / FOLDER).iterdir()} == {"p0.1"}


def test_a_worker_that_ended_here_trains_nothing(sweep):
    Leases(sweep, {"started": "another process"}).take("p0")
    found = standing.read(sweep)
    assert not found.training
    assert found.waiting[0] == "p0"


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(settings.Invalid, match="no sweep"):
        standing.read(tmp_path)
    (tmp_path / "experiment.json").write_text(json.dumps({"title": "", "points": []}))
    assert standing.read(tmp_path).points == 0


@pytest.mark.parametrize("record", [{}, []])
def test_what_is_no_record_of_a_sweep_is_said(tmp_path, record):
    files.write_json(tmp_path / "experiment.json", record)
    with pytest.raises(settings.Invalid, match="holds no sweep"):
        standing.read(tmp_path)
    with pytest.raises(settings.Invalid, match="is not the work directory of a sweep"):
        evaluation.points(tmp_path)


def test_points_are_chosen_by_name_value_and_axis():
    points = {"a-0": {"net": "a", "seed": 0}, "a-1": {"net": "a", "seed": 1}}
    points["b-0"] = {"net": "b", "seed": 0}
    assert standing.select(points, []) == ["a-0", "a-1", "b-0"]
    assert standing.select(points, ["b-0", "a-1"]) == ["a-1", "b-0"]
    assert standing.select(points, ["a"]) == ["a-0", "a-1"]
    assert standing.select(points, ["seed=0"]) == ["a-0", "b-0"]
    valid = r"unknown point 'c' \(valid: 0, 1, a, b, a-0, a-1, b-0\)"
    with pytest.raises(settings.Invalid, match=valid):
        standing.select(points, ["c"])
    with pytest.raises(settings.Invalid, match=r"unknown point '2' \(valid: 0, 1\)"):
        standing.select({"0": {"seed": 0}, "1": {"seed": 1}}, ["2"])
