"""Regression check: a sweep against an earlier record of it, row by row.

The difference of a row is that of its headline, now minus then, seed by seed, with an
interval; whether code, versions, machine or settings differ stands beside it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from attn.report.analyse import numbers, settings, statistics, table
from attn.report.analyse.numbers import DAGGER, DASH
from attn.report.analyse.statistics import Interval
from attn.report.analyse.table import Row
from attn.report.read import provenance
from attn.report.read.metrics import SHARE, Metric
from attn.report.read.results import Sweep, key
from attn.workdir import diff


@dataclasses.dataclass(frozen=True)
class Line:
    """A row that both have.

    Attributes:
        now, then: the row today and in the record.
        difference: now minus then over equal seeds, None if no seed is in both.
        seeds: number of seeds in both.
        exact: whether every one of them has the same value as then.
    """

    now: Row
    then: Row
    difference: Interval | None
    seeds: int
    exact: bool

    @property
    def verdict(self) -> str:
        """Verdict of the difference."""
        if self.difference is None:
            return "no seed in both"
        if self.exact:
            return "the same"
        return statistics.verdict(self.difference, self.now.metric.better)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A sweep held against a record.

    Attributes:
        source: the record's file name.
        metric: by which rows are compared.
        lines: the rows that both have.
        added, missing: labels of the rows that only the sweep or the record has.
        differences: of code, versions, machine and settings, in one line each.
    """

    source: str
    metric: Metric
    lines: tuple[Line, ...]
    added: tuple[str, ...]
    missing: tuple[str, ...]
    differences: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cells:
    """A line as text, numbers aligned with those of the other lines."""

    name: str
    seeds: str
    then: str
    now: str
    difference: str
    verdict: str


def compare(now: Sweep, then: Sweep) -> Comparison:
    """The finished rows of a sweep held against a record."""
    rows = {key(row.axes): row for row in table.rows(now) if row.done}
    old = {key(row.axes): row for row in table.rows(then) if row.done}
    lines = [_line(row, old[place]) for place, row in rows.items() if place in old]
    return Comparison(
        source=then.directory.name,
        metric=now.headline,
        lines=tuple(lines),
        added=tuple(row.label for place, row in rows.items() if place not in old),
        missing=tuple(row.label for place, row in old.items() if place not in rows),
        differences=(
            _environments(now, then),
            *_settings(now, then),
        ),
    )


def _line(now: Row, then: Row) -> Line:
    metric = now.metric
    new, old = table.values(now.points, metric), table.values(then.points, metric)
    both = [seed for seed in new if seed in old]
    rounding = 10.0**-metric.kept
    exact = all(abs(new[seed] - old[seed]) < rounding for seed in both)
    counts = [p.result.examples for p in (*now.done, *then.done) if p.result]
    difference = statistics.paired(
        new,
        old,
        examples=min(filter(None, counts), default=None)
        if metric.kind == SHARE
        else None,
    )
    return Line(now, then, difference, len(both), bool(both) and exact)


def sentences(comparison: Comparison) -> list[str]:
    """The verdicts counted, and what the comparison leaves out."""
    if not comparison.lines:
        said = [f"No finished row is in {comparison.source} too."]
    else:
        words = [line.verdict for line in comparison.lines]
        counts = [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
        said = [f"Of {len(words)} rows that are in {comparison.source} too:"]
        said[0] += f" {', '.join(counts)}."
    for who, labels in (
        ("Only in this sweep", comparison.added),
        (f"Only in {comparison.source}, or not finished here", comparison.missing),
    ):
        if labels:
            said.append(f"{who}: {numbers.listed(labels)}.")
    return [*said, *comparison.differences]


def cells(comparison: Comparison) -> list[Cells]:
    """The lines as text."""
    digits = comparison.metric.digits
    lines = comparison.lines
    columns = [
        [numbers.plus_minus(line.then.headline, digits) for line in lines],
        [numbers.plus_minus(line.now.headline, digits) for line in lines],
        [numbers.plus_minus(line.difference, digits, sign=True) for line in lines],
    ]
    return [
        Cells(
            line.now.label + (DAGGER if line.now.other_code else ""),
            str(line.seeds),
            *texts,
            line.verdict,
        )
        for line, *texts in zip(lines, *map(numbers.aligned, columns), strict=True)
    ]


def _environments(now: Sweep, then: Sweep) -> str:
    """Differences of code, versions and machine, in one line."""
    new, old = (settings.environment(sweep.points) for sweep in (now, then))
    parts = _changes(old, new)
    if not parts:
        return "Code, versions and machine are the same."
    return f"Then and now: {'; '.join(parts)}."


def _settings(now: Sweep, then: Sweep) -> list[str]:
    """The settings that differ between rows that both have, in one line."""
    new, old = _configs(now), _configs(then)
    found: dict[str, None] = {}
    for place in new.keys() & old.keys():
        if new[place] and old[place]:
            both = {name: old[place].get(name) for name in {**old[place], **new[place]}}
            found |= dict.fromkeys(_changes(both, new[place], skip=("seed",)))
    if not found:
        return []
    return [f"Settings then and now: {'; '.join(sorted(found))}."]


def _configs(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """The settings of each finished row by its place."""
    return {
        key(row.axes): diff.flat(provenance.first_config(row.points))
        for row in table.rows(sweep)
        if row.done
    }


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], skip: Sequence[str] = ()
) -> list[str]:
    return [
        f"{name.removeprefix('packages.')} {_shown(old.get(name))}"
        f" \N{RIGHTWARDS ARROW} {_shown(new.get(name))}"
        for name in {**old, **new}
        if name not in skip and _plain(old.get(name)) != _plain(new.get(name))
    ]


def _shown(value: Any) -> str:
    return DASH if value is None else numbers.text(value)


def _plain(value: Any) -> str:
    """A setting in a form in which "slots": {} and no slots are the same."""
    return key(None if value == {} else value)
