"""Machines that train together: what may be passed over, and what may not."""

import os
import subprocess
import sys

import jax
import pytest

from attn import settings
from attn.train import machines

WAIT = ("initialization_timeout", 20)


@pytest.fixture
def initialize(monkeypatch):
    """Replaces JAX's own by one that notes its arguments and raises what it is told."""
    told = {"calls": [], "error": None}

    def stand_in(*arguments, heartbeat_timeout_seconds, **options):
        assert heartbeat_timeout_seconds < 30
        told["calls"].append((*arguments, *options.items()))
        if told["error"]:
            raise told["error"]

    for name in [*os.environ]:
        if name.startswith(("SLURM_", "OMPI_", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    for name in machines.COUNTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", stand_in)
    return told


def test_no_cluster_is_passed_over_in_the_words_of_jax():
    # in a process that has not used JAX yet
    code = (
        "import jax; jax.distributed.initialize(cluster_detection_method='deactivate')"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True)
    assert f"ValueError: {machines.ALONE}" in run.stderr


def test_a_machine_alone_goes_on(initialize):
    initialize["error"] = ValueError(f"{machines.ALONE}.")
    machines.join("auto")
    assert initialize["calls"] == [(("local_device_ids", None), WAIT)]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DEADLINE_EXCEEDED: the coordinator does not answer"),
        ValueError("Number of processes must be defined."),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_an_error(initialize, error):
    initialize["error"] = error
    with pytest.raises(type(error), match=str(error)) as caught:
        machines.join("auto")
    assert not isinstance(caught.value, settings.Invalid)


def test_joins_what_is_named(initialize):
    machines.join("off")
    machines.join("10.0.0.1:1234,4,3", 7)
    joined = ("10.0.0.1:1234", 4, 3, ("initialization_timeout", 7))
    assert initialize["calls"] == [joined]


@pytest.mark.parametrize("where", ["here", "a:1,2", "a:1,2,x", "a:1,2,2", "a:1,0,0"])
def test_anything_else_is_refused(initialize, where):
    with pytest.raises(settings.Invalid, match="--distributed"):
        machines.join(where)
    assert initialize["calls"] == []


@pytest.mark.parametrize("name", machines.COUNTS)
def test_processes_that_do_not_know_each_other_are_refused(
    name, initialize, monkeypatch
):
    initialize["error"] = ValueError(f"{machines.ALONE}.")
    monkeypatch.setenv(name, "1")
    machines.join("auto")
    monkeypatch.setenv(name, "4")
    with pytest.raises(settings.Invalid, match=f"4 processes .*{name}.*=off"):
        machines.join("auto")
    machines.join("off")


# A step of a SLURM job, as far as JAX reads it.
STEP = {
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


def test_a_step_of_one_process_joins_nobody(initialize, monkeypatch):
    for key, value in (STEP | {"SLURM_NTASKS": "1"}).items():
        monkeypatch.setenv(key, value)
    machines.join("auto")
    assert initialize["calls"] == []


@pytest.mark.parametrize(
    ("key", "tasks", "ids"),
    [
        ("SLURM_STEP_TASKS_PER_NODE", "1", []),
        ("SLURM_STEP_TASKS_PER_NODE", "1(x12)", []),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x12)", None),
        ("SLURM_STEP_TASKS_PER_NODE", "1(x2),2", None),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "1", []),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "4", None),
    ],
)
def test_a_process_alone_on_its_machine_has_all_devices(
    key, tasks, ids, initialize, monkeypatch
):
    if key.startswith("SLURM"):
        for name, value in STEP.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv(key, tasks)
    machines.join("auto")
    assert initialize["calls"] == [(("local_device_ids", ids), WAIT)]


# Says how many processes it found, which devices of CUDA it may use, and where it met
# the others: two services may share a port without an error, and mix their processes.
JOINS = """
import jax
from jax._src import distributed
from attn.train import machines
machines.join("auto")
print(jax.process_count(), jax.config.values["jax_cuda_visible_devices"])
print(distributed.global_state.coordinator_address)
jax.distributed.shutdown()
"""


def test_two_steps_on_one_machine_are_two_clusters_of_all_devices():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOINS],
            env=os.environ
            | STEP
            | {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": str(step)}
            | {"SLURM_PROCID": str(index), "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
            | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for step in range(2)
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=1000) for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = [out.splitlines() for out, _ in said]
    assert [lines[0] for lines in found] == ["2 all"] * 4, said
    first, same, second, too = (lines[1] for lines in found)
    assert first == same != second == too
    notes = ["2 processes train together" in error for _, error in said]
    assert notes == [True, False, True, False]
