"""Trained models: what the checkpoints of a run hold."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from attn import settings
from attn.data.source import NOTES
from attn.train import partition
from attn.train.state import State
from attn.train.store.checkpoint import Checkpoints
from attn.workdir import files


def state(directory: pathlib.Path, program: Any, which: str = "last") -> State:
    """The state in a checkpoint of a run, on every machine.

    Args:
        directory: of the run.
        program: `attn.train.program.Program` of its config.
        which: "last", "best" (of those kept, by the headline metric), or a step.

    Raises:
        settings.Invalid: no such checkpoint, one that is damaged or does not fit the
            program, or a data set of other words.
    """
    check_files(directory, program.dataset.files)
    place = directory / "checkpoints"
    if not place.is_dir():
        raise settings.Invalid(f"{directory} has no checkpoints")
    headline = program.task.metrics[0]
    checkpoints = Checkpoints(place, better=headline.better, read_only=True)
    try:
        found = None
        if jax.process_index() == 0:  # the one that has a manager
            # of this step alone: an earlier one would pass for it
            step = _step(checkpoints, which, directory)
            found = checkpoints.restore(program.abstract_state(), step)
    finally:
        checkpoints.close()
    return partition.broadcast(found[0] if found else program.zero_state())


def _step(checkpoints: Checkpoints, which: str, directory: pathlib.Path) -> int:
    """The step of the checkpoint that is asked for; Invalid where there is none."""
    steps = checkpoints.steps()
    if not steps:
        raise settings.Invalid(f"{directory} has no checkpoints")
    step = {"last": steps[-1], "best": checkpoints.best()}.get(which, which)
    if str(step) not in map(str, steps):
        raise settings.Invalid(
            f"{directory} has no checkpoint {which!r} (valid: last, best,"
            f" {', '.join(map(str, steps))})"
        )
    return int(step)


def check_files(directory: pathlib.Path, given: Mapping[str, bytes]) -> None:
    """Refuses data whose words are no longer those with which a run was trained.

    Args:
        directory: of the run.
        given: the files of the data set (`attn.data.source.Source.files`).

    Raises:
        settings.Invalid: one but `NOTES` differs from that of the run.
    """
    for name, content in given.items():
        kept = directory / name
        if name != NOTES and kept.is_file() and kept.read_bytes() != content:
            raise settings.Invalid(
                f"the data set has another {name} than {kept}, with which the model was"
                f" trained; where data have a setting {kept.stem!r},"
                f" --config.data.{kept.stem}={kept} takes that one"
            )


@functools.lru_cache(maxsize=4)  # the points of a sweep have one teacher
def model(build: Callable[..., Any], directory: str) -> tuple[nn.Module, Any]:
    """The model of a run and its variables, from the last checkpoint.

    Args:
        build: `attn.train.program.Program`.
        directory: of the run, with its config and checkpoints.

    Raises:
        settings.Invalid: it is not the directory of a run, or has no checkpoint.
    """
    place = files.path(directory)
    config = files.read_json(place / "config.json")
    if config is None:
        raise settings.Invalid(f"{directory!r} is not the directory of a run")
    program = build(config, jax.local_devices()[:1])
    return program.model, state(place, program).variables()
