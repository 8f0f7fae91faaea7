"""Experiment files, read and expanded into the points of a sweep.

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

import copy
import dataclasses
import pathlib
import re
import traceback
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attn import settings
from attn.train.sweep.override import assign, override, plain

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
        matching: the record of `attn.train.budget.match`, once it is done.
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
            Invalid: an entry that selects nothing; names those that would.
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
        Invalid: no such file, an error in it, or an override that does not fit.
    """
    module = _module(path)
    try:
        base = plain(module.get_config(arg))
        changes = list(module.sweep(arg)) if hasattr(module, "sweep") else [({}, {})]
        table = module.published(arg) if hasattr(module, "published") else None
        wanted = module.match(arg) if hasattr(module, "match") else None
    except ValueError as error:
        raise settings.Invalid(f"{path}: {error}") from error
    except Exception as error:
        raise settings.Invalid(_where(path, error)) from error
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
            raise settings.Invalid(
                f"{path}: two different points are both called {name!r}"
            )
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
        raise settings.Invalid(
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
        raise settings.Invalid(_where(path, error)) from error
    if not hasattr(module, "get_config"):
        raise settings.Invalid(f"{path} has no get_config(arg)")
    return module


def _where(path: pathlib.Path, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [0])[-1]
    return f"{path}, line {line}: {type(error).__name__}: {error}"
