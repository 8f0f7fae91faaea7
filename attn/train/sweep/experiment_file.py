"""Experiment files, read and expanded into the points of a sweep.

An experiment is a Python file of plain data:

    get_config(arg) -> the config all points share, a ConfigDict or nested dict
    sweep(arg)      -> yields (axes, changes): what distinguishes a point, for the
                       record, and the fields of the config it sets, by dotted path
    BASELINE        -> the axes of the point that others are compared with; optional.
                       Of several axes those that the points have, so that it serves
                       every table of a file
    row(spec, arg)  -> the fields that one more row sets, by dotted path: what is named
                       by --add, a module with or without settings, where the file's
                       own rows have theirs; optional
    match(arg)      -> "parameters", "macs" or "latency", or {"by": one of these,
                       "budget": a number}: every point's widths are scaled to the
                       budget, the baseline's where none is given; None, or no such
                       function, leaves them
    tune(arg)       -> {field: values}, all combinations of which every row tries on
                       the validation split, or a list of {field: value}, one a trial;
                       a constant TUNE serves as well; optional
    published(arg)  -> the paper's table: {"source": text, "rows": [(axes, values)]},
                       or None; optional. With "columns": AXIS the values are test
                       errors by the value of that axis, otherwise they are by name:
                       "error", "parameters", "macs", or whatever else there is.
    ROPE            -> the largest difference of the headline metric that does not
                       matter, in its units (region of practical equivalence); optional

Its docstring begins with the title. Without `sweep` there is one point. Functions that
take no `arg` are called without it.
"""

import copy
import dataclasses
import hashlib
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attn import settings
from attn.train.blocks import Blocks
from attn.train.sweep import added, trials
from attn.train.sweep.added import Rows, plain_pairs
from attn.train.sweep.override import assign, overlap, override, plain
from attn.train.sweep.python_file import PythonFile
from attn.train.sweep.trials import Trial
from attn.workdir import standing

# What the widths of the points of a sweep can be scaled to agree in.
MATCHES = ("parameters", "macs", "latency")
LONGEST = 120  # bytes of a name; file systems take 255, and files are named after it


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

    @property
    def row(self) -> dict[str, Any]:
        """The axes but for the seed: points of one row differ in nothing else."""
        return {axis: value for axis, value in self.axes.items() if axis != "seed"}

    @property
    def label(self) -> str:
        """The name of the row."""
        return "-".join(map(str, self.row.values())) or "point"


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
        tune: the settings that every row tries before it trains; empty for none.
        published: the paper's table, rows as "axes" and "values".
        rope: the largest difference that does not matter, None if none is named.
        blocks: which blocks attention has, as `attn.train.blocks` says.
    """

    name: str
    title: str
    description: str
    baseline: dict[str, Any]
    points: list[Point]
    match: dict[str, Any] | None = None
    matching: dict[str, Any] | None = None
    tune: tuple[Trial, ...] = ()
    published: dict[str, Any] | None = None
    rope: float | None = None
    blocks: Blocks = "table"

    def select(self, only: Sequence[str]) -> list[Point]:
        """The points that `standing.select` chooses.

        Raises:
            Invalid: an entry that selects nothing; names those that would.
        """
        chosen = standing.select({p.name: p.axes for p in self.points}, only)
        return [point for point in self.points if point.name in chosen]


def load(
    path: pathlib.Path,
    arg: str,
    overrides: Sequence[tuple[str, str]] = (),
    *,
    add: Sequence[str] = (),
    tune: Sequence[str] = (),
) -> Experiment:
    """Reads an experiment file and expands its sweep.

    Args:
        path: of the file.
        arg: what it is given, the text after the colon of `--config=FILE:ARG`.
        overrides: (dotted path, text) set in every point. No sweep may set the same
            field, or its rows would not be what their names say; but for the seed,
            which is the name: points that thereby become the same are one.
        add: rows beside those of the file, "MODULE" or "NAME=MODULE".
        tune: what every row tries instead of what the file says, texts such as
            "schedule.peak=0.01,0.03"; "none" for nothing.

    Raises:
        Invalid: no such file, an error in it, or something given that does not fit.
    """
    file = PythonFile(path, arg)
    base = plain(file.call("get_config"))
    if not isinstance(base, dict):
        raise settings.Invalid(f"{path}: get_config must return a config, got {base!r}")
    changes = _rows(file)
    baseline = _baseline(path, file.constant("BASELINE") or {}, changes)
    for text in add:
        changes += added.rows(text, file, baseline, changes)
    _refuse_what_the_sweep_sets(changes, [path for path, _ in overrides])
    tried = _tried(file, tune)
    _refuse_what_is_set_twice(tried, changes, overrides)
    points: dict[str, Point] = {}
    for axes, fields in changes:
        config = copy.deepcopy(base)
        for field, value in fields.items():
            assign(config, field, value)
        for field, text in overrides:
            override(config, field, text)
        if "seed" in axes:
            if "seed" not in config:
                raise settings.Invalid(f"{path}: config.seed is missing")
            given = "seed" in {*fields, *(field for field, _ in overrides)}
            if axes["seed"] != config["seed"] and not given:
                raise settings.Invalid(
                    f"{path}: a point is called seed {axes['seed']!r} and has"
                    f" config.seed {config['seed']!r}; yield 'seed' among its changes,"
                    " too"
                )
            axes = {**axes, "seed": config["seed"]}
        point = Point(name_of(axes), axes, config)
        if points.setdefault(point.name, point).config != config:
            message = f"{path}: two different points are both called {point.name!r}"
            raise settings.Invalid(message)
    if tried and not all(_validates(p.config.get("data")) for p in points.values()):
        raise settings.Invalid(
            "tuning needs a validation split, as the test split must not choose; set"
            " config.data.validation, or --tune=none"
        )
    title, _, description = file.docstring.partition("\n")
    return Experiment(
        name=_short("-".join(filter(None, [path.stem, _label(arg)]))),
        title=title,
        description=description.strip("\n"),
        baseline=baseline,
        points=list(points.values()),
        match=_match(path, file.call("match")),
        tune=tried,
        published=_published(path, file.call("published")),
        rope=_rope(path, file.constant("ROPE")),
    )


def _validates(data: Any) -> bool:
    """Whether a data set has a validation split, or is none: its program says so."""
    return not isinstance(data, Mapping) or bool(data.get("validation"))


def name_of(axes: Mapping[str, Any]) -> str:
    """The name of a point, which is that of its directory."""
    name = "-".join(map(str, axes.values())) or "point"
    name = re.sub(r"[^\w.=+-]", "_", name)
    return _short(f"_{name}" if name.startswith(".") else name)


def _short(name: str) -> str:
    """A name that file systems take: a long one ends with a digest of its whole."""
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return name.encode()[: LONGEST - 11].decode(errors="ignore") + "-" + digest


def _rows(file: PythonFile) -> Rows:
    """The axes and changes of every point, as the file's sweep yields them."""
    if not file.has("sweep"):
        return [({}, {})]
    rows = file.call("sweep")
    if not isinstance(rows, Sequence) or not rows or not all(map(_is_pair, rows)):
        raise settings.Invalid(
            f"{file.path}: sweep(arg) must yield pairs (axes, changes) of dictionaries,"
            f" at least one, got {rows!r:.80}"
        )
    return [(plain_pairs(axes), plain_pairs(changes)) for axes, changes in rows]


def _refuse_what_the_sweep_sets(changes: Rows, overrides: Sequence[str]) -> None:
    for path in overrides:
        if path == "seed":  # an axis that is named after what was run
            continue
        count = sum(any(overlap(path, field) for field in c) for _, c in changes)
        if count:
            raise settings.Invalid(
                f"config.{path} cannot be set: the sweep sets this field, in {count} of"
                f" its {len(changes)} points; use --only to choose among its rows, or"
                " --add for one more"
            )


def _tried(file: PythonFile, asked: Sequence[str]) -> tuple[Trial, ...]:
    """The trials that a command asks for, else those of the file."""
    given = trials.asked(asked)
    if given is not None:
        return given
    value = file.call("tune") if file.has("tune") else file.constant("TUNE")
    return trials.listed(value)


def _refuse_what_is_set_twice(
    tried: Sequence[Trial], changes: Rows, overrides: Sequence[tuple[str, str]]
) -> None:
    for field in tried[0] if tried else ():
        if any(overlap(field, other) for _, c in changes for other in c):
            raise settings.Invalid(
                f"config.{field} cannot be tuned: the sweep sets this field"
            )
        if any(overlap(field, path) for path, _ in overrides):
            raise settings.Invalid(
                f"config.{field} cannot be set, as it is tuned; --tune=none trains"
                " without"
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


def _baseline(path: pathlib.Path, wanted: Any, changes: Rows) -> dict[str, Any]:
    if not isinstance(wanted, Mapping):
        raise settings.Invalid(
            f"{path}: BASELINE must be a dictionary of values by axis, got {wanted!r}"
        )
    wanted = plain_pairs(wanted)
    axes = {axis for axes, _ in changes for axis in axes}
    # one that has no axis of the points stays, for the report to say so
    return {axis: v for axis, v in wanted.items() if axis in axes} or wanted


def _rope(path: pathlib.Path, wanted: Any) -> float | None:
    value = plain(wanted)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise settings.Invalid(f"{path}: ROPE must be a positive number, got {value!r}")
    return float(value)


def _published(path: pathlib.Path, table: Any) -> dict[str, Any] | None:
    if table is None:
        return None
    rows = table.get("rows") if isinstance(table, Mapping) else None
    if not isinstance(rows, list | tuple) or not all(map(_is_pair, rows)):
        raise settings.Invalid(
            f'{path}: published(arg) must return {{"source": text, "rows": [(axes,'
            f" values), ...]}}, got {table!r:.80}"
        )
    made = [{"axes": plain_pairs(a), "values": plain_pairs(v)} for a, v in rows]
    return {
        **plain_pairs({k: v for k, v in table.items() if k != "rows"}),
        "rows": made,
    }


def _is_pair(row: Any) -> bool:
    """Whether it is two mappings, such as axes and changes."""
    mappings = isinstance(row, list | tuple) and all(
        isinstance(part, Mapping) for part in row
    )
    return mappings and len(row) == 2


def _label(arg: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in arg)
