"""Results in one small file, to be checked in, compared with, and quoted from.

A record holds what a sweep came to: its rows with the errors and times of each seed,
their costs, the settings, the paper's table, and with what and where it ran. It is
read back as a sweep, so that everything that is said about a sweep can be said
about a record, without the work directory.
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attn.report.analyse import table
from attn.report.analyse.table import Row
from attn.report.read import provenance, results
from attn.report.read.results import SEED, Point, Result, Sweep
from attn.workdir import diff

FORMAT = "attn results, version 1"
DIGITS = {"error": 4, "ms_per_step": 3, "seconds": 1}
LINE = 88  # what fits in this many columns stands on one line


def save(sweep: Sweep, path: str | pathlib.Path) -> pathlib.Path:
    """Writes the record of a sweep; points that are not finished are named in it.

    Raises:
        ValueError: no point is finished, or the file cannot be written.
    """
    if not sweep.done:
        raise ValueError(f"{sweep.directory} has no finished point; nothing to save")
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(of(sweep)), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from error
    return path


def of(sweep: Sweep) -> dict[str, Any]:
    """The record of a sweep, plain data."""
    rows = table.rows(sweep)
    varying = provenance.varying(rows)
    done = sweep.done
    return {
        "format": FORMAT,
        "name": sweep.name,
        "title": sweep.title,
        "axes": list(sweep.axes),
        "baseline": dict(sweep.baseline),
        "match": sweep.match,
        "published": sweep.published,
        "rows": [
            _row(row, {one.name: one.raw[i] for one in varying if i in one.raw})
            for i, row in enumerate(rows)
            if row.done
        ],
        "unfinished": [p.name for p in sweep.points if p.result is None],
        "environment": _environment(done, table.usual_code(sweep.points)),
        "settings": dict(sorted(provenance.common(sweep.points).items())),
        "time": provenance.when(done),
    }


def _row(row: Row, settings: Mapping[str, Any]) -> dict[str, Any]:
    by_seed = lambda name: {
        table.key(p.seed): round(getattr(p.result, name), DIGITS[name])
        for p in row.done
        if getattr(p.result, name) is not None
    }
    other = {table.key(p.seed): p.code for p in row.other_code}
    first = row.done[0].result
    record = {
        "axes": dict(row.axes),
        "errors": by_seed("error"),
        "parameters": row.cost("parameters"),
        "macs": row.cost("macs"),
        "ms_per_step": by_seed("ms_per_step"),
        "seconds": by_seed("seconds"),
        "steps": first.steps,
        "examples": first.examples,
        "together": max(p.result.together or 1 for p in row.done),
        "settings": dict(sorted(settings.items())),
    }
    return record | ({"other_code": other} if other else {})


def _environment(points: Sequence[Point], usual: str | None) -> dict[str, Any]:
    """That of the first point that ran the usual code, without what is its own."""
    for point in points:
        if point.environment and point.code == usual:
            flat = diff.flat(point.environment)
            return {k: flat[k] for k in sorted(flat) if k not in provenance.OWN_KEYS}
    return {}


def text(record: Mapping[str, Any]) -> str:
    """A record as JSON; small objects stand on one line."""
    lines = json.dumps(record, indent=2, ensure_ascii=False)

    def joined(found: re.Match[str]) -> str:
        inner = ", ".join(part.strip() for part in found[2].split(",\n"))
        one = f"{found[1]}{{{inner.strip()}}}"
        return one if len(one) < LINE else found[0]

    return (
        re.sub(r"(?m)^( *(?:\"[^\"\n]*\": )?)\{\n([^{}\[\]]*?)\n *\}", joined, lines)
        + "\n"
    )


def read(path: str | pathlib.Path) -> Sweep:
    """The record in a file as a sweep of finished points.

    Raises:
        ValueError: there is no such file, or it is no record.
    """
    path = pathlib.Path(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no results file; expected what launch.py report --save writes"
        )
    try:
        return _sweep(path, record)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is a damaged results file ({type(error).__name__}: {error})"
        ) from error


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
    )


def _points(record: Mapping[str, Any], row: Mapping[str, Any]) -> list[Point]:
    commit = {key: record["environment"].get(key) for key in results.CODE_KEYS}
    found = []
    for seed, error in row["errors"].items():
        axes = {**row["axes"], SEED: json.loads(seed)}
        code = row.get("other_code", {}).get(seed)
        environment = {**record["environment"], "time": record.get("time")}
        if code:
            environment |= {key: code for key, value in commit.items() if value}
        found.append(
            Point(
                name="-".join(map(str, axes.values())),
                axes={k: v for k, v in axes.items() if k in record["axes"]},
                directory=pathlib.Path(),
                config={**record["settings"], **row["settings"]},
                environment=environment,
                curves={},
                result=Result(
                    error=float(error),
                    steps=row.get("steps"),
                    examples=row.get("examples"),
                    parameters=row["parameters"],
                    macs=row["macs"],
                    ms_per_step=row["ms_per_step"].get(seed),
                    seconds=row["seconds"].get(seed),
                    together=row.get("together"),
                ),
                problem=None,
            )
        )
    return found
