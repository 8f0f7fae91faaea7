"""How points were run: settings in which they differ, those they share, machines."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from attn.report.analyse import summary, table
from attn.report.analyse.table import Row
from attn.report.read.results import Point, Sweep
from attn.workdir import diff

TIME_KEYS = ("started", "time", "date", "when")
# What an environment says is shown apart from these, which every point has its own.
OWN_KEYS = (*TIME_KEYS, "hostname", "pid", "argv", "command", "workdir")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting in which rows differ: its name and its value by place of the row."""

    name: str
    raw: Mapping[int, Any]

    def shown(self, place: int) -> str:
        """The value of a row as text, a dash if it has none."""
        return table.text(self.raw[place]) if place in self.raw else table.DASH


def varying(rows: Sequence[Row]) -> list[Setting]:
    """The settings in which rows differ.

    Those that differ within a row, as the seed does, are not told.
    """
    firsts = [diff.flat(first_config(row)) for row in rows]
    own = {
        name
        for row in rows
        for name in _differing([diff.flat(p.config) for p in row.points])
    }
    differing = [name for name in _differing(firsts) if name not in own]
    # "slots": {} in some rows tells no more than the slots that others fill
    empty = lambda name: all(flat.get(name, {}) == {} for flat in firsts)
    return [
        Setting(name, {i: f[name] for i, f in enumerate(firsts) if name in f})
        for name in differing
        if not empty(name)
    ]


@dataclasses.dataclass(frozen=True)
class Listing:
    """A table of settings: names of the columns, then lines of name and values."""

    heads: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def listings(rows: Sequence[Row]) -> list[Listing]:
    """The settings in which rows differ as tables that are not too wide.

    Of a sweep with columns there are three: the settings that the column decides,
    those that the kind of the row decides, and those that take both.
    """
    settings = varying(rows)
    columns = list(dict.fromkeys(row.column for row in rows))
    kinds = list(dict.fromkeys(row.kind for row in rows))
    if columns == [None]:
        cells = lambda one: tuple(one.shown(i) for i in range(len(rows)))
        found = Listing(tuple(kinds), tuple((s.name, cells(s)) for s in settings))
        return [found] if settings else []
    by_column, by_kind, by_both = [], [], []
    for one in settings:
        shown = [one.shown(i) for i in range(len(rows))]
        of = lambda part, shown=shown: {
            (getattr(row, part), value) for row, value in zip(rows, shown, strict=True)
        }
        if len(of("column")) == len(columns):
            by_column.append((one.name, tuple(_by(of("column"), columns))))
        elif len(of("kind")) == len(kinds):
            by_kind.append((one.name, tuple(_by(of("kind"), kinds))))
        else:
            at = {(r.kind, r.column): v for r, v in zip(rows, shown, strict=True)}
            by_both += [
                (
                    f"{one.name}, {kind}",
                    tuple(at.get((kind, c), table.DASH) for c in columns),
                )
                for kind in kinds
            ]
    wide = [
        Listing(tuple(map(str, columns)), tuple(by_column)),
        Listing(tuple(kinds), tuple(by_kind)),
        Listing(tuple(map(str, columns)), tuple(by_both)),
    ]
    return [listing for listing in wide if listing.lines]


def _by(pairs: set[tuple[Any, str]], names: Sequence[Any]) -> list[str]:
    values = dict(pairs)
    return [values[name] for name in names]


def first_config(row: Row) -> Mapping[str, Any]:
    """The config of the first point of a row that has one."""
    return next((point.config for point in row.points if point.config), {})


def common(points: Sequence[Point]) -> dict[str, Any]:
    """The settings that all points share, by dotted path."""
    flats = [diff.flat(point.config) for point in points if point.config]
    if not flats:
        return {}
    differ = set(_differing(flats))
    return {name: value for name, value in flats[0].items() if name not in differ}


def shared(sweep: Sweep) -> list[tuple[str, str]]:
    """The settings that all points share, as (name, value) texts."""
    return [(name, table.text(v)) for name, v in common(sweep.points).items()]


def _differing(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    flats = [flat for flat in flats if flat]
    names = dict.fromkeys(name for flat in flats for name in flat)
    absent = object()
    return [
        name
        for name in names
        if any(flat.get(name, absent) != flats[0].get(name, absent) for flat in flats)
    ]


def environment(points: Sequence[Point]) -> dict[str, str]:
    """What ran where: each fact with its value, or with the values and who had them."""
    flats = {p.name: diff.flat(p.environment) for p in points if p.environment}
    facts = {}
    for name in dict.fromkeys(name for flat in flats.values() for name in flat):
        if name in OWN_KEYS or not any(flat.get(name) for flat in flats.values()):
            continue
        groups: dict[str, list[str]] = {}
        for point, flat in flats.items():
            groups.setdefault(table.text(flat.get(name)), []).append(point)
        usual = max(groups, key=lambda value: len(groups[value]))
        rest = [
            f"{value} in {summary.some(who)}"
            for value, who in groups.items()
            if value != usual
        ]
        facts[name] = "; ".join([usual, *rest])
    return facts


def when(points: Sequence[Point]) -> str | None:
    """The first start of a point: as its environment tells, else from its file."""
    for point in points:
        for key in TIME_KEYS:
            if isinstance(point.environment.get(key), str):
                time = point.environment[key]
                zone = " UTC" if time.endswith(("+00:00", "Z")) else ""
                return time.replace("T", " ")[:16] + zone
        path = point.directory / "environment.json"
        if path.is_file():
            time = datetime.datetime.fromtimestamp(path.stat().st_mtime)
            return time.strftime("%Y-%m-%d %H:%M")
    return None
