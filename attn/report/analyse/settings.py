"""Settings and environments of a sweep as text: what rows differ in, and share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from attn.report.analyse import numbers
from attn.report.analyse.numbers import DASH
from attn.report.analyse.table import Row
from attn.report.read import provenance
from attn.report.read.provenance import Setting
from attn.report.read.results import Point, Sweep


@dataclasses.dataclass(frozen=True)
class Listing:
    """A table of settings: names of the columns, then lines of name and values."""

    heads: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def listings(rows: Sequence[Row]) -> list[Listing]:
    """The settings in which rows differ, as tables that are not too wide.

    Of a sweep with columns there are three: the settings that the column decides,
    those that the kind of the row decides, and those that take both.
    """
    settings = provenance.varying([row.points for row in rows])
    columns = list(dict.fromkeys(row.column for row in rows))
    kinds = list(dict.fromkeys(row.kind for row in rows))
    if columns == [None]:
        lines = tuple((one.name, tuple(_shown(one, len(rows)))) for one in settings)
        return [Listing(tuple(kinds), lines)] if settings else []
    by_column, by_kind, by_both = [], [], []
    for one in settings:
        shown = list(zip(rows, _shown(one, len(rows)), strict=True))
        of_column = {(row.column, value) for row, value in shown}
        of_kind = {(row.kind, value) for row, value in shown}
        if len(of_column) == len(columns):
            by_column.append((one.name, tuple(dict(of_column)[c] for c in columns)))
        elif len(of_kind) == len(kinds):
            by_kind.append((one.name, tuple(dict(of_kind)[k] for k in kinds)))
        else:
            at = {(row.kind, row.column): value for row, value in shown}
            by_both += [
                (f"{one.name}, {k}", tuple(at.get((k, c), DASH) for c in columns))
                for k in kinds
            ]
    wide = [
        Listing(tuple(map(str, columns)), tuple(by_column)),
        Listing(tuple(kinds), tuple(by_kind)),
        Listing(tuple(map(str, columns)), tuple(by_both)),
    ]
    return [listing for listing in wide if listing.lines]


def _shown(setting: Setting, count: int) -> list[str]:
    """The values of a setting at each of some places, a dash where there is none."""
    values = setting.values
    return [numbers.text(values[i]) if i in values else DASH for i in range(count)]


def shared(sweep: Sweep) -> list[tuple[str, str]]:
    """The settings that all points share, as (name, value) texts."""
    common = provenance.common(sweep.points)
    return [(name, numbers.text(value)) for name, value in common.items()]


def environment(points: Sequence[Point]) -> dict[str, str]:
    """Code, versions and machine: each with its value, or values and who had them."""
    facts = {point.name: provenance.facts(point) for point in points if point.starts}
    names = dict.fromkeys(name for each in facts.values() for name in each)
    return {
        name: _by_point({point: each.get(name, []) for point, each in facts.items()})
        for name in names
        if any(value for each in facts.values() for value in each.get(name, ()))
    }


def _by_point(facts: Mapping[str, Sequence[Any]]) -> str:
    """The most usual value of a fact, then the others with the points that had them."""
    groups: dict[str, list[str]] = {}
    for point, values in facts.items():
        shown = " and then ".join(map(numbers.text, values or [None]))
        groups.setdefault(shown, []).append(point)
    usual = max(groups, key=lambda value: len(groups[value]))
    rest = (
        f"{value} in {numbers.listed(who)}"
        for value, who in groups.items()
        if value != usual
    )
    return "; ".join([usual, *rest])
