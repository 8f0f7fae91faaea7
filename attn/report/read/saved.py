"""Results in one small file, to be checked in, compared with, and quoted from.

A record holds the outcome of a sweep: its rows with the metrics and times of each
seed, their costs, the settings, the paper's table, and with what and where it ran. It
is read back as a sweep, so that a report of it can be made
without the work directory.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attn import settings
from attn.report.read import metrics, outcomes, provenance, results
from attn.report.read.environments import CODE_KEYS
from attn.report.read.metrics import ERROR, Metric
from attn.report.read.outcomes import Outcomes
from attn.report.read.results import SEED, TIMES, Point, Result, Sweep, key
from attn.workdir import diff, files

FORMAT = "attn results, version 2"
FIRST_FORMAT = "attn results, version 1"  # of one metric, the error
DIGITS = {"ms_per_step": 3, "seconds": 1}
LINE = 88  # what fits in this many columns stands on one line


def save(sweep: Sweep, path: str | pathlib.Path) -> pathlib.Path:
    """Writes the record of a sweep; points that are not finished are named in it.

    Raises:
        Invalid: no point is finished, or the file cannot be written.
    """
    if not sweep.done:
        message = f"{sweep.directory} has no finished point; nothing to save"
        raise settings.Invalid(message)
    return files.save(files.path(path), text(of(sweep)).encode())


def of(sweep: Sweep) -> dict[str, Any]:
    """The record of a sweep, plain data."""
    groups = [points for points in sweep.groups if any(p.result for p in points)]
    varying = provenance.varying(groups)
    usual = results.usual_code(sweep.points)
    return {
        "format": FORMAT,
        "name": sweep.name,
        "title": sweep.title,
        "axes": list(sweep.axes),
        "baseline": dict(sweep.baseline),
        "match": sweep.match,
        "published": sweep.published,
        "rope": sweep.rope,
        "metrics": [dataclasses.asdict(metric) for metric in sweep.metrics],
        "measures": [dataclasses.asdict(measure) for measure in sweep.measures],
        "rows": [
            _row(
                [point for point in points if point.result is not None],
                {one.name: one.values[i] for one in varying if i in one.values},
                sweep,
                usual,
            )
            for i, points in enumerate(groups)
        ],
        "outcomes": _outcomes(sweep, [key(points[0].place) for points in groups]),
        "unfinished": [p.name for p in sweep.points if p.result is None],
        "environment": _environment(sweep.done, usual),
        "settings": dict(sorted(provenance.common(sweep.points).items())),
        "time": provenance.when(sweep.done),
    }


def _outcomes(sweep: Sweep, places: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What differences need of the test examples, by metric; rows go by number."""
    return {
        name: outcomes.pack(
            {i: by[place] for i, place in enumerate(places) if place in by}
        )
        for name, by in sweep.outcomes.items()
    }


def _row(
    points: Sequence[Point],
    settings: Mapping[str, Any],
    sweep: Sweep,
    usual: str | None,
) -> dict[str, Any]:
    """The record of the finished points of one row."""
    first = points[0].result
    record = {
        "axes": dict(points[0].place),
        "test": _by_metric(points, sweep.metrics, lambda result: result.values),
        "validation": _by_metric(points, sweep.metrics, lambda r: r.validation),
        "measures": _by_metric(points, sweep.measures, lambda r: r.measured),
        "parameters": _cost(points, "parameters"),
        "macs": _cost(points, "macs"),
        **{name: _times(points, name) for name in TIMES},
        "steps": first.steps,
        "examples": first.examples,
        "together": max(p.result.together or 1 for p in points),
        "settings": dict(sorted(settings.items())),
    }
    other = {key(p.seed): list(p.codes) for p in points if {*p.codes} - {usual}}
    return record | ({"other_code": other} if other else {})


def _by_metric(
    points: Iterable[Point],
    described: Iterable[Metric],
    of: Callable[[Result], Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """The values of some metrics by seed."""
    values = {key(point.seed): of(point.result) for point in points}
    found = {
        metric.name: {
            seed: round(each[metric.name], metric.kept)
            for seed, each in values.items()
            if metric.name in each
        }
        for metric in described
    }
    return {name: by_seed for name, by_seed in found.items() if by_seed}


def _times(points: Iterable[Point], name: str) -> dict[str, float]:
    """A time by seed."""
    found = {key(point.seed): getattr(point.result, name) for point in points}
    return {
        s: round(time, DIGITS[name]) for s, time in found.items() if time is not None
    }


def _cost(points: Iterable[Point], name: str) -> int | None:
    """A cost that seeds do not change."""
    costs = (getattr(point.result, name) for point in points)
    return next((cost for cost in costs if cost is not None), None)


def _environment(points: Sequence[Point], usual: str | None) -> dict[str, Any]:
    """That of the first point that ran the usual code, without what is its own."""
    for point in points:
        if point.codes[-1:] == (() if usual is None else (usual,)) and point.starts:
            flat = diff.flat(point.starts[-1])
            return {k: flat[k] for k in sorted(flat) if k not in provenance.OWN_KEYS}
    return {}


def text(record: Mapping[str, Any]) -> str:
    """A record as JSON; small objects and lists of numbers stand on one line."""
    lines = json.dumps(record, indent=2, ensure_ascii=False)

    def joined(found: re.Match[str]) -> str:
        inner = ", ".join(part.strip() for part in found[2].split(",\n"))
        one = f"{found[1]}{{{inner.strip()}}}"
        return one if len(one) < LINE else found[0]

    lines = re.sub(
        r"(?m)^( *(?:\"[^\"\n]*\": )?)\{\n([^{}\[\]]*?)\n *\}", joined, lines
    )
    flat = lambda found: f"[{' '.join(found[1].split())}]"
    return re.sub(r"\[([-+.\de,\s]+)\](?=,?\n)", flat, lines) + "\n"


def read(path: str | pathlib.Path) -> Sweep:
    """The record in a file as a sweep of finished points.

    Raises:
        Invalid: there is no such file, or it is not a results file.
    """
    path = files.path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise settings.Invalid(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("format") not in (
        FORMAT,
        FIRST_FORMAT,
    ):
        raise settings.Invalid(
            f"{path} is not a results file; expected what launch.py report --save"
            " writes"
        )
    try:
        return _sweep(path, _current(record))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise settings.Invalid(
            f"{path} is a damaged results file ({type(error).__name__}: {error})"
        ) from error


def _current(record: dict[str, Any]) -> dict[str, Any]:
    """A record in the present version."""
    if record["format"] == FORMAT:
        return record
    rows = [
        {**row, "test": {ERROR.name: row["errors"]}, "validation": {}, "measures": {}}
        for row in record["rows"]
    ]
    described = {"metrics": [dataclasses.asdict(ERROR)], "measures": []}
    return {**record, **described, "rows": rows}


def _sweep(path: pathlib.Path, record: Mapping[str, Any]) -> Sweep:
    points = [point for row in record["rows"] for point in _points(record, row)]
    return Sweep(
        directory=path,
        name=str(record["name"]),
        title=str(record["title"]),
        description="",
        axes=tuple(record["axes"]),
        baseline=record["baseline"],
        points=tuple(points),
        match=record.get("match"),
        published=results.published(record.get("published")),
        rope=results.rope(record.get("rope")),
        outcomes=_unpacked(record),
        missing=tuple(record.get("unfinished", ())),
    )


def _unpacked(record: Mapping[str, Any]) -> dict[str, dict[str, Outcomes]]:
    """The outcomes of a record by metric and row; older records have none."""
    rows = record["rows"]
    places = [key(row["axes"]) for row in rows]
    found = {}
    for name, groups in record.get("outcomes", {}).items():
        values = {
            i: list(row["test"].get(name, {}).values()) for i, row in enumerate(rows)
        }
        back = outcomes.unpack(groups, values)
        found[name] = {places[i]: row for i, row in back.items()}
    return found


def _points(record: Mapping[str, Any], row: Mapping[str, Any]) -> list[Point]:
    """The points of a row, one a seed."""
    seeds = dict.fromkeys(seed for by_seed in row["test"].values() for seed in by_seed)
    return [_point(record, row, seed) for seed in seeds]


def _point(record: Mapping[str, Any], row: Mapping[str, Any], seed: str) -> Point:
    axes = {**row["axes"], SEED: json.loads(seed)}
    return Point(
        name="-".join(map(str, axes.values())),
        axes={k: v for k, v in axes.items() if k in record["axes"]},
        directory=pathlib.Path(),
        config={**record["settings"], **row["settings"]},
        starts=_starts(record, row.get("other_code", {}).get(seed)),
        curves={},
        result=_result(record, row, seed),
        problem=None,
    )


def _starts(record: Mapping[str, Any], codes: Any) -> tuple[Mapping[str, Any], ...]:
    """The environments of a point: one for each version of the code that ran it."""
    usual = {**record["environment"], "time": record.get("time")}
    keys = [name for name in CODE_KEYS if usual.get(name)]
    codes = [codes] if isinstance(codes, str) else codes or [None]
    return tuple(
        {**usual, **(dict.fromkeys(keys, code) if code else {})} for code in codes
    )


def _result(record: Mapping[str, Any], row: Mapping[str, Any], seed: str) -> Result:
    return Result(
        metrics=metrics.described(record["metrics"]),
        values=_of_seed(row["test"], seed),
        validation=_of_seed(row["validation"], seed),
        measures=metrics.described(record["measures"]),
        measured=_of_seed(row["measures"], seed),
        steps=row.get("steps"),
        examples=row.get("examples"),
        parameters=row["parameters"],
        macs=row["macs"],
        ms_per_step=row["ms_per_step"].get(seed),
        seconds=row["seconds"].get(seed),
        together=row.get("together"),
    )


def _of_seed(by_metric: Mapping[str, Any], seed: str) -> dict[str, float]:
    found = {name: by_seed.get(seed) for name, by_seed in by_metric.items()}
    return {name: float(value) for name, value in found.items() if value is not None}
