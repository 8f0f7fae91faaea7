"""Evaluates a checkpoint of a point: on its own test split, or on another."""

import copy
import pathlib
from collections.abc import Sequence
from typing import Any

from attn import settings
from attn.train import partition
from attn.train.program import Program
from attn.train.store.checkpoint import Checkpoints
from attn.train.sweep import override
from attn.workdir import files


def points(directory: pathlib.Path) -> list[pathlib.Path]:
    """The directories of the points begun in a sweep's directory, or of one point.

    Raises:
        Invalid: it is neither.
    """
    if (directory / "config.json").exists():
        return [directory]
    experiment = files.read_json(directory / "experiment.json")
    if experiment is None:
        raise settings.Invalid(
            f"{directory} is no work directory of a sweep or a point"
        )
    found = [directory / point["name"] for point in experiment["points"]]
    return [path for path in found if (path / "config.json").exists()]


def evaluate(
    directory: pathlib.Path,
    which: str = "last",
    overrides: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Restores a checkpoint of a point and evaluates it; writes nothing.

    Args:
        directory: of the point.
        which: "last", "best" (lowest test error of those kept), or a step.
        overrides: fields of its config to set otherwise, such as the test split.

    Returns:
        "step", and what `Program.evaluate` returns.

    Raises:
        Invalid: no such checkpoint, or one that does not fit the config.
    """
    config = copy.deepcopy(files.read_json(directory / "config.json"))
    for path, text in overrides:
        override.override(config, path, text)
    program = Program(config)
    place = directory / "checkpoints"
    if not place.is_dir():
        raise settings.Invalid(f"{directory} has no checkpoints")
    checkpoints = Checkpoints(place, read_only=True)
    try:
        steps = checkpoints.steps()
        chosen = {"last": None, "best": checkpoints.best()}.get(which, which)
        if which != "last" and str(chosen) not in map(str, steps):
            raise settings.Invalid(
                f"{directory} has no checkpoint {which!r} (valid: last, best,"
                f" {', '.join(map(str, steps))})"
            )
        step = None if chosen is None else int(chosen)
        found = checkpoints.restore(program.like(), step)
    finally:
        checkpoints.close()
    if found is None:
        raise settings.Invalid(f"{directory} has no checkpoints")
    state = program.partition.place(partition.agree(found[0]))
    return {"step": int(state.step), **program.evaluate(state)}
