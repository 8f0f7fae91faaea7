"""The estimate of a sweep's time: counts by hand, and nothing left behind."""

import contextlib

from attn.train.sweep import estimate
from attn.train.sweep.experiment_file import Point
from attn.train.sweep.groups import groups
from attn.workdir import files
from tests.train import small


def points(**changes):
    return [
        Point(f"p-{seed}", {"seed": seed}, small.config(seed=seed, **changes))
        for seed in (0, 1)
    ]


def test_every_part_counts_as_often_as_it_comes(tmp_path):
    """23 steps: tests after 10, 20, 23, saves at 16, 23, a snapshot at 0 too."""
    changes = {"eval_every": 10, "snapshot_every": 12, "save_every": 16, "steps": 23}
    made = points(**{f"train__{name}": value for name, value in changes.items()})
    (group, _) = groups(made)
    rehearsal = estimate._Rehearsal(group, tmp_path)
    parts = {"_begin": 1, "_save": 10, "_evaluate": 1e2, "_snapshot": 1e3, "_end": 1e4}
    vars(rehearsal).update(parts)
    assert rehearsal.once() == 11101
    assert rehearsal.total(1e6) == 1 + 22e6 + 2 * 10 + 3 * 1e2 + 3 * 1e3 + 1e4


def test_rehearses_a_program_once_for_all_its_seeds(tmp_path):
    told = []

    def status(text):
        told.append(text)
        return contextlib.nullcontext()

    made = points(train__steps=40, train__eval_every=20, train__save_every=20)
    rows, seconds = estimate.rehearse(made, tmp_path / "sweep", status=status)
    assert told == ["timing p-0"]
    assert [row["point"] for row in rows] == ["p-0", "p-1"]
    first, second = rows
    assert first["seconds"] == second["seconds"] > 40 * first["ms_per_step"] / 1000
    assert seconds > first["seconds"] + second["seconds"]
    assert first["parameters"] > first["macs"] / 1000 > 0
    # what a report needs is there, of the point that was rehearsed
    assert [p.name for p in tmp_path.iterdir()] == ["sweep"]
    done = files.read_json(tmp_path / "sweep" / "p-0" / "result.json")
    assert done["test"]["examples"] == 40


def test_notes_the_steps_and_stops_in_time(monkeypatch):
    now = iter([0.0, 1.0, 2.0, 2.5, 2.6, 2.7, 2.8, 9.0])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(now))
    stop = estimate._Stop(60)
    assert [stop.at(step) for step in range(1, 8)] == [False] * 7
    assert stop.at(8)  # three seconds are over
    stop = estimate._Stop(2)
    now = iter([0.0, 0.1])
    assert [stop.at(1), stop.at(2)] == [False, True]
    assert stop.times == [0.0, 0.1]


def test_a_training_of_one_step_has_an_estimate_too(tmp_path):
    made = points(train__steps=1, schedule__warmup=0)[:1]
    rows, seconds = estimate.rehearse(made, tmp_path / "sweep")
    assert 0 < rows[0]["ms_per_step"] / 1000 < rows[0]["seconds"] <= seconds


def test_points_that_train_together_share_the_time(tmp_path):
    made = points(train__steps=6, train__eval_every=6, train__save_every=6)
    rows, _ = estimate.rehearse(made, tmp_path / "sweep", parallel="vmap")
    assert rows[0]["seconds"] == rows[1]["seconds"]
    for name in ("p-0", "p-1"):
        result = files.read_json(tmp_path / "sweep" / name / "result.json")
        assert result["together"] == 2


def test_trials_of_a_row_count_before_its_points(tmp_path):
    made = points(train__steps=6, train__eval_every=6, train__save_every=6)
    rows, seconds = estimate.rehearse(made, tmp_path / "sweep", trials=3)
    assert [row["point"] for row in rows] == ["point: 3 trials", "p-0", "p-1"]
    assert rows[0]["trials"] == 3
    assert rows[0]["seconds"] >= 3 * rows[1]["seconds"]
    assert seconds > sum(row["seconds"] for row in rows)


def test_several_machines_stop_at_one_step_whatever_their_clocks(monkeypatch):
    times = iter(range(0, 10_000, 100))
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(estimate.jax, "process_count", lambda: 2)
    stop = estimate._Stop(60)
    assert [stop.at(step) for step in range(1, 60)] == [False] * 59
    assert stop.at(60)
