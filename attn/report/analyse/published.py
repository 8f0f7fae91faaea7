"""The table that a paper published and ours, in the same rows and columns.

Both are compared in the order of their rows: pair by pair, where a pair of ours counts
only if the interval of its difference, paired by seed, leaves zero out; and by
Kendall's tau-b (Kendall 1945) over the means, from FEWEST rows on. The columns are the
values of an axis, with test errors in them, or quantities such as the error and the
parameters.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy import stats

from attn.report.analyse import statistics, table
from attn.report.analyse.statistics import Interval
from attn.report.analyse.summary import some
from attn.report.analyse.table import Row
from attn.report.read.results import Sweep

# The quantities of which a sweep knows its own.
OWN = ("error", "parameters", "macs")
# Of three rows one order in six is the paper's by chance.
FEWEST = 4
HEADS = {"error": "test error, %", "macs": "MACs"}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: name, heading, whether its values order the rows, their decimals."""

    name: str
    head: str
    ranked: bool
    digits: int


@dataclasses.dataclass(frozen=True)
class Cell:
    """A value of ours and the paper's.

    Attributes:
        row: of our table, None if the sweep has no such point.
        ours: None if no point of the row is finished, or if it is not known.
        theirs: None if the paper gives none.
        quantity: "error" or what else it is.
        digits: decimals with which the paper gives this column.
    """

    row: Row | None
    ours: Interval | None
    theirs: float | None
    quantity: str
    digits: int = 2

    @property
    def complete(self) -> bool:
        """Whether there is a value on both sides."""
        return self.ours is not None and self.theirs is not None

    @property
    def mark(self) -> str:
        """A dagger where a point of ours ran another version of the code than most."""
        return table.DAGGER if self.row is not None and self.row.other_code else ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of both tables, with a cell for each column."""

    label: str
    cells: tuple[Cell, ...]

    @property
    def row(self) -> Row | None:
        """One of our rows in it, None if there is none."""
        return next((cell.row for cell in self.cells if cell.row is not None), None)

    @property
    def remark(self) -> str:
        """What one of the two tables lacks."""
        if self.row is None:
            return "not among our points"
        if all(cell.theirs is None for cell in self.cells):
            return "not in the paper"
        return ""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How two orders of the same rows agree.

    Attributes:
        same, other: pairs of rows that both order, alike or the other way round.
        open: pairs that the paper orders and ours cannot tell apart.
        single: pairs that the paper orders and that have less than two seeds in
            common, so that nothing can be said.
        tied: pairs to which the paper gives the same value.
        tau: Kendall's tau-b over the means, None below FEWEST rows or where an order
            has no two values.
        count: number of rows or cells that both have.
    """

    same: int
    other: int
    open: int
    single: int
    tied: int
    tau: float | None
    count: int

    @property
    def ordered(self) -> int:
        """Pairs that the paper orders."""
        return self.same + self.other + self.open + self.single


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both tables.

    Attributes:
        source: where the paper's table stands.
        note: what else is to be said about it, "" if nothing.
        axis: whose values the columns are, None if they are quantities.
        columns, lines: of the table.
        agreements: one a column, None for those that order nothing.
        overall: pairs of all columns; its tau is the mean of theirs.
    """

    source: str
    note: str
    axis: str | None
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    agreements: tuple[Agreement | None, ...]
    overall: Agreement


def compare(sweep: Sweep, rows: Sequence[Row]) -> Comparison | None:
    """The published table beside ours; None if the sweep has none.

    Rows of which one side knows nothing are part of it: first the paper's rows in
    its order, then those of ours that it lacks.
    """
    record = sweep.published
    if record is None or not record["rows"]:
        return None
    axis = record.get("columns")
    ours: dict[str, dict[str, Row]] = {}
    labels: dict[str, str] = {}
    for row in rows:
        place = {name: value for name, value in row.axes.items() if name != axis}
        labels.setdefault(table.key(place), table.label(place) or row.label)
        column = table.text(row.axes[axis]) if axis in row.axes else "error"
        ours.setdefault(table.key(place), {})[column] = row
    theirs: dict[str, Mapping[str, Any]] = {}
    for entry in record["rows"]:
        place = table.key(entry["axes"])
        theirs[place] = {**theirs.get(place, {}), **entry["values"]}
        labels.setdefault(place, table.label(entry["axes"]) or "all")
    columns = _columns(axis, theirs.values(), ours.values())
    lines = tuple(
        Line(
            labels[place],
            tuple(
                _cell(
                    _of(ours.get(place, {}), column, axis),
                    theirs.get(place, {}).get(column.name),
                    "error" if axis else column.name,
                    column.digits,
                )
                for column in columns
            ),
        )
        for place in dict.fromkeys([*theirs, *ours])
    )
    ranked = [
        [line.cells[i] for line in lines]
        for i, column in enumerate(columns)
        if column.ranked
    ]
    agreements = iter([_agreement(cells) for cells in ranked])
    return Comparison(
        source=str(record.get("source") or "the paper"),
        note=str(record.get("note") or ""),
        axis=axis,
        columns=columns,
        lines=lines,
        agreements=tuple(next(agreements) if c.ranked else None for c in columns),
        overall=_overall(ranked),
    )


def _columns(
    axis: str | None,
    theirs: Iterable[Mapping[str, Any]],
    ours: Iterable[Mapping[str, Row]],
) -> tuple[Column, ...]:
    """The paper's columns in its order, then, of an axis, those that only we have."""
    theirs = list(theirs)
    names = dict.fromkeys(str(name) for values in theirs for name in values)
    digits = {
        name: max(_digits(v[name]) for v in theirs if _known(v.get(name)))
        if any(_known(v.get(name)) for v in theirs)
        else 0
        for name in names
    }
    if axis is None:
        return tuple(
            Column(name, HEADS.get(name, name), name == "error", digits[name])
            for name in names
        )
    names |= dict.fromkeys(name for rows in ours for name in rows)
    most = max(digits.values(), default=0)
    return tuple(Column(name, name, True, most) for name in names)


def _of(rows: Mapping[str, Row], column: Column, axis: str | None) -> Row | None:
    """Our row in a column; without an axis a row has one for all quantities."""
    return rows.get(column.name if axis else "error")


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _cell(row: Row | None, theirs: Any, quantity: str, digits: int) -> Cell:
    ours = None
    if row is not None and quantity == "error":
        ours = row.error
    elif row is not None and quantity in OWN:
        cost = row.cost(quantity)
        ours = None if cost is None else Interval(float(cost), None, len(row.done))
    return Cell(row, ours, float(theirs) if _known(theirs) else None, quantity, digits)


def _agreement(cells: Sequence[Cell]) -> Agreement:
    """How the complete ones of some cells, one a row, are ordered on both sides."""
    both = [cell for cell in cells if cell.complete]
    counts = dict.fromkeys(("same", "other", "open", "single", "tied"), 0)
    for first, second in itertools.combinations(both, 2):
        counts[_order(first, second)] += 1
    return Agreement(**counts, tau=_tau(both), count=len(both))


def _order(first: Cell, second: Cell) -> str:
    """What two cells say about the order of their rows."""
    assert first.row is not None and second.row is not None
    assert first.theirs is not None and second.theirs is not None
    if first.theirs == second.theirs:
        return "tied"
    difference = table.compared(first.row.points, second.row.points)
    verdict = "one seed" if difference is None else statistics.verdict(difference)
    if verdict == "one seed":
        return "single"
    if verdict == "not distinguishable":
        return "open"
    return (
        "same" if (verdict == "higher") == (first.theirs > second.theirs) else "other"
    )


def _tau(cells: Sequence[Cell]) -> float | None:
    pairs = [(cell.theirs, cell.ours.mean) for cell in cells if cell.ours is not None]
    if len(pairs) < FEWEST:
        return None
    if any(len({pair[side] for pair in pairs}) < 2 for side in (0, 1)):
        return None
    return float(stats.kendalltau(*zip(*pairs, strict=True)).statistic)


def _overall(ranked: Sequence[Sequence[Cell]]) -> Agreement:
    each = [_agreement(cells) for cells in ranked]
    counts = {
        name: sum(getattr(one, name) for one in each)
        for name in ("same", "other", "open", "single", "tied", "count")
    }
    # columns may be of quite different errors, as some data is harder than other
    taus = [one.tau for one in each if one.tau is not None]
    return Agreement(**counts, tau=sum(taus) / len(taus) if taus else None)


def best(comparison: Comparison) -> set[tuple[int, int]]:
    """Places (line, column) of our lowest error in each column, where that says much.

    It does where the row's own difference to its baseline leaves zero out.
    """
    found = set()
    for i, column in enumerate(comparison.columns):
        cells = [(line.cells[i], k) for k, line in enumerate(comparison.lines)]
        known = [
            (cell.ours.mean, k, cell) for cell, k in cells if cell.ours is not None
        ]
        if column.ranked and known:
            _, k, cell = min(known, key=lambda entry: entry[:2])
            if cell.row is not None and cell.row.verdict == "lower":
                found.add((k, i))
    return found


def sentences(comparison: Comparison) -> list[str]:
    """How the orders agree, in words."""
    overall = comparison.overall
    if not overall.ordered:
        return ["No pair of rows that the paper orders is finished among ours yet."]
    inside = " within a column" if comparison.axis else ""
    parts = [
        f"ours orders {overall.same} the same way",
        f"{overall.other} the other way",
        f"{overall.open} {_are(overall.open)} not distinguishable",
    ]
    if overall.single:
        parts.append(f"{overall.single} have less than two seeds in common")
    said = [
        f"Of the {overall.ordered} {_pairs(overall.ordered)} of rows that the paper"
        f" orders{inside}, {', '.join(parts)}."
    ]
    if overall.tied:
        more = f"{overall.tied} more {_pairs(overall.tied)}"
        said.append(f"To {more} the paper gives equal values.")
    if overall.tau is not None:
        over = ", mean over the columns," if comparison.axis else ""
        said.append(
            f"Kendall's tau-b between the two{over} is {table.number(overall.tau, 2)}"
            " (1: the same order, 0: unrelated)."
        )
    return said


def lacking(comparison: Comparison) -> list[str]:
    """Which rows one of the two tables lacks, in sentences."""
    found: dict[str, list[str]] = {}
    for line in comparison.lines:
        if line.remark:
            found.setdefault(line.remark, []).append(line.label)
    return [
        f"{remark.capitalize()}: {some(labels)}." for remark, labels in found.items()
    ]


def _pairs(count: int) -> str:
    return "pair" if count == 1 else "pairs"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def ours(cell: Cell) -> str:
    """Our value as text, with its interval and a dagger for other code."""
    if cell.ours is None:
        return table.DASH
    if cell.quantity == "error":
        return table.plus_minus(cell.ours, 2) + cell.mark
    return quantity(cell.ours.mean, cell.quantity)


def theirs(cell: Cell) -> str:
    """The paper's value as text, with the digits it gives."""
    if cell.theirs is None:
        return table.DASH
    if cell.quantity in ("parameters", "macs"):
        return quantity(cell.theirs, cell.quantity)
    return table.number(cell.theirs, cell.digits)


def quantity(value: float, name: str) -> str:
    """A cost as text: exact where it is, else with the prefix of its size."""
    if name == "parameters" and value % 10_000:
        return table.integer(round(value))
    factor, prefix = table.unit([value])
    shown = round(value / factor, 2)
    return f"{table.number(shown, _digits(shown))} {prefix}".strip()


def _digits(value: float) -> int:
    """Decimals of a number as it was written."""
    return len(f"{value:.10g}".partition(".")[2])
