"""Real processes, really killed: what they leave must resume to the same result."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from attn.train.program import Program
from attn.train.store.checkpoint import Checkpoints
from attn.workdir import files

ROOT = pathlib.Path(__file__).parents[2]
STOPPED = 75
STEPS = 120
FILE = f"""from tests.train import small

def get_config(arg):
    return small.config(
        train__steps={STEPS}, train__save_every=5, train__eval_every=30,
        train__log_every=5, model__width=16,
        data={{"name": "mnist_5k", "test": "test[:12]"}},
    )
"""


def start(directory, text=FILE):
    """Launches the training of an experiment on one device."""
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    path = directory.parent / "kill.py"
    path.write_text(text)
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "launch.py"),
            f"--config={path}",
            f"--workdir={directory}",
            "--distributed=off",
            "--noreport",
            f"--compilation_cache={os.environ['JAX_COMPILATION_CACHE_DIR']}",
        ],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(directory, text=FILE):
    process = start(directory, text)
    output, _ = process.communicate(timeout=1000)
    assert process.returncode == 0, output
    return output


def wait_until(process, condition, seconds=1000):
    """Waits for a sign of progress on disk, so that the kill hits a training."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return
        time.sleep(0.002)
    raise AssertionError(f"ended too early: {process.communicate()[0]}")


def arrays(directory):
    """All arrays of the last checkpoint, and what else must be equal."""
    program = Program(files.read_json(directory / "config.json"))
    checkpoints = Checkpoints(directory / "checkpoints", read_only=True)
    state, _, damaged = checkpoints.restore(program.abstract_state())
    checkpoints.close()
    assert not damaged
    result = json.loads((directory / "result.json").read_text())
    return state, (directory / "metrics.jsonl").read_bytes(), result["test"]


def assert_same(found, want):
    assert int(found[0].step) == STEPS
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(want[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[1:] == want[1:]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("unbroken") / "run"
    finish(directory)
    return arrays(directory / "point")


def lines(directory):
    path = directory / "point" / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_asked_to_stop_and_killed_at_random_moments_it_ends_the_same(
    tmp_path, unbroken
):
    directory = tmp_path / "run"
    chance = random.Random(0)
    writing = lambda: list(directory.glob("point/checkpoints/*tmp*"))
    for number, code in enumerate((STOPPED, -signal.SIGKILL, -signal.SIGKILL)):
        process, before = start(directory), lines(directory)
        # once in the middle of writing a checkpoint
        wait_until(
            process,
            lambda before=before, number=number: (
                lines(directory) > before and (number != 1 or writing())
            ),
        )
        time.sleep(chance.uniform(0, 0.1) if number == 2 else 0)
        process.send_signal(signal.SIGKILL if code < 0 else signal.SIGUSR1)
        output, _ = process.communicate(timeout=1000)
        assert process.returncode == code, output
        assert number or "run the same command to go on" in output
        assert not (directory / "point" / "result.json").exists()
    assert "resumes at step" in finish(directory)
    assert_same(arrays(directory / "point"), unbroken)


def test_a_second_launch_waits_and_takes_over_from_one_that_is_killed(
    tmp_path, unbroken
):
    directory = tmp_path / "run"
    one = start(directory)
    wait_until(one, lambda: lines(directory) >= 3)
    one.send_signal(signal.SIGSTOP)
    other = start(directory)
    told = other.stdout.readline()
    assert "waiting for others to train point" in told
    one.send_signal(signal.SIGKILL)
    one.communicate(timeout=1000)
    output, _ = other.communicate(timeout=120)
    assert other.returncode == 0, output
    assert "resumes at step" in output
    assert_same(arrays(directory / "point"), unbroken)


SWEEP = """from tests.train import small

def get_config(arg):
    return small.config(
        train__steps=30, train__save_every=3, train__log_every=3, train__eval_every=15,
        model={"name": "tests.train.small:Net", "width": 4},
        data={"name": "mnist_5k", "test": "test[:12]"},
    )

def sweep(arg):
    for seed in range(6):
        yield {"seed": seed}, {"seed": seed}
"""


def ended(directory):
    """The names of the points that are done, and all that must not differ in them."""
    return {
        path.parent.name: (
            (path.parent / "metrics.jsonl").read_bytes(),
            json.loads(path.read_text())["test"],
        )
        for path in directory.glob("*/result.json")
    }


def test_workers_share_a_sweep_and_lose_nothing_when_killed(tmp_path):
    """A small storm: two workers at a time, three of them killed at random moments.

    The large one is benchmarks/storm.py.
    """
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    finish(alone, SWEEP)
    chance = random.Random(1)
    outputs = []
    workers = [start(shared, SWEEP) for _ in range(2)]
    for _ in range(3):
        began = len(list(shared.glob("*/environment.json")))
        until = time.monotonic() + 15
        while len(list(shared.glob("*/environment.json"))) <= began:
            if time.monotonic() > until or all(w.poll() is not None for w in workers):
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        victim = workers.pop(chance.randrange(2))
        victim.send_signal(signal.SIGKILL)
        outputs.append(victim.communicate(timeout=1000)[0])
        workers.append(start(shared, SWEEP))
    for worker in workers:
        outputs.append(worker.communicate(timeout=1000)[0])
        assert worker.returncode == 0, outputs[-1]
    assert len(ended(alone)) == 6
    assert ended(shared) == ended(alone)
    said = "".join(outputs)
    for name in ended(alone):  # the line is lost where a kill comes just before it
        assert said.count(f"] {name}: test error") <= 1, said
    assert not list((shared / ".leases").iterdir())
