"""Sweeps: a run of several points, and what is found before it."""

import dataclasses
import shutil

import pytest

from attn import settings
from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.sweep import experiment_file, groups, local
from attn.workdir import files
from attn.workdir.leases import Leases
from tests.train import small

FILE = '''"""A title.

More about it.
"""
from tests.train import small
BASELINE = {"width": 8}

def get_config(arg):
    return small.config(train__steps=4 if arg == "short" else 8)

def sweep(arg):
    for width in (8, 4):
        for seed in (0, 1):
            yield {"width": width, "seed": seed}, {"model.width": width, "seed": seed}
'''


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "widths.py"
    path.write_text(FILE)
    return path


def test_neighbours_that_differ_in_the_seed_share_a_program(path):
    pairs = list(groups.programs(experiment_file.load(path, "").points))
    programs = [program for _, program in pairs]
    assert programs[0] is programs[1]
    assert programs[2] is programs[3]
    assert programs[0] is not programs[2]


def run(path, directory, *, arg="short", only=(), overrides=(), listener=None):
    experiment = experiment_file.load(path, arg, overrides)
    listener = listener or small.Listener()
    local.run(
        experiment,
        experiment.select(only),
        directory,
        progress=listener,
        interruption=Interruption(),
    )
    return listener


def test_runs_points_once_and_says_so(path, tmp_path):
    directory = tmp_path / "runs" / "w"
    first = run(path, directory, only=["8"])
    assert first.points == [(1, 2, "8-0"), (2, 2, "8-1")]
    assert "8-0: test error" in first.notes[0]
    described = files.read_json(directory / "experiment.json")
    assert described["axes"] == ["width", "seed"]
    assert [point["name"] for point in described["points"]] == [
        "8-0",
        "8-1",
        "4-0",
        "4-1",
    ]
    result = (directory / "8-0" / "result.json").read_bytes()
    second = run(path, directory, only=["8"])
    assert second.notes == ["2 of 2 points are done already"]
    assert second.points == []
    assert (directory / "8-0" / "result.json").read_bytes() == result

    with pytest.raises(ValueError, match=r"for 8-0: train.steps: 4 -> 5; name another"):
        run(path, directory, overrides=[("train.steps", "5")])
    (directory / "8-0" / "result.json").write_bytes(b"")
    with pytest.raises(ValueError, match=r"8-0/result.json is empty; restore it, or"):
        run(path, directory, only=["8"])
    assert not (directory / "4-0").exists()


@pytest.mark.parametrize("only", [["4-0"], ["8-2"]])
def test_all_points_of_a_directory_have_one_config(path, tmp_path, only):
    """Of another row, and of another seed of a row that the sweep still has."""
    run(path, tmp_path / "w", only=["8-0"])
    seed = [("seed", "2")] if only == ["8-2"] else []
    with pytest.raises(settings.Invalid, match=r"for 8-0: train.steps: 4 -> 5; name"):
        run(path, tmp_path / "w", only=only, overrides=[("train.steps", "5"), *seed])
    run(path, tmp_path / "w", only=only, overrides=seed)
    assert (tmp_path / "w" / only[0] / "result.json").exists()


@pytest.mark.parametrize(
    "open_", [{"tune": ({"schedule.peak": 1.0},)}, {"match": {"by": "macs"}}]
)
def test_rows_whose_config_is_yet_to_be_found_are_not_compared(path, tmp_path, open_):
    experiment = dataclasses.replace(experiment_file.load(path, "short"), **open_)
    row, other = experiment.points[:2], experiment.points[2:]
    found = {**row[0].config, "schedule": {"name": "constant", "peak": 1.0}}
    local.describe(experiment, tmp_path)
    files.make(tmp_path / "8-0")
    files.write_json(tmp_path / "8-0" / "config.json", found)
    local.unchanged(experiment, other, tmp_path)
    with pytest.raises(settings.Invalid, match=r"for 8-0: schedule\.name"):
        local.unchanged(experiment, row[1:], tmp_path)  # another seed of its row


def test_points_that_others_will_train_stay_in_the_record(path, tmp_path):
    began = experiment_file.load(path, "short")
    local.describe(began, tmp_path, began.points[:1])
    other = experiment_file.load(path, "short", [("seed", "5")])
    names = lambda: [
        point["name"]
        for point in files.read_json(tmp_path / "experiment.json")["points"]
    ]
    with Leases(tmp_path) as others:
        lease = others.take("4-0")
        local.describe(other, tmp_path)
        assert names() == ["8-5", "4-5", "8-0"]
        lease.over()
    local.describe(other, tmp_path)
    assert names() == ["8-5", "4-5"]


def test_a_wrong_point_is_found_before_anything_is_written(path, tmp_path):
    directory = tmp_path / "runs" / "w"
    with pytest.raises(ValueError, match=r"config.optimizer: .*did you mean 'sgd'"):
        run(path, directory, overrides=[("optimizer.name", "sdg")])
    assert not directory.exists()


def test_a_point_that_diverges_leaves_the_others_alone(path, tmp_path):
    text = path.read_text().replace('"model.width": width', '"schedule.peak": peak')
    text = text.replace("for width in (8, 4)", "for peak in (1e30, 0.1)")
    path.write_text(text.replace('{"width": width, ', '{"peak": peak, '))
    experiment = experiment_file.load(path, "short", [("seed", "0")])
    listener = small.Listener()
    diverged = local.run(
        experiment,
        experiment.points,
        tmp_path / "w",
        progress=listener,
        interruption=Interruption(),
    )
    assert list(diverged) == ["1e+30-0"]
    assert "no longer finite" in diverged["1e+30-0"]
    assert not (tmp_path / "w" / "1e+30-0" / "result.json").exists()
    assert (tmp_path / "w" / "0.1-0" / "result.json").exists()


def test_a_request_to_stop_leaves_the_rest_for_later(path, tmp_path):
    experiment = experiment_file.load(path, "short")
    interruption = Interruption()
    interruption.ask()
    with pytest.raises(loop.Stopped, match="saved at step 1 of 4"):
        local.run(
            experiment,
            experiment.points,
            tmp_path / "w",
            progress=small.Listener(),
            interruption=interruption,
        )
    listener = run(path, tmp_path / "w", only=["8-0"])
    assert listener.notes[0] == "resumes at step 1"


def test_another_config_is_refused_while_others_are_at_work(path, tmp_path):
    began = experiment_file.load(path, "short")
    local.describe(began, tmp_path, began.points)
    with Leases(tmp_path) as others:
        lease = others.take("8-0")
        run(path, tmp_path, only=["4-1"])  # the same config
        shutil.rmtree(tmp_path / "4-1")  # or its row is begun
        with pytest.raises(settings.Invalid, match="4-0 has another config than"):
            run(path, tmp_path, only=["4-0"], overrides=[("schedule.peak", "0.3")])
        lease.over()
    run(path, tmp_path, only=["4-0"], overrides=[("schedule.peak", "0.3")])


class Changes(small.Listener):
    """Begins the sweep anew, with another config, once a point is done."""

    def __init__(self, experiment, directory):
        super().__init__()
        self._begin = lambda: local.describe(experiment, directory, experiment.points)

    def point_done(self, summary):
        super().point_done(summary)
        self._begin()


def test_a_worker_trains_nothing_more_once_the_sweep_has_another_config(path, tmp_path):
    directory = tmp_path / "w"
    other = experiment_file.load(path, "short", [("schedule.peak", "0.3")])
    listener = Changes(other, directory)
    with pytest.raises(settings.Invalid, match="has meanwhile another config for 8-1"):
        run(path, directory, listener=listener)
    assert [name for _, _, name in listener.points] == ["8-0"]


def test_a_worker_of_another_code_says_so(path, tmp_path):
    directory = tmp_path / "w"
    run(path, directory, only=["8-0"])
    record = files.read_json(directory / "experiment.json")
    files.write_json(directory / "experiment.json", record | {"code": "abc"})
    notes = run(path, directory, only=["8-1"]).notes
    assert any("was abc when the sweep began" in note for note in notes)
    assert files.read_json(directory / "experiment.json")["code"] == "abc"
