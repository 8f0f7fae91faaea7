"""Columns of a table as text: what is shown of each row, wherever it is shown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from attn.report.analyse import numbers
from attn.report.analyse.numbers import DAGGER
from attn.report.analyse.statistics import Interval
from attn.report.analyse.table import Row
from attn.report.read import provenance
from attn.report.read.metrics import Metric, head
from attn.report.read.results import Sweep

Role = Literal[
    "seeds", "headline", "difference", "verdict", "metric", "measure", "cost"
]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        role: what kind of figures it holds.
        name: of the metric, measure or cost; else that of the role.
        head: its heading without the unit.
        unit: "" if it has none.
        cells: a text for each row, numbers aligned.
    """

    role: Role
    name: str
    head: str
    unit: str
    cells: tuple[str, ...]

    @property
    def title(self) -> str:
        """Heading and unit."""
        return head(self.head, self.unit)


def columns(sweep: Sweep, rows: Sequence[Row]) -> list[Column]:
    """The columns of a sweep's table, from left to right.

    Differences and verdicts are there where a row is a baseline.
    """
    first, *others = sweep.metrics
    values = [row.values for row in rows]
    seeds = Column("seeds", "seeds", "seeds", "", tuple(_seeds(row) for row in rows))
    return [
        seeds,
        _metric("headline", first, values),
        *(_comparison(first, rows) if any(row.baseline for row in rows) else ()),
        *(_metric("metric", m, values) for m in others if _has(m, values)),
        *_costs(rows, timed=provenance.comparable(sweep.done)),
    ]


def measures(sweep: Sweep, rows: Sequence[Row]) -> list[Column]:
    """The columns of the table of measures of attention; none if none is recorded."""
    measured = [row.measures for row in rows]
    return [_metric("measure", measure, measured) for measure in sweep.measures]


def mark(row: Row) -> str:
    """A dagger where a point ran another version of the code than most."""
    return DAGGER if row.other_code else ""


def _seeds(row: Row) -> str:
    done, count = len(row.done), len(row.points)
    return f"{done} of {count}" if done < count else f"{count}"


def _has(metric: Metric, values: Sequence[Mapping[str, Interval]]) -> bool:
    """Whether it is measured: there may be no large objects, whose AP it is."""
    return any(metric.name in each for each in values) or not any(values)


def _metric(
    role: Role, metric: Metric, values: Sequence[Mapping[str, Interval]]
) -> Column:
    """A column of one metric or measure of each row."""
    label = metric.label if role == "measure" else f"test {metric.label}"
    cells = numbers.aligned(
        numbers.plus_minus(each.get(metric.name), metric.digits) for each in values
    )
    return Column(role, metric.name, label, metric.unit, tuple(cells))


def _comparison(metric: Metric, rows: Sequence[Row]) -> list[Column]:
    differences = numbers.aligned(
        numbers.plus_minus(row.difference, metric.digits, sign=True) for row in rows
    )
    cells = [
        "baseline" if row.baseline else difference
        for row, difference in zip(rows, differences, strict=True)
    ]
    unit = metric.difference_unit
    verdicts = tuple(row.verdict for row in rows)
    alone = tuple(row.uncorrected for row in rows)
    made = [
        Column("difference", "difference", "difference", unit, tuple(cells)),
        Column("verdict", "verdict", "verdict", "", verdicts),
    ]
    if alone != verdicts:
        made.append(Column("verdict", "uncorrected", "uncorrected", "", alone))
    return made


def _costs(rows: Sequence[Row], *, timed: bool) -> list[Column]:
    """Columns of costs, with times where these can be compared."""
    factor, prefix = numbers.unit(row.cost("macs") for row in rows)
    parameters = tuple(numbers.integer(row.cost("parameters")) for row in rows)
    macs = tuple(numbers.scaled(row.cost("macs"), factor) for row in rows)
    speeds = numbers.aligned(numbers.plus_minus(row.ms_per_step, 1) for row in rows)
    found = [
        Column("cost", "parameters", "parameters", "", parameters),
        Column("cost", "macs", "MACs", prefix, macs),
    ]
    if timed:
        found.append(Column("cost", "ms_per_step", "time", "ms/step", tuple(speeds)))
    return found
