"""Tasks, models and data of a user's own take part in everything."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from attn import report
from attn.train import loop
from attn.train.budget import match
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.store.checkpoint import Checkpoints
from attn.train.sweep import experiment_file, local
from attn.workdir import files
from tests.train import small

HERE = "tests.user_code"
COMMON = {
    "seed": 3,
    "optimizer": {"name": "adam"},
    "schedule": {"name": "constant", "peak": 0.01},
}
CONFIGS = {
    "copying": {
        "data": {
            "name": "sequences",
            "train": "train[:256]",
            "validation": "validation[:40]",
            "test": "test[:40]",
            "low": 2,
            "high": 6,
            "budget": "examples",
        },
        "model": {"name": f"{HERE}.copying:Copier"},
        "task": {"name": f"{HERE}.copying:Copying"},
    },
    "denoising": {
        "data": {
            "name": f"{HERE}.denoising:Ramps",
            "train": "train",
            "validation": "validation",
            "test": "test",
        },
        "model": {"name": f"{HERE}.denoising:Denoiser"},
        "task": {"name": f"{HERE}.denoising:Denoising"},
    },
}


def config(name, **train):
    usual = {
        "steps": 6,
        "batch_size": 16,
        "log_every": 2,
        "eval_every": 3,
        "save_every": 2,
    }
    return json.loads(json.dumps({**COMMON, **CONFIGS[name], "train": usual | train}))


def one(made):
    return Program(made, jax.devices()[:1])


class Stop(Interruption):
    """Asks to stop after a step."""

    def __init__(self, step):
        super().__init__()
        self._step = step

    def at(self, step):
        return step == self._step


def train(made, directory, stop=None):
    return loop.train(
        one(made),
        made,
        directory,
        {},
        progress=small.Listener(),
        interruption=Stop(stop),
    )


def parameters(made, directory):
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    state, _, _ = checkpoints.restore(one(made).abstract_state())
    checkpoints.close()
    return jax.tree.leaves(state.params)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_trains_and_resumes_bit_equal(name, tmp_path):
    made = config(name)
    whole = train(made, tmp_path / "whole")
    with pytest.raises(loop.Stopped):
        train(made, tmp_path / "broken", stop=3)
    broken = train(made, tmp_path / "broken")
    assert broken["test"] == whole["test"]
    pairs = (parameters(made, tmp_path / part) for part in ("whole", "broken"))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_array_equal(a, b)
    lines = [tmp_path / part / "metrics.jsonl" for part in ("whole", "broken")]
    assert lines[0].read_bytes() == lines[1].read_bytes()
    headline = one(made).task.metrics[0]
    assert whole["metrics"][0] == dataclasses.asdict(headline)
    assert set(whole["validation"]) == set(whole["test"])


@pytest.mark.parametrize("name", CONFIGS)
def test_it_evaluates_alike_on_one_device_and_on_eight(name):
    made = config(name)
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        program = Program(made, devices)
        state = small.start(program, 0)
        found.append(small.evaluate(program, state, "test"))
    one_device, eight = found
    assert one_device.values.keys() == eight.values.keys()
    for key, value in one_device.values.items():
        assert eight.values[key] == pytest.approx(value, rel=1e-5), key
    np.testing.assert_array_equal(one_device.index, eight.index)
    for key, mean in one_device.outcomes.items():
        assert len(mean.total) == 40
        np.testing.assert_allclose(mean.total, eight.outcomes[key].total, rtol=1e-4)
        np.testing.assert_array_equal(mean.weight, eight.outcomes[key].weight)


def test_copying_is_learnt_and_decoded():
    made = config("copying", steps=600, log_every=600, eval_every=600)
    made["data"]["train"] = "train[:2048]"
    made["schedule"] = {"name": "cosine", "peak": 0.01, "warmup": 0}
    program = one(made)
    state = small.start(program, 0)
    with program.dataset.train(16, seed=0) as batches:
        for _ in range(made["train"]["steps"]):
            state, _ = program.train_step(state, small.fed(program, next(batches)))
    values = small.evaluate(program, state, "test").values
    assert values["exact"] > 80
    assert values["token_error"] < 5


EXPERIMENT = '''"""A user's experiment."""

import json

CONFIG = json.loads({text!r})
BASELINE = {{"width": {base}}}


def get_config(arg=""):
    return CONFIG


def sweep(arg=""):
    for width in ({base}, {other}):
        for seed in range(2):
            axes = {{"width": width, "seed": seed}}
            yield axes, {{"model.width": width, "seed": seed}}


def match(arg=""):
    return {{"by": "macs", "budget": {budget}}}
'''


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_swept_matched_and_reported(name, tmp_path, capsys):
    made = config(name)
    base, other = {"copying": (32, 20), "denoising": (24, 16)}[name]
    section = {**made["model"], "width": base}
    budget = one({**made, "model": section}).costs["macs"]
    text = json.dumps(made)
    path = tmp_path / f"{name}.py"
    path.write_text(EXPERIMENT.format(text=text, base=base, other=other, budget=budget))
    experiment = experiment_file.load(path, "")
    directory, listener = tmp_path / "sweep", small.Listener()
    experiment, points = match.match(
        experiment, experiment.points, directory, progress=listener
    )
    local.run(
        experiment,
        points,
        directory,
        progress=listener,
        interruption=Interruption(),
        parallel="off",
    )
    results = [files.read_json(directory / p.name / "result.json") for p in points]
    assert len({result["macs"] for result in results}) == 1
    metric = one(made).task.metrics[0]
    assert f"test {metric.label}" in " ".join(listener.notes)
    report.show([directory])
    shown = capsys.readouterr().out
    page = report.write([directory], directory / "report.html").read_text()
    for text in (shown, page):
        assert metric.label in text
        assert metric.unit in text
    assert "highest" in page.lower()
    heads = {"copying": "Attention maps", "denoising": "Examples"}
    assert f"<h2>{heads[name]}</h2>" in page
    assert "is not shown" not in page
    assert "cannot be read" not in page
    saved = report.save(directory, tmp_path / "saved.json")
    assert metric.name in pathlib.Path(saved).read_text()
