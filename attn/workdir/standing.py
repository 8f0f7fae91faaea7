"""Standing of a sweep: what is done, who trains what, what is left, for any reader.

It is read from files alone, while others train or after; see `attn.workdir`. Which
worker is silent is told by the clock of the file system, which stamps what workers
write and what a reader writes: no clocks of machines are compared.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from attn import settings
from attn.workdir import files
from attn.workdir.leases import FOLDER, SPAN, Held, Leases

TRIALS = "trials"  # the folder of a sweep with what its rows try
TUNED = "tune.json"  # the file of a sweep with what came of it
DIVERGED = "diverged.json"
SAMPLE = 200  # results that are read for the mean time of a point


@dataclasses.dataclass(frozen=True)
class Training:
    """A point that a worker holds.

    Attributes:
        name: of the point.
        worker: machine and process.
        step: how far it is, and of how many; None before it is told.
        seconds_left: of its training; None if not known.
        silent: seconds since the last sign of life, if too many; None otherwise.
    """

    name: str
    worker: str
    step: tuple[int, int] | None
    seconds_left: float | None
    silent: float | None


@dataclasses.dataclass(frozen=True)
class Standing:
    """A sweep at one moment. Each of its points is in one of the five sequences.

    Attributes:
        title: of the experiment.
        done: points that have a result.
        failed: points that diverged or could not be trained, and why.
        training: points that a worker holds.
        begun: points that were begun and that nobody holds.
        waiting: points that were not begun.
        seconds_left: of all, with as many workers as train now; None if not known.
    """

    title: str
    done: Sequence[str]
    failed: Mapping[str, str]
    training: Sequence[Training]
    begun: Sequence[str]
    waiting: Sequence[str]
    seconds_left: float | None

    @property
    def points(self) -> int:
        """The number of points."""
        parts = self.done, self.failed, self.training, self.begun, self.waiting
        return sum(map(len, parts))


def read(directory: pathlib.Path) -> Standing:
    """The standing of the sweep in a work directory.

    Raises:
        Invalid: there is no sweep.
    """
    record = files.read_json(directory / "experiment.json")
    if not isinstance(record, dict) or "points" not in record:
        raise settings.Invalid(f"workdir {directory} holds no sweep (experiment.json)")
    held = Leases(directory).seen()
    now = _now(directory / FOLDER) if held else 0.0
    done, failed, training, begun, waiting = [], {}, [], [], []
    for name in (point["name"] for point in record["points"]):
        place, lease = directory / name, held.get(name)
        if (place / "result.json").exists():
            done.append(name)
        elif (reason := files.read_json(place / DIVERGED)) is not None:
            failed[name] = reason
        elif lease is not None and lease.reason:
            failed[name] = lease.reason
        elif lease is not None and not (lease.free or lease.ended):
            path = directory / FOLDER / f"{name}.{lease.generation}"
            training.append(_training(name, lease, path, now))
        else:
            (begun if place.exists() else waiting).append(name)
    left = _seconds_left(directory, done, training, len(begun) + len(waiting))
    return Standing(record["title"], done, failed, training, begun, waiting, left)


def select(points: Mapping[str, Mapping[str, Any]], only: Sequence[str]) -> list[str]:
    """The names of the points that `only` chooses, in their order; all if it is empty.

    Args:
        points: their axes, by name.
        only: names, values of axes, or "axis=value".

    Raises:
        Invalid: an entry that chooses nothing; names those that would.
    """
    chosen = set()
    for text in only:
        found = {name for name, axes in points.items() if text in _called(name, axes)}
        if not found:
            values = {str(value) for axes in points.values() for value in axes.values()}
            valid = dict.fromkeys([*sorted(values), *points])
            raise settings.unknown("point", text, [*valid][:40])
        chosen |= found
    return [name for name in points if not only or name in chosen]


def _called(name: str, axes: Mapping[str, Any]) -> set[str]:
    named = {f"{axis}={value}" for axis, value in axes.items()}
    return named | {name} | {str(value) for value in axes.values()}


def _training(name: str, lease: Held, path: pathlib.Path, now: float) -> Training:
    facts = lease.content
    try:
        silent = now - files.written(path)
    except OSError:  # given up meanwhile
        silent = 0.0
    step = (facts["step"], facts["steps"]) if "step" in facts else None
    return Training(
        name,
        f"{facts.get('host', '?')}, process {facts.get('pid', '?')}",
        step,
        facts.get("seconds_left"),
        silent if silent > facts.get("span", SPAN) else None,
    )


def _now(folder: pathlib.Path) -> float:
    """The time by the clock of a file system; this machine's where none can write."""
    path = folder / f".now.{os.getpid()}"
    try:
        files.write_bytes(path, b"")
        now = files.written(path)
        files.remove(path)
    except OSError:
        return time.time()
    return now


def _seconds_left(
    directory: pathlib.Path,
    done: Sequence[str],
    training: Sequence[Training],
    rest: int,
) -> float | None:
    """What is left, shared among the workers that train now, from the mean of a point.

    Unlike points are taken as alike, so that it is a rough one until most are done.
    """
    if not (rest or training):
        return 0.0
    workers: dict[str, float] = {}  # what each has left of what it trains now
    for at in training:
        if at.silent is None:
            left = at.seconds_left or 0.0  # of all points that it trains together
            workers[at.worker] = max(workers.get(at.worker, 0.0), left)
    unknown = rest + sum(at.seconds_left is None for at in training)
    taken = _seconds(directory, done) if unknown else []
    if not workers or (unknown and not taken):
        return None
    mean = sum(taken) / len(taken) if taken else 0.0
    work = sum(workers.values()) + unknown * mean
    return max(work / len(workers), *workers.values())


def _seconds(directory: pathlib.Path, done: Sequence[str]) -> list[float]:
    """How long some of the points that are done took, spread over all."""
    some = done[:: max(1, len(done) // SAMPLE)]
    results: list[dict[str, Any]] = [
        files.read_json(directory / name / "result.json") or {} for name in some
    ]
    return [r["seconds"] for r in results if isinstance(r.get("seconds"), int | float)]
