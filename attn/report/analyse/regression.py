"""A sweep against an earlier record of it: the same seeds, row by row.

What is said of a row is the difference of its errors, now minus then, seed by seed,
with an interval; whether code, versions, machine or settings differ stands beside it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from attn.report.analyse import statistics, table
from attn.report.analyse.statistics import Interval
from attn.report.analyse.summary import some
from attn.report.analyse.table import Row
from attn.report.read import provenance
from attn.report.read.results import Sweep
from attn.workdir import diff


@dataclasses.dataclass(frozen=True)
class Line:
    """A row that both have.

    Attributes:
        now, then: the row today and in the record.
        difference: now minus then over equal seeds, None if no seed is in both.
        seeds: number of seeds in both.
        exact: whether every one of them has the same error as then.
    """

    now: Row
    then: Row
    difference: Interval | None
    seeds: int
    exact: bool

    @property
    def verdict(self) -> str:
        """What the difference says."""
        if self.difference is None:
            return "no seed in both"
        return "the same" if self.exact else statistics.verdict(self.difference)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What has become of a record.

    Attributes:
        source: the record's file name.
        lines: the rows that both have.
        added, missing: labels of the rows that only the sweep or the record has.
        differences: of code, versions, machine and settings, in one line each.
    """

    source: str
    lines: tuple[Line, ...]
    added: tuple[str, ...]
    missing: tuple[str, ...]
    differences: tuple[str, ...]


def compare(now: Sweep, then: Sweep) -> Comparison:
    """Holds the finished rows of a sweep against a record."""
    rows = {table.key(row.axes): row for row in table.rows(now) if row.done}
    old = {table.key(row.axes): row for row in table.rows(then) if row.done}
    lines = [_line(row, old[place]) for place, row in rows.items() if place in old]
    return Comparison(
        source=then.directory.name,
        lines=tuple(lines),
        added=tuple(row.label for place, row in rows.items() if place not in old),
        missing=tuple(row.label for place, row in old.items() if place not in rows),
        differences=(
            _environments(now, then),
            *_settings(now, then),
        ),
    )


def _line(now: Row, then: Row) -> Line:
    new, old = table.errors(now.points), table.errors(then.points)
    both = [seed for seed in new if seed in old]
    # a record rounds errors to four decimals
    exact = all(abs(new[seed] - old[seed]) < 1e-4 for seed in both)
    difference = table.compared(now.points, then.points)
    return Line(now, then, difference, len(both), bool(both) and exact)


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison says, and what it leaves out."""
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
            said.append(f"{who}: {some(labels)}.")
    return [*said, *comparison.differences]


def cells(comparison: Comparison) -> list[dict[str, str]]:
    """The lines as text: label, seeds, then, now, difference, verdict."""
    lines = comparison.lines
    columns = [
        table.aligned(table.plus_minus(line.then.error, 2) for line in lines),
        table.aligned(table.plus_minus(line.now.error, 2) for line in lines),
        table.aligned(
            table.plus_minus(line.difference, 2, sign=True) for line in lines
        ),
    ]
    return [
        {
            "label": line.now.label + (table.DAGGER if line.now.other_code else ""),
            "seeds": str(line.seeds),
            "then": then,
            "now": now,
            "difference": difference,
            "verdict": line.verdict,
        }
        for line, then, now, difference in zip(lines, *columns, strict=True)
    ]


def _environments(now: Sweep, then: Sweep) -> str:
    """What differs in code, versions and machine, in one line."""
    new, old = (provenance.environment(sweep.points) for sweep in (now, then))
    parts = _changes(old, new)
    if not parts:
        return "Code, versions and machine are the same."
    return f"Then and now: {'; '.join(parts)}."


def _settings(now: Sweep, then: Sweep) -> list[str]:
    """The settings that differ between rows that both have, in one line."""
    configs = lambda sweep: {
        table.key(row.axes): diff.flat(provenance.first_config(row))
        for row in table.rows(sweep)
        if row.done
    }
    new, old = configs(now), configs(then)
    found: dict[str, None] = {}
    for place in new.keys() & old.keys():
        if new[place] and old[place]:
            both = {name: old[place].get(name) for name in {**old[place], **new[place]}}
            found |= dict.fromkeys(_changes(both, new[place], skip=("seed",)))
    if not found:
        return []
    return [f"Settings then and now: {'; '.join(sorted(found))}."]


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], skip: Sequence[str] = ()
) -> list[str]:
    show = lambda value: table.DASH if value is None else table.text(value)
    # "slots": {} and no slots are the same
    plain = lambda value: table.key(None if value == {} else value)
    return [
        f"{name.removeprefix('packages.')} {show(old.get(name))} \N{RIGHTWARDS ARROW}"
        f" {show(new.get(name))}"
        for name in {**old, **new}
        if name not in skip and plain(old.get(name)) != plain(new.get(name))
    ]
