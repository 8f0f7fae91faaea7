"""The command run, but for the training itself."""

import dataclasses
import errno
import os

import jax
import numpy as np

from attn import ops
from attn.commands import run
from attn.ops.dot_product import measure
from attn.train.progress import Silence
from attn.train.sweep import experiment_file, local
from attn.workdir import files

FILE = """from tests.train import small

def get_config(arg):
    return small.config()
"""


def test_a_disk_that_is_full_before_a_training_is_one_line(
    tmp_path, monkeypatch, capsys
):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (tmp_path / "one.py").write_text(FILE)
    experiment = experiment_file.load(tmp_path / "one.py", "")
    directory = tmp_path / "w"
    monkeypatch.setattr(run, "_listener", Silence)
    monkeypatch.setattr(files, "write_bytes", full)
    status = run.train(experiment, experiment.points, directory, parallel="off")
    assert status == 1
    said = capsys.readouterr().err
    assert said.startswith(f"failed: the disk of {directory} is full; free some")
    assert len(said.splitlines()) == 1


def lengths():
    """Of the blocks that attention has here."""
    shape = jax.ShapeDtypeStruct((2, 2048, 2, 8), np.float32)
    plan = ops.explain(shape, shape, shape).plan
    return plan.q, plan.k


def test_blocks_are_chosen_while_the_points_are_trained(tmp_path, monkeypatch):
    seen = []

    def train(experiment, points, directory, **how):
        local.describe(experiment, directory)
        seen.append(lengths())
        return {}

    (tmp_path / "one.py").write_text(FILE)
    experiment = experiment_file.load(tmp_path / "one.py", "")
    monkeypatch.setattr(run, "_listener", Silence)
    monkeypatch.setattr(run.tuning, "run", train)
    monkeypatch.setattr(measure, "fastest", lambda case: measure.Limits(16, 32))
    for how, directory in (("measured", "a"), ("table", "a"), ("table", "b")):
        status = run.train(
            dataclasses.replace(experiment, blocks=how),
            experiment.points,
            tmp_path / directory,
            parallel="off",
            report=False,
        )
        assert status == 0
    assert seen == [(16, 32), (16, 32), (1024, 1024)]


def test_a_plan_rehearses_with_the_blocks_that_are_chosen(tmp_path, monkeypatch):
    seen = []

    def rehearse(points, directory, **how):
        seen.append(lengths())
        return [], 0.0

    (tmp_path / "one.py").write_text(FILE)
    experiment = experiment_file.load(tmp_path / "one.py", "")
    monkeypatch.setattr(run, "_listener", Silence)
    monkeypatch.setattr(run.estimate, "rehearse", rehearse)
    monkeypatch.setattr(measure, "fastest", lambda case: measure.Limits(16, 32))
    for how in "measured", "table":
        run.plan(
            dataclasses.replace(experiment, blocks=how),
            experiment.points,
            tmp_path / "w",
            parallel="off",
            cache="",
            started=0.0,
        )
    assert seen == [(16, 32), (1024, 1024)]
    assert not (tmp_path / "w").exists()
