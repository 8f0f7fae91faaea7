"""The table that a paper published and ours, in the same rows and columns.

The columns are the values of an axis, with a metric in them, or quantities such as the
error and the parameters. How the two order their rows is in `orders`.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attn.report.analyse import numbers, orders, table
from attn.report.analyse.numbers import DAGGER, DASH
from attn.report.analyse.orders import Agreement
from attn.report.analyse.statistics import Interval
from attn.report.analyse.table import Row
from attn.report.read.metrics import Metric
from attn.report.read.results import Sweep, key

# Costs of which a sweep knows its own, with their headings.
COSTS = {"parameters": "parameters", "macs": "MACs"}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of both tables.

    Attributes:
        name: in the paper's table, a value of the axis or a quantity.
        head: its heading.
        metric: whose values stand in it, None for a cost or what we do not measure.
        ranked: whether its values order the rows.
        digits: decimals with which the paper gives it.
    """

    name: str
    head: str
    metric: Metric | None
    ranked: bool
    digits: int

    @property
    def own(self) -> bool:
        """Whether a sweep knows its own values."""
        return self.metric is not None or self.name in COSTS


@dataclasses.dataclass(frozen=True)
class Cell:
    """A value of ours and the paper's.

    Attributes:
        column: in which it stands.
        row: of our table, None if the sweep has no such point.
        ours: None if no point of the row is finished, or if it is not known.
        theirs: None if the paper gives none.
    """

    column: Column
    row: Row | None
    ours: Interval | None
    theirs: float | None

    @property
    def complete(self) -> bool:
        """Whether there is a value on both sides."""
        return self.ours is not None and self.theirs is not None

    @property
    def mark(self) -> str:
        """A dagger where a point of ours ran another version of the code than most."""
        return DAGGER if self.row is not None and self.row.other_code else ""


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
        """Remark on what one of the two tables lacks."""
        if self.row is None:
            return "not among our points"
        if all(cell.theirs is None for cell in self.cells):
            return "not in the paper"
        return ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both tables.

    Attributes:
        source: where the paper's table stands.
        note: a remark on it, "" if there is none.
        axis: whose values the columns are, None if they are quantities.
        metric: the metric that orders the rows.
        columns, lines: of the table.
        agreements: one a column, None for those that order nothing.
        overall: pairs of all columns; its tau is the mean of theirs.
    """

    source: str
    note: str
    axis: str | None
    metric: Metric
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
    ours: dict[str, dict[str | None, Row]] = {}
    labels: dict[str, str] = {}
    for row in rows:
        place = {name: value for name, value in row.axes.items() if name != axis}
        labels.setdefault(key(place), table.label(place) or row.label)
        column = numbers.text(row.axes[axis]) if axis in row.axes else None
        ours.setdefault(key(place), {})[column] = row
    theirs: dict[str, Mapping[str, Any]] = {}
    for entry in record["rows"]:
        place = key(entry["axes"])
        theirs[place] = {**theirs.get(place, {}), **entry["values"]}
        labels.setdefault(place, table.label(entry["axes"]) or "all")
    if axis is None:
        columns = _quantities(sweep, _digits(theirs.values()))
    else:
        columns = _values(sweep, _digits(theirs.values()), ours.values())
    lines = tuple(
        Line(labels[place], _cells(columns, axis, ours.get(place), theirs.get(place)))
        for place in dict.fromkeys([*theirs, *ours])
    )
    agreements = [
        _agreement(c, [line.cells[i] for line in lines]) for i, c in enumerate(columns)
    ]
    ranked = next((c.metric for c in columns if c.ranked), None)
    return Comparison(
        source=str(record.get("source") or "the paper"),
        note=str(record.get("note") or ""),
        axis=axis,
        metric=ranked or sweep.headline,
        columns=columns,
        lines=lines,
        agreements=tuple(agreements),
        overall=orders.overall([one for one in agreements if one is not None]),
    )


def _digits(theirs: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The paper's columns in its order, with the decimals of their values."""
    found: dict[str, int] = {}
    for values in theirs:
        for name, value in values.items():
            digits = numbers.decimals(value) if _known(value) else 0
            found[str(name)] = max(found.get(str(name), 0), digits)
    return found


def _quantities(sweep: Sweep, digits: Mapping[str, int]) -> tuple[Column, ...]:
    """A column for each quantity of the paper; the headline orders the rows.

    Where the paper gives no headline, the first of our metrics does that it gives.
    """
    known = {name: _metric(sweep, name) for name in digits}
    order = [metric for metric in sweep.metrics if metric in known.values()]
    return tuple(
        Column(
            name=name,
            head=f"test {metric.head}" if metric else COSTS.get(name, name),
            metric=metric,
            ranked=metric is not None and metric == order[0],
            digits=digits[name],
        )
        for name, metric in known.items()
    )


def _values(
    sweep: Sweep,
    digits: Mapping[str, int],
    ours: Iterable[Mapping[str | None, Row]],
) -> tuple[Column, ...]:
    """A column for each value of the axis: the paper's, then those that only we have.

    In all of them stands the metric that the record names, the headline if none.
    """
    named = (sweep.published or {}).get("metric")
    metric = _metric(sweep, named) or sweep.headline
    names = {**digits, **{name: 0 for rows in ours for name in rows if name}}
    most = max(digits.values(), default=0)
    return tuple(Column(name, name, metric, True, most) for name in names)


def _metric(sweep: Sweep, name: Any) -> Metric | None:
    """The recorded metric of that name or label, None if there is none."""
    return next((m for m in sweep.metrics if name in (m.name, m.label)), None)


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _cells(
    columns: Iterable[Column],
    axis: str | None,
    ours: Mapping[str | None, Row] | None,
    theirs: Mapping[str, Any] | None,
) -> tuple[Cell, ...]:
    """A line of cells; without an axis our row is the same in all of them."""
    rows, values = ours or {}, theirs or {}
    return tuple(
        _cell(column, rows.get(column.name if axis else None), values.get(column.name))
        for column in columns
    )


def _cell(column: Column, row: Row | None, theirs: Any) -> Cell:
    ours = None
    if row is not None and column.metric is not None:
        ours = row.values.get(column.metric.name)
    elif row is not None and column.own:
        cost = row.cost(column.name)
        ours = None if cost is None else Interval(float(cost), None, len(row.done))
    return Cell(column, row, ours, float(theirs) if _known(theirs) else None)


def _agreement(column: Column, cells: Sequence[Cell]) -> Agreement | None:
    """Agreement of both orders of the rows of a column, None if it orders nothing."""
    if not column.ranked or column.metric is None:
        return None
    entries = [
        orders.Entry(cell.row, cell.ours.mean, cell.theirs)
        for cell in cells
        if cell.row is not None and cell.ours is not None and cell.theirs is not None
    ]
    return orders.agreement(entries, column.metric)


def best(comparison: Comparison) -> set[tuple[int, int]]:
    """Places (line, column) of our best value in each column, where that is sure.

    It does where the row's own difference to its baseline leaves zero out.
    """
    found = set()
    for i, column in enumerate(comparison.columns):
        if not column.ranked or column.metric is None:
            continue
        known = [
            (column.metric.rank(cell.ours.mean), k, cell.row)
            for k, cell in enumerate(line.cells[i] for line in comparison.lines)
            if cell.ours is not None and cell.row is not None
        ]
        _, k, row = min(known, key=lambda entry: entry[:2], default=(0, 0, None))
        if row is not None and row.metric == column.metric and row.verdict == "better":
            found.add((k, i))
    return found


def sentences(comparison: Comparison) -> list[str]:
    """Agreement of the orders, in words."""
    overall = comparison.overall
    if not overall.ordered and overall.tied:
        pairs = _pairs(overall.tied)
        return [f"To the {overall.tied} {pairs} of rows the paper gives equal values."]
    if not overall.ordered:
        return ["No pair of rows that the paper orders is finished among ours yet."]
    inside = " within a column" if comparison.axis else ""
    parts = [
        f"ours orders {overall.same} the same way",
        f"{overall.other} the other way",
        f"{overall.open} {_are(overall.open)} not distinguishable",
    ]
    if overall.single:
        parts.append(f"{overall.single} have a row of one seed")
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
            f"Kendall's tau-b between the two{over} is {numbers.number(overall.tau, 2)}"
            " (1: the same order, 0: unrelated)."
        )
    return said


def lacking(comparison: Comparison) -> list[str]:
    """Rows that one of the two tables lacks, in sentences."""
    found: dict[str, list[str]] = {}
    for line in comparison.lines:
        if line.remark:
            found.setdefault(line.remark, []).append(line.label)
    return [
        f"{remark.capitalize()}: {numbers.listed(labels)}."
        for remark, labels in found.items()
    ]


def _pairs(count: int) -> str:
    return "pair" if count == 1 else "pairs"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def ours(cell: Cell) -> str:
    """Our value as text, with its interval and a dagger for other code."""
    if cell.ours is None:
        return DASH
    if cell.column.metric is None:
        return _cost(cell.ours.mean, cell.column.name)
    return numbers.plus_minus(cell.ours, cell.column.metric.digits) + cell.mark


def theirs(cell: Cell) -> str:
    """The paper's value as text, with the digits it gives."""
    if cell.theirs is None:
        return DASH
    if cell.column.name in COSTS:
        return _cost(cell.theirs, cell.column.name)
    return numbers.number(cell.theirs, cell.column.digits)


def _cost(value: float, name: str) -> str:
    """A cost as text: exact where it is, else with the prefix of its size."""
    if name == "parameters" and value % 10_000:
        return numbers.integer(round(value))
    factor, prefix = numbers.unit([value])
    shown = round(value / factor, 2)
    return numbers.with_unit(numbers.number(shown, numbers.decimals(shown)), prefix)
