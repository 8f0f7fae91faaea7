"""Rows of a table: one for each value of the axes other than the seed."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attn.report.analyse import comparison, decision, numbers, statistics
from attn.report.analyse.comparison import Difference, Sample
from attn.report.analyse.decision import Decision
from attn.report.analyse.statistics import Interval
from attn.report.read.metrics import SHARE, Metric
from attn.report.read.results import SEED, Point, Sweep, key, usual_code

# Beyond this many rows a sweep is laid out by one of its axes, with few values.
MANY, FEW = 12, 6


@dataclasses.dataclass(frozen=True)
class Row:
    """One configuration over its seeds.

    Attributes:
        axes: its values of the axes other than the seed.
        label: those values as text.
        column: its value of the axis that `column_axis` names, as text; None if there
            is no such axis.
        kind: the label without the column; rows of one kind look alike in plots.
        family: the part of the kind that the baseline leaves open: the rows of one
            family and column are compared to one baseline.
        variant: the part of the kind that the baseline decides.
        points: its points, finished or not.
        baseline: whether other rows are compared to it.
        metric: the headline of its sweep.
        values: of each metric on the test split, over the finished points.
        measures: the same of what was measured of its attention.
        samples: what differences of these metrics are made of.
        compared: headline minus that of the baseline; None for the baseline itself,
            without one, or when one of both has no finished point.
        decision: what that says among the other rows.
        ms_per_step: milliseconds a step over the finished points.
        other_code: finished points that ran another version of the code than most.
    """

    axes: Mapping[str, Any]
    label: str
    column: str | None
    kind: str
    family: str
    variant: str
    points: tuple[Point, ...]
    baseline: bool
    metric: Metric
    values: Mapping[str, Interval]
    measures: Mapping[str, Interval]
    samples: Mapping[str, Sample]
    compared: Difference | None
    decision: Decision | None
    ms_per_step: Interval | None
    other_code: tuple[Point, ...]

    @property
    def done(self) -> list[Point]:
        """Its finished points."""
        return [point for point in self.points if point.result is not None]

    @property
    def headline(self) -> Interval | None:
        """The value of the headline, None if no point is finished."""
        return self.values.get(self.metric.name)

    @property
    def difference(self) -> Interval | None:
        """The difference to the baseline with its interval at 95 %."""
        found = self.compared
        if found is None:
            return None
        return Interval(found.mean, found.half(), min(found.row, found.baseline))

    @property
    def verdict(self) -> str:
        """What the difference says, corrected for the rows; "" without one."""
        return self.decision.verdict if self.decision else ""

    @property
    def uncorrected(self) -> str:
        """What it says by itself; "" without one."""
        return self.decision.uncorrected if self.decision else ""

    def cost(self, name: str) -> int | None:
        """The "parameters" or "macs" of one finished point: seeds do not change it."""
        costs = [getattr(point.result, name) for point in self.done]
        return next((cost for cost in costs if cost is not None), None)


def rows(sweep: Sweep) -> list[Row]:
    """The rows of a sweep, in the order in which its points name them.

    Those of one column follow each other.
    """
    groups = {key(points[0].place): points for points in sweep.groups}
    column, usual = column_axis(sweep), usual_code(sweep.points)
    made = [_row(sweep, place, groups, column, usual) for place in groups]
    made = _decided(sweep, made)
    order = list(dict.fromkeys(row.column for row in made))
    return sorted(made, key=lambda row: order.index(row.column))


def _decided(sweep: Sweep, rows: Sequence[Row]) -> list[Row]:
    """The rows with their differences to the baselines and what these decide."""
    base = {key(row.axes): row for row in rows}
    compared = []
    for row in rows:
        other = base.get(key({**row.axes, **sweep.baseline}))
        found = None
        if sweep.baseline and other is not None and other is not row:
            found = between(row, other, sweep.headline)
        compared.append(found)
    known = [found for found in compared if found is not None]
    better = "higher" if sweep.headline.better == "higher" else "lower"
    decisions = iter(decision.decide(known, better, rope=sweep.rope))
    return [
        dataclasses.replace(row, compared=found, decision=next(decisions))
        if found is not None
        else row
        for row, found in zip(rows, compared, strict=True)
    ]


def between(row: Row, other: Row, metric: Metric) -> Difference | None:
    """A metric of a row minus that of another one."""
    if metric.name not in row.samples or metric.name not in other.samples:
        return None
    sides = row.samples[metric.name], other.samples[metric.name]
    return comparison.difference(*sides, share=metric.kind == SHARE)


def column_axis(sweep: Sweep) -> str | None:
    """The axis by whose values tables and plots are laid out side by side.

    It is that of the columns of the published table. Without one, a sweep of more
    than MANY rows takes the last of several axes that has few values.
    """
    named = (sweep.published or {}).get("columns")
    names = axes(sweep)
    if named is not None:
        return named if named in names else None
    values = {
        name: {key(point.axes.get(name)) for point in sweep.points} for name in names
    }
    few = [name for name in names if 1 < len(values[name]) <= FEW]
    compared = [name for name in few if name not in sweep.baseline]
    many = len(sweep.groups) > MANY and len(names) > 1
    return compared[-1] if many and compared else None


def axes(sweep: Sweep) -> list[str]:
    """The names of the axes other than the seed."""
    return [axis for axis in sweep.axes if axis != SEED]


def _row(
    sweep: Sweep,
    own: str,
    groups: Mapping[str, Sequence[Point]],
    column: str | None,
    usual: str | None,
) -> Row:
    points = groups[own]
    place = points[0].place
    reference = key({**place, **sweep.baseline})
    kind = [axis for axis in place if axis != column]
    return Row(
        axes=place,
        label=label(place) or sweep.name,
        column=numbers.text(place[column]) if column in place else None,
        kind=label(place, kind) or sweep.name,
        family=label(place, [axis for axis in kind if axis not in sweep.baseline]),
        variant=label(place, [axis for axis in kind if axis in sweep.baseline]),
        points=tuple(points),
        baseline=bool(sweep.baseline) and reference == own,
        metric=sweep.headline,
        values=_intervals(sweep.metrics, lambda m: values(points, m).values()),
        measures=_intervals(sweep.measures, lambda m: _measured(points, m)),
        samples={m.name: _sample(sweep, points, m) for m in sweep.metrics},
        compared=None,
        decision=None,
        ms_per_step=statistics.interval(_speeds(points)),
        other_code=tuple(p for p in points if p.result and {*p.codes} - {usual}),
    )


def _sample(sweep: Sweep, points: Sequence[Point], metric: Metric) -> Sample:
    """Values of a metric over the finished ones of some points."""
    counts = [p.result.examples for p in points if p.result and p.result.examples]
    recorded = sweep.outcomes.get(metric.name, {})
    return Sample(
        tuple(values(points, metric).values()),
        min(counts, default=None),
        recorded.get(key(points[0].place)),
    )


def _intervals(
    metrics: Iterable[Metric], of: Callable[[Metric], Iterable[float]]
) -> dict[str, Interval]:
    found = {metric.name: statistics.interval(of(metric)) for metric in metrics}
    return {name: interval for name, interval in found.items() if interval is not None}


def _measured(points: Iterable[Point], measure: Metric) -> list[float]:
    found = [p.result.measured.get(measure.name) for p in points if p.result]
    return [value for value in found if value is not None]


def _speeds(points: Iterable[Point]) -> list[float]:
    found = [point.result.ms_per_step for point in points if point.result]
    return [speed for speed in found if speed is not None]


def label(place: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """Some values of axes as text, all of them unless they are named.

    A value that is no name, such as a number, stands behind that of its axis.
    """
    names = place if names is None else names
    shown = (
        place[name]
        if isinstance(place[name], str)
        else f"{name} {numbers.text(place[name])}"
        for name in names
    )
    return " \N{MIDDLE DOT} ".join(shown)


def values(points: Iterable[Point], metric: Metric) -> dict[str, float]:
    """A metric on the test split of the finished ones of some points, by seed."""
    return {
        key(p.seed): p.result.values[metric.name]
        for p in points
        if p.result is not None and metric.name in p.result.values
    }
