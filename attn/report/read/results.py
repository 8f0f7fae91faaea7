"""Reads what training left in work directories: a sweep, its points, their curves.

A sweep directory holds `experiment.json` and one folder a point, with
`config.json`, `environment.json`, `metrics.jsonl`, `attention.npz` and, once the
point is done, `result.json`. Nothing else is read. A point that was killed at any
moment is read as far as it got, and says what it lacks.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from attn.workdir import diff

SEED = "seed"
SPLITS = ("train", "test")
# What is a whole number in a result.
WHOLE = {"steps", "parameters", "macs", "examples", "together"}
# Names under which an environment may tell the version of the code.
CODE_KEYS = ("commit", "git_commit", "code_version", "code", "revision")


@dataclasses.dataclass(frozen=True)
class Curve:
    """What was logged on one split: steps, losses and errors (percent), each [T]."""

    steps: np.ndarray
    loss: np.ndarray
    error: np.ndarray


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a finished point; a cost that was not recorded is None.

    Attributes:
        error: final test error, percent.
        loss: final test loss.
        examples: number of test examples.
        steps: number of training steps.
        parameters: number of trained numbers.
        macs: multiply-adds of one example, forward.
        ms_per_step: median duration of a step, milliseconds.
        seconds: duration of the whole point.
        together: number of points that were trained in one program with it, itself
            included; times are then its share of theirs.
    """

    error: float
    loss: float | None = None
    examples: int | None = None
    steps: int | None = None
    parameters: int | None = None
    macs: int | None = None
    ms_per_step: float | None = None
    seconds: float | None = None
    together: int | None = None


@dataclasses.dataclass(frozen=True)
class Point:
    """One configuration with one seed.

    Attributes:
        name: name of its folder.
        axes: its place in the sweep, such as {"attention": "cbam", "seed": 0}.
        directory: its folder, which may not exist.
        config, environment: as recorded; empty when they were not.
        curves: by split; a split without a line is absent.
        result: None unless the point is done.
        problem: why it is not done, None when it is.
    """

    name: str
    axes: Mapping[str, Any]
    directory: pathlib.Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    curves: Mapping[str, Curve]
    result: Result | None
    problem: str | None

    @property
    def seed(self) -> Any:
        """The value of the seed axis, None if the sweep has none."""
        return self.axes.get(SEED)

    @property
    def code(self) -> str | None:
        """The version of the code that ran it, if the environment tells."""
        for key in CODE_KEYS:
            if self.environment.get(key):
                return str(self.environment[key])
        return None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """An experiment and all of its points, done or not, in their order.

    Attributes:
        directory: where it is.
        name, title, description: what it is called and says.
        axes: the names of its axes, the seed's among them.
        baseline: the axes of the point that others are compared with.
        points: done or not, in their order.
        match: what the widths were scaled to, {"by", "budget"}; None if they were not.
        published: the paper's table, {"source", "columns", "note", "rows"}, or None.
    """

    directory: pathlib.Path
    name: str
    title: str
    description: str
    axes: tuple[str, ...]
    baseline: Mapping[str, Any]
    points: tuple[Point, ...]
    match: Mapping[str, Any] | None = None
    published: Mapping[str, Any] | None = None

    @property
    def done(self) -> list[Point]:
        """The points that have a result."""
        return [point for point in self.points if point.result is not None]

    @property
    def unfinished(self) -> dict[str, list[str]]:
        """The names of the points that are not done, by what is the matter."""
        found: dict[str, list[str]] = {}
        for point in self.points:
            if point.problem is not None:
                found.setdefault(point.problem, []).append(point.name)
        return found


def read(directory: str | pathlib.Path) -> Sweep:
    """Reads a sweep directory.

    Raises:
        ValueError: the directory is no sweep; the message says what is missing.
    """
    directory = pathlib.Path(directory)
    experiment = _experiment(directory)
    points = tuple(
        _point(directory / str(entry["name"]), entry) for entry in experiment["points"]
    )
    axes = experiment.get("axes") or sorted({axis for p in points for axis in p.axes})
    return Sweep(
        directory=directory,
        name=str(experiment.get("name") or directory.name),
        title=str(experiment.get("title") or experiment.get("name") or directory.name),
        description=str(experiment.get("description") or ""),
        axes=tuple(axes),
        baseline=experiment.get("baseline") or {},
        points=points,
        match=_match(experiment.get("match")),
        published=published(experiment.get("published")),
    )


def published(table: Any) -> Mapping[str, Any] | None:
    """The paper's table of an experiment's record; None if there is none."""
    if not isinstance(table, dict) or not isinstance(table.get("rows"), list):
        return None
    usable = lambda row: (
        isinstance(row, dict)
        and isinstance(row.get("axes"), dict)
        and isinstance(row.get("values"), dict)
    )
    return {**table, "rows": [row for row in table["rows"] if usable(row)]}


def _match(record: Any) -> Mapping[str, Any] | None:
    return record if isinstance(record, dict) and record.get("by") else None


def _experiment(directory: pathlib.Path) -> dict[str, Any]:
    expected = "expected a directory with experiment.json and one folder per point"
    path = directory / "experiment.json"
    if not path.is_file():
        lacks = "has no experiment.json" if directory.is_dir() else "does not exist"
        raise ValueError(f"{directory} is no sweep, it {lacks}; {expected}")
    experiment = _json(path)
    points = experiment.get("points")
    usable = isinstance(points, list) and all(
        isinstance(entry, dict)
        and "name" in entry
        and isinstance(entry.get("axes", {}), dict)
        for entry in points
    )
    if not usable:
        raise ValueError(
            f"{directory} is no sweep, its experiment.json lists no points with a"
            f" name and axes; {expected}"
        )
    return experiment


def _point(directory: pathlib.Path, entry: Mapping[str, Any]) -> Point:
    config = _json(directory / "config.json")
    curves = _curves(directory / "metrics.jsonl")
    result, problem = _result(directory / "result.json")
    if result is None and problem is None:
        problem = _progress(directory, config, curves)
    return Point(
        name=str(entry["name"]),
        axes=entry.get("axes", {}),
        directory=directory,
        config=config,
        environment=_json(directory / "environment.json"),
        curves=curves,
        result=result,
        problem=problem,
    )


def _json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file; empty if there is none or it was cut off."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    """`value` if it is a number, else NaN."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real else math.nan


def _curves(path: pathlib.Path) -> dict[str, Curve]:
    """The curves by split; of two lines for one step the later one counts."""
    lines: dict[str, dict[int, tuple[float, float]]] = {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            step, split = int(entry["step"]), entry["split"]
        except (ValueError, KeyError, TypeError):
            continue  # the line that was being written when the run was killed
        values = _number(entry.get("loss")), _number(entry.get("error"))
        lines.setdefault(split, {})[step] = values
    return {
        split: Curve(
            np.array(sorted(entries)),
            *np.array([entries[step] for step in sorted(entries)]).T,
        )
        for split, entries in lines.items()
        if split in SPLITS
    }


def _result(path: pathlib.Path) -> tuple[Result | None, str | None]:
    """The result, or None with the reason if the file is there and of no use."""
    if not path.is_file():
        return None, None
    record = _json(path)
    test = record.get("test")
    if not isinstance(test, dict):
        return None, "its result.json cannot be read"
    error = _number(test.get("error"))
    if not math.isfinite(error):
        return None, "failed: its test error is not a number"
    costs = {
        name: _number(record.get(name))
        for name in (*WHOLE, "ms_per_step", "seconds")
        if name != "examples"
    }
    costs |= {name: _number(test.get(name)) for name in ("loss", "examples")}
    known = {name: cost for name, cost in costs.items() if math.isfinite(cost)}
    for name in WHOLE & known.keys():
        known[name] = int(known[name])
    return Result(error=error, **known), None


def _progress(
    directory: pathlib.Path, config: Mapping[str, Any], curves: Mapping[str, Curve]
) -> str:
    """How far an unfinished point got."""
    if not directory.is_dir():
        return "not started"
    curve = curves.get("train") or curves.get("test")
    if curve is None:
        return "started, but no step is recorded"
    broken = curve.steps[~np.isfinite(curve.loss)]
    if len(broken):
        return f"failed: its loss is not a number from step {broken[0]}"
    flat = diff.flat(config)
    steps = flat.get("train.steps", flat.get("steps"))
    of = f" of {steps}" if steps else ""
    return f"recorded up to step {curve.steps[-1]}{of}"
