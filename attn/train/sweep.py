"""Sweeps: an experiment file, expanded into points, trained one after another.

An experiment is a Python file of plain data:

    get_config(arg) -> the config all points share, a ConfigDict or nested dict
    sweep(arg)      -> yields (axes, changes): what distinguishes a point, for the
                       record, and the fields of the config it sets, by dotted path
    BASELINE        -> the axes of the point that others are compared with; optional.
                       Of several axes those that the points have, so that it serves
                       every table of a file
    match(arg)      -> "parameters", "macs" or "latency", or {"by": one of these,
                       "budget": a number}: every point's widths are scaled to the
                       budget, the baseline's where none is given; None, or no such
                       function, leaves them
    published(arg)  -> the paper's table: {"source": text, "rows": [(axes, values)]},
                       or None; optional. With "columns": AXIS the values are test
                       errors by the value of that axis, otherwise they are by name:
                       "error", "parameters", "macs", or whatever else there is.

Its docstring begins with the title. Without `sweep` there is one point.
"""

import ast
import contextlib
import copy
import dataclasses
import pathlib
import re
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from attn import settings
from attn.train import loop, partition, workdir
from attn.train.groups import Parallel, groups, programs
from attn.train.groups import check as check_parallel
from attn.train.interruption import Interruption
from attn.train.program import SECTIONS
from attn.train.progress import SweepProgress

# What the widths of the points of a sweep can be scaled to agree in.
MATCHES = ("parameters", "macs", "latency")


@dataclasses.dataclass(frozen=True)
class Point:
    """One configuration with one seed.

    Attributes:
        name: of its directory, from its axes.
        axes: what distinguishes it from the other points of the sweep.
        config: everything that decides its training, as nested plain data.
    """

    name: str
    axes: dict[str, Any]
    config: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment file, read and expanded.

    Attributes:
        name: of the file, and its argument.
        title, description: the first line of its docstring, and the others.
        baseline: axes of the point that others are compared with.
        points: one for each seed of each configuration.
        match: as the file's match(arg) says: "by", and "budget" if there is one.
        matching: the record of `attn.train.match`, once it is done.
        published: the paper's table, rows as "axes" and "values".
    """

    name: str
    title: str
    description: str
    baseline: dict[str, Any]
    points: list[Point]
    match: dict[str, Any] | None = None
    matching: dict[str, Any] | None = None
    published: dict[str, Any] | None = None

    def select(self, only: Sequence[str]) -> list[Point]:
        """The points of which a name, or "axis=value", is in `only`; all if empty.

        Raises:
            ValueError: an entry that selects nothing; names those that would.
        """
        chosen = set()
        for text in only:
            found = {point.name for point in self.points if _matches(point, text)}
            if not found:
                values = {str(v) for point in self.points for v in point.axes.values()}
                names = [point.name for point in self.points]
                raise settings.unknown("point", text, [*sorted(values), *names][:40])
            chosen |= found
        return [p for p in self.points if not only or p.name in chosen]


def _matches(point: Point, text: str) -> bool:
    named = {f"{axis}={value}" for axis, value in point.axes.items()}
    return text in named | {point.name} | {str(v) for v in point.axes.values()}


def plain(value: Any) -> Any:
    """Nested mappings and sequences as dicts and lists, dots in keys as levels."""
    if hasattr(value, "to_dict"):  # a ConfigDict
        value = value.to_dict()
    if isinstance(value, Mapping):
        nested: dict[str, Any] = {}
        for key, item in value.items():
            assign(nested, str(key), item)
        return nested
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def assign(config: dict[str, Any], path: str, value: Any) -> None:
    """Sets the field at a dotted path, making the levels on the way."""
    *levels, last = path.split(".")
    for level in levels:
        inner = config.setdefault(level, {})
        if not isinstance(inner, dict):
            # an attention given by name alone gets settings
            inner = config[level] = {"name": inner}
        config = inner
    config[last] = plain(value)


def override(config: dict[str, Any], path: str, text: str) -> None:
    """Sets the field at a dotted path to what `text` says, in the field's own type.

    Raises:
        ValueError: the section does not exist, or the text is of another type.
    """
    section, _, rest = path.partition(".")
    if section not in SECTIONS or bool(rest) == (section == "seed"):
        raise settings.unknown("field", f"config.{path}", sorted(_paths(config)))
    current: Any = config
    for level in path.split("."):
        current = current.get(level) if isinstance(current, Mapping) else None
    value = text if isinstance(current, str) else _literal(text)
    if not _replaces(value, current):
        groups = {"list": "a tuple such as (1,2)", "dict": "a group of fields"}
        kind = groups.get(type(current).__name__, type(current).__name__)
        raise ValueError(f"config.{path} must be {kind}, got {text!r}")
    if isinstance(current, float) and isinstance(value, int):
        value = float(value)
    assign(config, path, value)


def _replaces(value: Any, current: Any) -> bool:
    """Whether a value may stand where another did; more is checked when it is used."""
    if value is None or current is None:
        return True
    if isinstance(current, dict):  # a group may be given by its name alone
        return isinstance(value, dict | str)
    if isinstance(current, list):
        return isinstance(value, list | tuple)
    if isinstance(current, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(current)


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _paths(config: Mapping[str, Any]) -> Iterator[str]:
    return (f"config.{path}" for path in workdir.flat(config))


def load(
    path: pathlib.Path, arg: str, overrides: Sequence[tuple[str, str]] = ()
) -> Experiment:
    """Reads an experiment file and expands its sweep.

    Args:
        path: of the file.
        arg: what it is given, the text after the colon of `--config=FILE:ARG`.
        overrides: (dotted path, text) set in every point, after the sweep's own
            changes. Points that thereby become the same are one.

    Raises:
        ValueError: no such file, an error in it, or an override that does not fit.
    """
    module = _module(path)
    try:
        base = plain(module.get_config(arg))
        changes = list(module.sweep(arg)) if hasattr(module, "sweep") else [({}, {})]
        table = module.published(arg) if hasattr(module, "published") else None
        wanted = module.match(arg) if hasattr(module, "match") else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        raise ValueError(_where(path, error)) from error
    points: dict[str, Point] = {}
    for axes, fields in changes:
        config = copy.deepcopy(base)
        for field, value in fields.items():
            assign(config, field, value)
        for field, text in overrides:
            override(config, field, text)
        # an override beats the sweep: the record says what was run
        axes = dict(axes)
        if "seed" in axes:
            axes["seed"] = config["seed"]
        name = "-".join(map(str, axes.values())) or "point"
        name = re.sub(r"[^\w.=+-]", "_", name)
        point = Point(name, axes, config)
        if points.setdefault(name, point).config != config:
            raise ValueError(f"{path}: two different points are both called {name!r}")
    title, _, description = (module.__doc__ or path.stem).strip().partition("\n")
    return Experiment(
        name="-".join(filter(None, [path.stem, _label(arg)])),
        title=title,
        description=description.strip(),
        baseline=_baseline(getattr(module, "BASELINE", {}), points.values()),
        points=list(points.values()),
        match=_match(path, wanted),
        published=_published(table),
    )


def _match(path: pathlib.Path, wanted: Any) -> dict[str, Any] | None:
    if wanted is None:
        return None
    wanted = plain(wanted) if isinstance(wanted, Mapping) else {"by": wanted}
    if wanted.get("by") not in MATCHES or wanted.keys() - {"by", "budget"}:
        raise ValueError(
            f'{path}: match(arg) must be one of {", ".join(MATCHES)}, or {{"by": one of'
            f' these, "budget": a number}}, got {wanted}'
        )
    return wanted


def _baseline(wanted: Mapping[str, Any], points: Iterable[Point]) -> dict[str, Any]:
    axes = {axis for point in points for axis in point.axes}
    # one that has no axis of the points stays, for the report to say so
    return {axis: v for axis, v in wanted.items() if axis in axes} or dict(wanted)


def _published(table: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if table is None:
        return None
    rows = [{"axes": dict(a), "values": dict(v)} for a, v in table["rows"]]
    return {**table, "rows": rows}


def _label(arg: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in arg)


def _module(path: pathlib.Path) -> types.ModuleType:
    if not path.is_file():
        near = sorted(path.parent.glob("*.py")) if path.parent.is_dir() else []
        names = [str(p) for p in near if p.stem not in ("__init__", "common")]
        raise settings.unknown("experiment file", str(path), names)
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    except Exception as error:
        raise ValueError(_where(path, error)) from error
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} has no get_config(arg)")
    return module


def _where(path: pathlib.Path, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [0])[-1]
    return f"{path}, line {line}: {type(error).__name__}: {error}"


def check(points: Sequence[Point]) -> None:
    """Builds every point, without compiling or writing anything.

    Raises:
        ValueError: the first point that cannot be built, and why.
    """
    for point, _ in programs(points):
        del point


def run(
    experiment: Experiment,
    points: Sequence[Point],
    directory: pathlib.Path,
    *,
    progress: SweepProgress,
    interruption: Interruption,
    parallel: Parallel = "off",
) -> dict[str, str]:
    """Trains the points that are not done yet, and resumes those begun.

    A point that diverges does not keep the others from being trained.

    Args:
        experiment: whose record the directory is.
        points: those to train.
        directory: the work directory of the sweep.
        progress: is told how it goes.
        interruption: asks it to stop.
        parallel: which points train side by side, as `groups.groups` says.

    Returns:
        The points that diverged, and what there is to say about it.

    Raises:
        ValueError: a config that cannot be built or differs from the one under
            which the work directory was begun, or a directory that cannot be used.
        loop.Stopped, loop.Failed: as `loop.Training.run` says; what is done is kept.
    """
    diverged = {}
    check_parallel(parallel)
    first = jax.process_index() == 0
    if first:
        workdir.check(directory)
        unchanged(points, directory)
    check(points)
    with workdir.held(directory) if first else contextlib.nullcontext():
        if first:
            describe(experiment, directory)
        done = [(directory / p.name / "result.json").exists() for p in points]
        done = partition.agree(np.asarray(done)).tolist()
        if any(done):
            progress.note(f"{sum(done)} of {len(points)} points are done already")
        left = [point for point, over in zip(points, done, strict=True) if not over]
        for group in groups(left, parallel):
            k, *others = (points.index(point) + 1 for point in group.points)
            progress.point(k, len(points), group.name, others)
            members = group.members(directory)
            training = loop.Training(
                group.program, members, progress=progress, interruption=interruption
            )
            training.run()
            for point, member in zip(group.points, members, strict=True):
                if member.result is None:
                    diverged[point.name] = str(member.diverged)
                    said = f"{point.name} diverged: {member.diverged}"
                else:
                    error = member.result["test"]["error"]
                    said = f"{point.name}: test error {error:.2f} %"
                progress.point_done(said)
    return diverged


def unchanged(points: Sequence[Point], directory: pathlib.Path) -> None:
    """Raises ValueError if a point was begun there under another config."""
    for point in points:
        old = workdir.read_json(directory / point.name / "config.json")
        changes = workdir.difference(old, point.config) if old else ""
        if changes:
            raise ValueError(
                f"workdir {directory} was begun with another config for"
                f" {point.name}: {changes}; name another --workdir, or remove this one"
            )


def describe(experiment: Experiment, directory: pathlib.Path) -> None:
    """Writes what the sweep is, keeping points of an earlier, other selection."""
    path = directory / "experiment.json"
    old = workdir.read_json(path) or {"points": []}
    points = [{"name": p.name, "axes": p.axes} for p in experiment.points]
    names = {point["name"] for point in points}
    begun = [
        point
        for point in old["points"]
        if point["name"] not in names and (directory / point["name"]).exists()
    ]
    axes = list(dict.fromkeys(axis for p in experiment.points for axis in p.axes))
    workdir.write_json(
        path,
        {
            "name": experiment.name,
            "title": experiment.title,
            "description": experiment.description,
            "axes": axes,
            "baseline": experiment.baseline,
            "match": experiment.match,
            "published": experiment.published,
            "points": [*points, *begun],
        },
    )
    if experiment.matching is not None:
        workdir.write_json(directory / "match.json", experiment.matching)
