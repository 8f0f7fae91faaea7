"""Tuning: equal trials, the best on validation to all seeds, the same if broken off."""

import dataclasses
import json

import pytest

from attn import settings
from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.sweep import experiment_file, tuning
from attn.workdir import files, standing
from attn.workdir.leases import Leases
from tests.train import small

FILE = '''"""A title."""
from tests.train import small
BASELINE = {"width": 8}
TUNE = {"schedule.peak": [1e-6, 0.1, 1e30]}

def get_config(arg):
    config = small.config(train__steps=4, train__eval_every=4, train__save_every=2)
    config["data"]["validation"] = "test[40:80]"
    return config

def sweep(arg):
    for width in (8, 4):
        for seed in (0, 1):
            yield {"width": width, "seed": seed}, {"model.width": width, "seed": seed}
'''
TRIED = [1e-6, 0.1, 1e30]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "widths.py"
    path.write_text(FILE)
    return path


class Stop(Interruption):
    """Asks to stop at the so-manieth step of whatever trains."""

    def __init__(self, after):
        super().__init__()
        self._left = after

    def at(self, step):
        self._left -= 1
        return self._left == 0


class Fails(small.Listener):
    """Another worker, which takes a trial and fails while the first one is trained."""

    def __init__(self, directory, name):
        super().__init__()
        self._directory, self._name = directory / "trials", name

    def point(self, k, n, name, others=()):
        super().point(k, n, name, others)
        if len(self.points) == 1:
            with Leases(self._directory) as others:
                others.take(self._name).give_up("RuntimeError: no room")


def run(path, directory, only=(), interruption=None, listener=None, **given):
    experiment = experiment_file.load(path, "", **given)
    listener = listener or small.Listener()
    diverged = tuning.run(
        experiment,
        experiment.select(only),
        directory,
        progress=listener,
        interruption=interruption or Interruption(),
    )
    return listener, diverged


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A tuned sweep: its directory, what was said, and what diverged."""
    place = tmp_path_factory.mktemp("tuning")
    (place / "widths.py").write_text(FILE)
    return place / "w", *run(place / "widths.py", place / "w")


def test_every_row_tries_the_same_and_takes_its_best_to_all_seeds(done):
    directory, listener, diverged = done
    record = files.read_json(directory / "tune.json")
    assert record["metric"]["name"] == "error"
    assert record["fields"] == ["schedule.peak"]
    assert [row["axes"] for row in record["rows"]] == [{"width": 8}, {"width": 4}]
    for row in record["rows"]:
        assert [t["settings"]["schedule.peak"] for t in row["trials"]] == TRIED
        values = [t["validation"] and t["validation"]["error"] for t in row["trials"]]
        assert values[2] is None  # diverged
        best = min(range(2), key=lambda i, values=values: values[i])
        assert row["chosen"] == {"schedule.peak": TRIED[best]}
        for seed in (0, 1):
            point = directory / f"{row['axes']['width']}-{seed}"
            config = files.read_json(point / "config.json")
            assert config["schedule"]["peak"] == TRIED[best]
            assert config["data"]["test"] == "test[:40]"
            assert files.read_json(point / "result.json")["test"]["examples"] == 40
    assert any(note.startswith("tuned 8: schedule.peak=") for note in listener.notes)
    assert diverged == {}


def test_trials_have_seeds_of_their_own_and_no_test_split(done):
    directory = done[0] / "trials"
    points = files.read_json(directory / "experiment.json")["points"]
    assert len(points) == 6
    seeds = set()
    for point in points:
        config = files.read_json(directory / point["name"] / "config.json")
        assert config["data"]["test"] == config["data"]["validation"] == "test[40:80]"
        assert point["axes"]["schedule.peak"] == config["schedule"]["peak"]
        seeds.add(config["seed"])
    assert len(seeds) == 3  # one for each setting, the same in both rows
    assert min(seeds) >= tuning.SEEDS


def lines(directory):
    names = ("*/metrics.jsonl", "trials/*/metrics.jsonl")
    paths = sorted(path for name in names for path in directory.glob(name))
    return {str(path.relative_to(directory)): path.read_text() for path in paths}


@pytest.mark.parametrize("after", [2, 19])
def test_broken_off_anywhere_it_ends_the_same(done, path, tmp_path, after):
    """In the first trial, and in the points."""
    with pytest.raises(loop.Stopped):
        run(path, tmp_path / "w", interruption=Stop(after))
    run(path, tmp_path / "w")
    record = (tmp_path / "w" / "tune.json").read_text()
    assert record == (done[0] / "tune.json").read_text()
    assert lines(tmp_path / "w") == lines(done[0])


def test_again_nothing_is_trained(done, path):
    record = (done[0] / "tune.json").read_bytes()
    listener, _ = run(path, done[0])
    assert listener.points == []
    experiment = experiment_file.load(path, "")
    tuning.unchanged(experiment, experiment.points, done[0])  # as a dry run asks
    assert (done[0] / "tune.json").read_bytes() == record


def test_rows_may_be_tuned_one_after_the_other(done, path, tmp_path):
    for width in ("4", "8"):
        run(path, tmp_path / "w", only=[f"{width}-0"])
    rows = files.read_json(tmp_path / "w" / "tune.json")["rows"]
    want = files.read_json(done[0] / "tune.json")["rows"]
    assert sorted(rows, key=json.dumps) == sorted(want, key=json.dumps)


def test_a_row_of_which_every_trial_diverges_is_not_trained(path, tmp_path):
    _, diverged = run(path, tmp_path / "w", ["8-0"], tune=["schedule.peak=1e30,1e31"])
    assert diverged == {"8-0": "every trial of 8 diverged"}
    assert not (tmp_path / "w" / "8-0").exists()
    assert files.read_json(tmp_path / "w" / "tune.json")["rows"][0]["chosen"] is None
    assert standing.read(tmp_path / "w").failed == diverged  # nobody waits for it
    run(path, tmp_path / "w", ["8-0"], tune=["none"])  # where a later run may train it
    assert standing.read(tmp_path / "w").done == ["8-0"]


def test_nothing_is_chosen_while_a_trial_failed(done, path, tmp_path):
    directory, tune = tmp_path / "w", ["schedule.peak=1e-6,0.1"]
    experiment = experiment_file.load(path, "", tune=tune)
    point = experiment.points[0]
    trial = tuning.trials(experiment.tune, [point])[1].name
    given = {"only": [point.name], "tune": tune}
    _, failed = run(path, directory, listener=Fails(directory, trial), **given)
    assert failed == {f"trials/{trial}": "RuntimeError: no room"}
    assert not (directory / "tune.json").exists()
    assert not (directory / point.name).exists()
    listener, failed = run(path, directory, **given)
    assert [name for _, _, name in listener.points] == [trial, point.name]
    assert failed == {}
    want = files.read_json(done[0] / point.name / "result.json")
    found = files.read_json(directory / point.name / "result.json")
    assert found["test"] == want["test"]


@pytest.mark.parametrize(("better", "best"), [("lower", "b"), ("higher", "c")])
def test_the_best_is_that_of_the_metric_and_the_first_of_equals(better, best):
    values = {"a": {"m": 2.0}, "b": {"m": 1.0}, "c": {"m": 3.0}, "d": {"m": 1.0}}
    entries = [{"point": name, "validation": v} for name, v in values.items()]
    entries.insert(0, {"point": "lost", "validation": None})
    entries.append({"point": "e", "validation": {"m": 3.0}})
    metric = {"name": "m", "better": better}
    assert tuning.best_of(entries, metric)["point"] == best
    assert tuning.best_of(entries[:1], metric) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"overrides": [("data.validation", "")]}, "tuning needs a validation split"),
        ({"overrides": [("schedule.peak", "1")]}, "cannot be set, as it is tuned"),
        (
            {"tune": ["model.width=1,2"]},
            "model.width cannot be tuned: the sweep",
        ),
    ],
)
def test_what_cannot_be_tuned_is_refused(path, given, says):
    with pytest.raises(settings.Invalid, match=says):
        experiment_file.load(path, "", **given)


def test_a_data_set_that_is_no_mapping_is_left_to_its_program(path):
    text = FILE.replace('["data"]["validation"] = "test[40:80]"', '["data"] = "digits"')
    path.write_text(text)
    loaded = experiment_file.load(path, "")
    assert {point.config["data"] for point in loaded.points} == {"digits"}
    path.write_text(text.replace('config["data"] = "digits"', 'del config["data"]'))
    assert experiment_file.load(path, "").points


@pytest.mark.parametrize(
    ("tune", "says"),
    [
        ("schedule.peek=1,2", "did you mean 'peak'"),
        ("schedule.peak=a,b", "config.schedule.peak must be float, got 'a'"),
        ("shedule.peak=1,2", "unknown field 'config.shedule.peak'"),
    ],
)
def test_a_trial_that_cannot_be_built_is_found_before_anything_is_written(
    path, tmp_path, tune, says
):
    with pytest.raises(settings.Invalid, match=says):
        run(path, tmp_path / "w", tune=[tune])
    assert not (tmp_path / "w").exists()


def test_trials_leave_matched_costs_alone(path, tmp_path):
    text = path.read_text().replace('"model.width"', '"optimizer.weight_decay"')
    path.write_text(text)
    tune = lambda field, *values: tuple({field: value} for value in values)
    experiment = dataclasses.replace(
        experiment_file.load(path, ""), match={"by": "parameters"}
    )
    says = "the trial 8-4-.* costs other than 8-0, which is matched by parameters"
    with pytest.raises(settings.Invalid, match=says):
        tuning.unchanged(
            dataclasses.replace(experiment, tune=tune("model.width", 8, 4)),
            experiment.points,
            tmp_path,
        )
    tuning.unchanged(
        dataclasses.replace(experiment, tune=tune("model.dropout", 0.0, 0.1)),
        experiment.points,
        tmp_path,
    )


def test_without_tuning_the_points_are_trained_as_they_are(path, tmp_path):
    run(path, tmp_path / "w", ["8-0"], tune=["none"])
    assert (tmp_path / "w" / "8-0" / "result.json").exists()
    assert not (tmp_path / "w" / "tune.json").exists()
    assert not (tmp_path / "w" / "trials").exists()
