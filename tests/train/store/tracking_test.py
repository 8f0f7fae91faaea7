"""Tracking services: one run a point, however often it is started."""

import json
import sys
import types

import pytest

from attn import settings
from attn.train import loop
from attn.train.interruption import Interruption
from attn.train.store import tracking
from attn.train.store.tracking import Tracked, Tracking
from attn.train.sweep import experiment_file, local
from attn.workdir import files
from tests.train import small

PARTS = {"wandb": "wandb.sdk", "mlflow": "mlflow.version"}


def needs(name):
    """The package of a service; a folder of its files has the same name."""
    pytest.importorskip(PARTS[name], reason=f"{name} is not installed")
    return sys.modules[name]


FILE = '''"""A title."""
from tests.train import small

def get_config(arg):
    return small.config(train__steps=4)

def sweep(arg):
    for seed in (0, 1):
        yield {"seed": seed}, {"seed": seed}
'''


class Stops(Interruption):
    """Asks to stop after a step."""

    def __init__(self, step):
        super().__init__()
        self._step = step

    def at(self, step):
        return step == self._step


def trained(tmp_path, service):
    """A sweep of two points, of which the first is stopped once and resumed."""
    (tmp_path / "seeds.py").write_text(FILE)
    experiment = experiment_file.load(tmp_path / "seeds.py", "")
    run = lambda interruption: local.run(
        experiment,
        experiment.points,
        tmp_path / "w",
        progress=small.Listener(),
        interruption=interruption,
        log_to=[service],
    )
    with pytest.raises(loop.Stopped):
        run(Stops(2))
    run(Interruption())
    page = tmp_path / "w" / "report.html"
    page.write_text("<p>A report.</p>")
    Tracking([service], experiment.name).attach(tmp_path / "w", page)
    return tmp_path / "w"


def curve(point):
    """What metrics.jsonl says of the loss of a training, by step."""
    lines = map(json.loads, (point / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["split"] == "train"}


def test_mlflow_has_one_run_a_point_with_its_config_and_the_report(
    tmp_path, monkeypatch
):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    directory = trained(tmp_path, "mlflow")

    import mlflow

    client = mlflow.MlflowClient()
    place = client.get_experiment_by_name("seeds").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([place])}
    assert len(client.search_runs([place])) == 3
    assert runs.keys() == {"0", "1", "w"}
    for name in ("0", "1"):
        run, result = runs[name], files.read_json(directory / name / "result.json")
        assert run.info.status == "FINISHED"
        assert run.data.params["seed"] == name
        assert run.data.params["axes.seed"] == name
        assert run.data.params["train.steps"] == "4"
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [m.step for m in history] == sorted({m.step for m in history})
        assert {m.step: m.value for m in history} == curve(directory / name)
        assert run.data.metrics["final/error"] == result["test"]["error"]
        assert run.data.metrics["speed/ms_per_step"] > 0
    (page,) = client.list_artifacts(runs["w"].info.run_id)
    assert page.path == "report.html"


def test_mlflow_is_not_told_twice(tmp_path, monkeypatch):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    services = Tracking(["mlflow"], "e")
    for steps in ((2, 4), (4, 6)):  # the last checkpoint was of step 2
        tracked = services.run(tmp_path / "p", {"a": {"b": "x" * 7000}})
        for step in steps:
            tracked.log(step, {"train/a@b": step / 2})
        tracked.close("stopped")

    import mlflow

    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert run.info.status == "KILLED"
    history = client.get_metric_history(run.info.run_id, "train/a_b")
    assert [(m.step, m.value) for m in history] == [(2, 1.0), (4, 2.0), (6, 3.0)]
    assert run.data.params["a.b"] == "x" * 6000


def records(path):
    """The records in an offline file of Weights & Biases: LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    data, at, held = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        held += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(held)
            held = b""


def test_wandb_has_one_run_a_point_with_its_config_and_the_report(
    tmp_path, monkeypatch
):
    wandb = needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    directory = trained(tmp_path, "wandb")
    wandb.teardown()  # its service writes to the end
    runs, losses, finals, pages = {}, {}, {}, []
    for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                about = record.run
                config = {i.key: json.loads(i.value_json) for i in about.config.update}
                runs.setdefault(about.run_id, (about.display_name, config))
                assert (about.project, about.run_group) == ("attn", "seeds")
                key = about.run_id
            elif kind == "history":
                row = {
                    "/".join(i.nested_key) or i.key: json.loads(i.value_json)
                    for i in record.history.item
                }
                if "train/loss" in row:
                    losses.setdefault(key, {})[row["_step"]] = row["train/loss"]
                pages += [row["report/_type"]] if "report/_type" in row else []
            elif kind == "summary":
                for item in record.summary.update:
                    if (item.key or item.nested_key[0]) == "final/error":
                        finals[key] = json.loads(item.value_json)
    names = {name: key for key, (name, _) in runs.items()}
    assert names.keys() == {"0", "1", "w"}
    assert len(runs) == 3
    for name in ("0", "1"):
        _, config = runs[names[name]]
        result = files.read_json(directory / name / "result.json")
        assert config["seed"] == int(name)
        assert config["train"]["steps"] == 4
        assert losses[names[name]] == curve(directory / name)
        assert finals[names[name]] == result["test"]["error"]
    (page,) = pages
    assert page == "html-file"


@pytest.mark.parametrize("name", tracking.SERVICES)
def test_a_missing_package_is_one_clear_line(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(settings.Invalid, match=f"--log_to={name} needs {name}.*pip"):
        Tracking([name])


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(settings.Invalid, match="needs wandb"):
        Tracking(["wandb"])


def test_an_unknown_service_is_named():
    with pytest.raises(settings.Invalid, match="'wandbb'; did you mean 'wandb'"):
        Tracking(["wandbb"])


def test_what_a_service_says_at_the_beginning_is_one_line(tmp_path, monkeypatch):
    services = Tracking()

    def begin(about):
        raise RuntimeError(f"no API key for {about.name}")

    monkeypatch.setattr(tracking, "HEARD", set())
    monkeypatch.setattr(services, "_begin", {"wandb": begin})
    with pytest.raises(settings.Invalid, match="--log_to=wandb: no API key for p"):
        services.run(tmp_path / "p", {})


def test_a_later_run_outlives_its_service(tmp_path, monkeypatch, caplog):
    """The trials of a sweep, its points and its report have a Tracking each."""
    monkeypatch.setattr(tracking, "HEARD", set())
    trials, points, report = Tracking(), Tracking(), Tracking()

    def begin(about):
        if about.name != "first":
            raise OSError("connection refused")
        return types.SimpleNamespace()

    for services in (trials, points, report):
        monkeypatch.setattr(services, "_begin", {"wandb": begin})
    trials.run(tmp_path / "first", {})
    tracked = points.run(tmp_path / "second", {})
    tracked.log(2, {})
    tracked.close("done")
    (tmp_path / "report.html").write_text("<p>A report.</p>")
    report.attach(tmp_path / "sweep", tmp_path / "report.html")
    assert caplog.messages == [
        f"not logging {name} to wandb: connection refused"
        for name in ("second", "sweep")
    ]


def test_a_report_of_points_that_workers_trained_outlives_its_service(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(tracking, "HEARD", set())
    services = Tracking()

    def begin(about):
        raise OSError("connection refused")

    monkeypatch.setattr(services, "_begin", {"mlflow": begin})
    (tmp_path / "report.html").write_text("<p>A report.</p>")
    services.attach(tmp_path / "w", tmp_path / "report.html")
    assert caplog.messages == ["not logging w to mlflow: connection refused"]


def test_a_training_outlives_its_service(caplog):
    told = []

    class Broken:
        def log(self, step, values):
            told.append(step)
            raise OSError("connection refused")

    tracked = Tracked({"mlflow": Broken()})
    tracked.log(2, {})
    tracked.log(4, {})
    tracked.close("done")
    assert told == [2]
    assert caplog.messages == ["no longer logging to mlflow: connection refused"]
