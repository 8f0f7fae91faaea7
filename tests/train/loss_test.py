"""Hosts that train together and lose one, or one of which ends before the others."""

import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from attn.train.program import Program
from attn.train.store.checkpoint import Checkpoints
from attn.workdir import files
from tests.train import hosts

FILE = """from tests.train import small

def get_config(arg):
    return small.config(
        train__steps=90, train__batch_size=6, train__save_every=3, train__log_every=3,
        train__eval_every=90, model={"name": "tests.train.hosts:Plain"},
        data={"name": "mnist_5k", "test": "test[:12]"},
    )
"""
LEFT = 30  # seconds within which the others must be gone


def arrays(place):
    program = Program(files.read_json(place / "point/config.json"), jax.devices()[:1])
    checkpoints = Checkpoints(place / "point/checkpoints", read_only=True)
    state, _, damaged = checkpoints.restore(program.abstract_state())
    checkpoints.close()
    assert not damaged
    return jax.tree.map(np.asarray, state)


def test_without_the_first_host_the_other_leaves_and_both_resume_bit_equal(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(FILE)
    begin = lambda name: hosts.start(config, tmp_path / name, hosts=2, devices=1)
    saved = lambda: tmp_path.glob("lost/point/checkpoints/*")
    processes = begin("lost")
    hosts.wait_until(processes, lambda: any(p.name.isdigit() for p in saved()))
    processes[0].kill()
    killed = time.monotonic()
    (told,) = hosts.end(processes[1:], 75)
    assert time.monotonic() - killed < LEFT
    assert "another machine was lost; run the same command" in told
    processes[0].communicate()
    told = hosts.end(begin("lost"), 0)
    assert "resumes at step" in told[0]
    hosts.end(begin("unbroken"), 0)
    found, want = arrays(tmp_path / "lost"), arrays(tmp_path / "unbroken")
    jax.tree.map(np.testing.assert_array_equal, found, want)


def test_hosts_that_wait_for_one_that_never_comes_leave(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(FILE)
    late = ("--join_timeout=2",)
    alone = []
    for index in range(2):  # each at an address of its own
        alone += hosts.start(config, tmp_path, *late, hosts=2, devices=1, only=[index])
    began = time.monotonic()
    hosts.end(alone, 75)
    assert time.monotonic() - began < LEFT


def test_a_point_that_was_taken_from_the_leader_ends_all_to_start_again(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(FILE)
    work = tmp_path / "work"
    processes = hosts.start(config, work, "--stale=1", hosts=2, devices=1)
    hosts.wait_until(processes, (work / "point/metrics.jsonl").exists)
    (work / ".leases/point.2").write_bytes(b"")  # as another worker does
    told = hosts.end(processes, 75)
    assert "stopped: point was taken over by others; run the same" in told[0]
    assert "another machine has ended: Lost: point was taken over" in told[1]


# Waits for the others for ever, but for the first host if it has something to raise.
ENDS = """
import sys, jax
from jax.experimental import multihost_utils
from attn import settings
from attn.train import ending, loop, machines
where, index, what = sys.argv[1:]
machines.join(f"{where},{index}")
with ending.together():
    if index == "0" and what:
        raise eval(what)
    while True:
        multihost_utils.process_allgather(1.0)
        print("together", flush=True)
"""


def start(count, what):
    address = hosts.address()
    return [
        subprocess.Popen(
            [sys.executable, "-c", ENDS, f"{address},{count}", str(index), what],
            cwd=hosts.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def test_without_one_of_three_hosts_the_others_leave():
    processes = start(3, "")
    lost = processes.pop(1)
    while "together" not in lost.stdout.readline():
        assert lost.poll() is None
    lost.kill()
    killed = time.monotonic()
    told = hosts.end(processes, 75)
    assert time.monotonic() - killed < LEFT
    assert all("another machine was lost; run the same" in text for text in told)
    lost.communicate()


@pytest.mark.parametrize(
    ("what", "status"),
    [("settings.Invalid('no')", 2), ("loop.Failed('full')", 1)],
)
def test_what_ends_one_host_ends_the_other_with_its_status(what, status):
    told = hosts.end(start(2, what), status)
    assert "another machine has ended: " in told[1]
