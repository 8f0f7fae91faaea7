"""Machines that train together: what may be passed over, and what may not."""

import subprocess
import sys

import jax
import pytest

from attn import settings
from attn.train import machines


@pytest.fixture
def initialize(monkeypatch):
    """Replaces JAX's own by one that notes its arguments and raises what it is told."""
    told = {"calls": [], "error": None}

    def stand_in(*arguments):
        told["calls"].append(arguments)
        if told["error"]:
            raise told["error"]

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
    assert initialize["calls"] == [()]


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
    machines.join("10.0.0.1:1234,4,3")
    assert initialize["calls"] == [("10.0.0.1:1234", 4, 3)]


@pytest.mark.parametrize("where", ["here", "a:1,2", "a:1,2,x", "a:1,2,2", "a:1,0,0"])
def test_anything_else_is_refused(initialize, where):
    with pytest.raises(settings.Invalid, match="--distributed"):
        machines.join(where)
    assert initialize["calls"] == []
