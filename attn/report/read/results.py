"""Work directories as training leaves them: a sweep, its points, their curves.

A sweep directory holds `experiment.json` and one folder a point, with
`config.json`, `environment.json`, `metrics.jsonl`, artefacts such as `attention.npz`
and, once the point is done, `result.json`. A point that was killed at any moment is
read as far as it got, with what it lacks.
"""

import collections
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn import settings
from attn.report.read import curves as logs
from attn.report.read import environments, metrics, outcomes, tuning
from attn.report.read.curves import LOSS, SPLITS, TEST, VALIDATION, Curve
from attn.report.read.metrics import CORPUS, ERROR, UNKNOWN, Metric
from attn.report.read.outcomes import Outcomes
from attn.report.read.tuning import Tuning
from attn.workdir import diff, files

SEED = "seed"
# What is a whole number in a result, and what is not.
WHOLE = ("steps", "parameters", "macs", "together")
TIMES = ("ms_per_step", "seconds")
TESTED = (LOSS, "examples")


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a finished point; a cost that was not recorded is None.

    Attributes:
        metrics: what was measured on the splits; the first one is the headline.
        values: final values on the test split by metric, the headline among them.
        validation: the same on the validation split, empty without one.
        measures: what was measured of its attention, by `attn.explain`.
        measured: the values of these measures.
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

    metrics: tuple[Metric, ...]
    values: Mapping[str, float]
    validation: Mapping[str, float] = dataclasses.field(default_factory=dict)
    measures: tuple[Metric, ...] = ()
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)
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
        config: as recorded; empty when it was not.
        starts: with what and where it was started, once each time.
        curves: by split and quantity; what has no line is absent.
        result: None unless the point is done.
        problem: why it is not done, None when it is.
    """

    name: str
    axes: Mapping[str, Any]
    directory: pathlib.Path
    config: Mapping[str, Any]
    starts: tuple[Mapping[str, Any], ...]
    curves: Mapping[str, Mapping[str, Curve]]
    result: Result | None
    problem: str | None

    @property
    def seed(self) -> Any:
        """The value of the seed axis, None if the sweep has none."""
        return self.axes.get(SEED)

    @property
    def place(self) -> dict[str, Any]:
        """The values of the axes other than the seed."""
        return {axis: value for axis, value in self.axes.items() if axis != SEED}

    @property
    def codes(self) -> tuple[str, ...]:
        """The versions of the code that ran it, in order, as far as starts tell."""
        return environments.codes(self.starts)

    def curve(self, split: str, name: str) -> Curve | None:
        """A quantity on a split over the steps, None if it was not logged."""
        return self.curves.get(split, {}).get(name)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """An experiment and all of its points, done or not, in their order.

    Attributes:
        directory: where it is.
        name, title, description: as the experiment gives them.
        axes: the names of its axes, the seed's among them.
        baseline: the axes of the point that others are compared with.
        points: done or not, in their order.
        match: what the widths were scaled to, {"by", "budget"}; None if they were not.
        published: the paper's table, {"source", "columns", "note", "rows"}, or None.
        rope: the largest difference of the headline that does not matter, or None.
        outcomes: of the test examples, by metric and by the key of a row's place,
            where they are recorded.
        tuning: what every row tried on the validation split; None if nothing.
        missing: names of points of which a file of results says only that they were
            not finished.
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
    rope: float | None = None
    outcomes: Mapping[str, Mapping[str, Outcomes]] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    tuning: Tuning | None = None
    missing: tuple[str, ...] = ()

    @functools.cached_property
    def done(self) -> list[Point]:
        """The points that have a result."""
        return [point for point in self.points if point.result is not None]

    @functools.cached_property
    def groups(self) -> list[tuple[Point, ...]]:
        """The points that differ in nothing but the seed, in their order."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(key(point.place), []).append(point)
        return [tuple(points) for points in found.values()]

    @functools.cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics of its finished points, the headline first.

        Without a finished point it is what was logged on the way.
        """
        found = metrics.union(point.result.metrics for point in self.done)
        return found or self._logged or (UNKNOWN,)

    @property
    def _logged(self) -> tuple[Metric, ...]:
        names = (
            name
            for point in self.points
            for split in (VALIDATION, TEST)
            for name in point.curves.get(split, {})
            if name not in TESTED
        )
        return tuple(
            ERROR if name == ERROR.name else Metric(name, name)
            for name in dict.fromkeys(names)
        )

    @property
    def headline(self) -> Metric:
        """The metric that ranks its rows."""
        return self.metrics[0]

    @functools.cached_property
    def measures(self) -> tuple[Metric, ...]:
        """Measures of the attention of its finished points."""
        return metrics.union(p.result.measures for p in self.done)

    @property
    def counts(self) -> tuple[int, int]:
        """How many points are not done, and how many there are."""
        there = len(self.points) + len(self.missing)
        return there - len(self.done), there

    @property
    def unfinished(self) -> dict[str, list[str]]:
        """The names of the points that are not done, by what is the matter."""
        found: dict[str, list[str]] = {}
        for point in self.points:
            if point.problem is not None:
                found.setdefault(point.problem, []).append(point.name)
        if self.missing:
            found["not finished when this was saved"] = list(self.missing)
        return found


def key(value: Any) -> str:
    """Values of axes in a form that is equal where they are, in JSON or not."""
    return json.dumps(value, sort_keys=True, default=str)


def usual_code(points: Sequence[Point]) -> str | None:
    """The version of the code that most finished points ran, None if none tells."""
    codes = (point.codes[-1] for point in points if point.result and point.codes)
    (found, _), *_ = [*collections.Counter(codes).most_common(1), (None, 0)]
    return found


def read(directory: str | pathlib.Path) -> Sweep:
    """Reads a sweep directory.

    Raises:
        Invalid: the directory is not a sweep; the message names what is missing.
    """
    directory = files.path(directory)
    experiment = _experiment(directory)
    points = tuple(
        _point(directory / str(entry["name"]), entry) for entry in experiment["points"]
    )
    axes = experiment.get("axes") or sorted({axis for p in points for axis in p.axes})
    sweep = Sweep(
        directory=directory,
        name=str(experiment.get("name") or directory.name),
        title=str(experiment.get("title") or experiment.get("name") or directory.name),
        description=str(experiment.get("description") or ""),
        axes=tuple(axes),
        baseline=experiment.get("baseline") or {},
        points=points,
        match=_match(experiment.get("match")),
        published=published(experiment.get("published")),
        rope=rope(experiment.get("rope")),
        tuning=tuning.read(directory),
    )
    return dataclasses.replace(sweep, outcomes=_outcomes(sweep))


def rope(value: Any) -> float | None:
    """The region of practical equivalence of a record; None if there is none."""
    number = metrics.number(value)
    return number if number > 0 and math.isfinite(number) else None


def _outcomes(sweep: Sweep) -> dict[str, dict[str, Outcomes]]:
    """What rows got on the test examples, by metric and row."""
    found: dict[str, dict[str, Outcomes]] = {}
    for metric in sweep.metrics:
        if metric.kind == CORPUS:
            continue
        for points in sweep.groups:
            done = [p for p in points if p.result and metric.name in p.result.values]
            values = [p.result.values[metric.name] for p in done if p.result]
            row = outcomes.read([p.directory for p in done], metric.name, values)
            if row is not None:
                found.setdefault(metric.name, {})[key(points[0].place)] = row
    return found


def published(table: Any) -> Mapping[str, Any] | None:
    """The paper's table of an experiment's record; None if there is none."""
    if not isinstance(table, dict) or not isinstance(table.get("rows"), list):
        return None
    rows = [row for row in table["rows"] if _has_objects(row, "axes", "values")]
    return {**table, "rows": rows}


def _has_objects(row: Any, *names: str) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(n), dict) for n in names)


def _match(record: Any) -> Mapping[str, Any] | None:
    return record if isinstance(record, dict) and record.get("by") else None


def _experiment(directory: pathlib.Path) -> dict[str, Any]:
    expected = "expected a directory with experiment.json and one folder per point"
    path = directory / "experiment.json"
    if not files.exists(path):
        there = files.exists(directory)
        lacks = "has no experiment.json" if there else "does not exist"
        raise settings.Invalid(f"{directory} is not a sweep, it {lacks}; {expected}")
    experiment = _object(path)
    points = experiment.get("points")
    usable = isinstance(points, list) and all(
        isinstance(entry, dict)
        and "name" in entry
        and isinstance(entry.get("axes", {}), dict)
        for entry in points
    )
    if not usable:
        raise settings.Invalid(
            f"{directory} is not a sweep, its experiment.json lists no points with a"
            f" name and axes; {expected}"
        )
    return experiment


def _point(directory: pathlib.Path, entry: Mapping[str, Any]) -> Point:
    config = _object(directory / "config.json")
    curves = logs.read(directory / "metrics.jsonl")
    result, problem = _result(directory / "result.json")
    if result is None and problem is None:
        problem = _progress(directory, config, curves)
    return Point(
        name=str(entry["name"]),
        axes=entry.get("axes", {}),
        directory=directory,
        config=config,
        starts=environments.kept(_json(directory / "environment.json")),
        curves=curves,
        result=result,
        problem=problem,
    )


def _json(path: pathlib.Path) -> Any:
    """Content of a file; None if there is none or it was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _object(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file, empty if there is none."""
    value = _json(path)
    return value if isinstance(value, dict) else {}


def _result(path: pathlib.Path) -> tuple[Result | None, str | None]:
    """The result, or None with the reason if the file is there and of no use."""
    if not path.is_file():
        return None, None
    record = _object(path)
    test = record.get("test")
    if not isinstance(test, dict):
        return None, "its result.json cannot be read"
    measured = metrics.described(record.get("metrics")) or (ERROR,)
    values = metrics.finite(test, measured)
    if measured[0].name not in values:
        return None, f"failed: its test {measured[0].label} is not a number"
    return _outcome(record, measured, values), None


def _outcome(
    record: Mapping[str, Any], measured: tuple[Metric, ...], values: dict[str, float]
) -> Result:
    costs = {name: metrics.number(record.get(name)) for name in (*WHOLE, *TIMES)}
    costs |= {name: metrics.number(record["test"].get(name)) for name in TESTED}
    known = {name: cost for name, cost in costs.items() if math.isfinite(cost)}
    for name in known.keys() & {*WHOLE, "examples"}:
        known[name] = int(known[name])
    measures = metrics.described(record.get("measures"))
    return Result(
        metrics=measured,
        values=values,
        validation=metrics.finite(record.get("validation"), measured),
        measures=measures,
        measured=metrics.finite(metrics.values(record.get("measures")), measures),
        **known,
    )


def _progress(
    directory: pathlib.Path,
    config: Mapping[str, Any],
    curves: Mapping[str, Mapping[str, Curve]],
) -> str:
    """Progress of an unfinished point, in words."""
    if not directory.is_dir():
        return "not started"
    logged = next((curves[split] for split in SPLITS if curves.get(split)), None)
    if logged is None:
        return "started, but no step is recorded"
    loss = logged.get(LOSS)
    broken = [] if loss is None else loss.steps[~np.isfinite(loss.values)]
    if len(broken):
        return f"failed: its loss is not a number from step {broken[0]}"
    flat = diff.flat(config)
    steps = flat.get("train.steps", flat.get("steps"))
    of = f" of {steps}" if steps else ""
    last = max(curve.steps[-1] for curve in logged.values())
    return f"recorded up to step {last}{of}"
