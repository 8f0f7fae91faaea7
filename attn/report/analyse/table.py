"""The table: one row for each value of the axes other than the seed."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attn.report.analyse import statistics
from attn.report.analyse.statistics import Interval
from attn.report.read.results import SEED, Point, Sweep

FIGURE_SPACE = "\N{FIGURE SPACE}"
MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
DASH = "\N{EN DASH}"
DAGGER = "\N{DAGGER}"
# Beyond this many rows a sweep is laid out by one of its axes, with few values.
MANY, FEW = 12, 6


@dataclasses.dataclass(frozen=True)
class Row:
    """Everything that is said about one configuration over its seeds.

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
        error: test error in percent over the finished points.
        difference: error minus that of the baseline, paired by seed; None for the
            baseline itself, without one, or when no seed is finished in both.
        verdict: what the difference says in words, "" where there is none.
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
    error: Interval | None
    difference: Interval | None
    verdict: str
    ms_per_step: Interval | None
    other_code: tuple[Point, ...]

    @property
    def done(self) -> list[Point]:
        """Its finished points."""
        return [point for point in self.points if point.result is not None]

    def cost(self, name: str) -> int | None:
        """The "parameters" or "macs" of one finished point: seeds do not change it."""
        costs = [getattr(point.result, name) for point in self.done]
        return next((cost for cost in costs if cost is not None), None)


def rows(sweep: Sweep) -> list[Row]:
    """The rows of a sweep, in the order in which its points name them.

    Those of one column follow each other.
    """
    groups: dict[str, list[Point]] = {}
    for point in sweep.points:
        groups.setdefault(key(_place(point.axes)), []).append(point)
    usual = usual_code(sweep.points)
    column = column_axis(sweep)
    made = [_row(sweep, place, groups, usual, column) for place in groups]
    order = list(dict.fromkeys(row.column for row in made))
    return sorted(made, key=lambda row: order.index(row.column))


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
    count = len({key(_place(point.axes)) for point in sweep.points})
    few = [name for name in names if 1 < len(values[name]) <= FEW]
    compared = [name for name in few if name not in sweep.baseline]
    return compared[-1] if count > MANY and len(names) > 1 and compared else None


def usual_code(points: Iterable[Point]) -> str | None:
    """The version of the code that most finished points ran, None if none tells."""
    codes = [point.code for point in points if point.result and point.code]
    return max(codes, key=codes.count, default=None)


def axes(sweep: Sweep) -> list[str]:
    """The names of the axes other than the seed."""
    return [axis for axis in sweep.axes if axis != SEED]


def _row(
    sweep: Sweep,
    own: str,
    groups: Mapping[str, list[Point]],
    usual: str | None,
    column: str | None,
) -> Row:
    points = groups[own]
    place = _place(points[0].axes)
    reference = key({**place, **sweep.baseline})
    is_baseline = bool(sweep.baseline) and reference == own
    difference = None
    if sweep.baseline and not is_baseline:
        base = groups.get(reference, [])
        difference = compared(points, base)
    done = [point for point in points if point.result is not None]
    speeds = [point.result.ms_per_step for point in done]
    kind = [axis for axis in place if axis != column]
    return Row(
        axes=place,
        label=label(place) or sweep.name,
        column=text(place[column]) if column in place else None,
        kind=label(place, kind) or sweep.name,
        family=label(place, [axis for axis in kind if axis not in sweep.baseline]),
        variant=label(place, [axis for axis in kind if axis in sweep.baseline]),
        points=tuple(points),
        baseline=is_baseline,
        error=statistics.interval(errors(points).values()),
        difference=difference,
        verdict=statistics.verdict(difference) if difference else "",
        ms_per_step=statistics.interval(speed for speed in speeds if speed is not None),
        other_code=tuple(p for p in done if p.code is not None and p.code != usual),
    )


def label(place: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """Some values of axes as text, all of them unless they are named.

    A value that is no name, such as a number, stands behind that of its axis.
    """
    names = place if names is None else names
    shown = (
        place[name] if isinstance(place[name], str) else f"{name} {text(place[name])}"
        for name in names
    )
    return " \N{MIDDLE DOT} ".join(shown)


def errors(points: Iterable[Point]) -> dict[str, float]:
    """The test errors of the finished ones of some points, by seed."""
    return {key(p.seed): p.result.error for p in points if p.result is not None}


def compared(points: Sequence[Point], others: Sequence[Point]) -> Interval | None:
    """The errors of some points minus those of others, paired by seed."""
    done = [point.result for point in (*points, *others) if point.result is not None]
    counts = [result.examples for result in done if result.examples]
    return statistics.paired(
        errors(points), errors(others), examples=min(counts, default=None)
    )


def _place(values: Mapping[str, Any]) -> dict[str, Any]:
    return {axis: value for axis, value in values.items() if axis != SEED}


def key(value: Any) -> str:
    """Values of axes in a form that is equal where they are, in JSON or not."""
    return json.dumps(value, sort_keys=True, default=str)


def text(value: Any) -> str:
    """A setting as it is shown: strings bare, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with a true minus sign, and a plus too if `sign`."""
    shown = f"{value:{'+' if sign else ''},.{digits}f}"
    if float(shown.replace(",", "")) == 0:
        shown = shown.lstrip("+-")
    return shown.replace("-", MINUS)


def plus_minus(interval: Interval | None, digits: int, *, sign: bool = False) -> str:
    """ "3.20 +- 0.41", the mean alone where there is one value, a dash for none."""
    if interval is None:
        return DASH
    mean = number(interval.mean, digits, sign=sign)
    if interval.half is None:
        return mean
    return f"{mean} {PLUS_MINUS} {number(interval.half, digits)}"


def aligned(cells: Iterable[str]) -> list[str]:
    """Pads the part after the plus-minus sign, so that the signs stand in a line."""
    parts = [cell.partition(f" {PLUS_MINUS} ") for cell in cells]
    widest = max((len(sign + half) for _, sign, half in parts), default=0)
    return [
        mean + sign + FIGURE_SPACE * (widest - len(sign + half)) + half
        for mean, sign, half in parts
    ]


def unit(values: Iterable[float | None]) -> tuple[float, str]:
    """The factor and prefix in which the largest value has one to three digits."""
    largest = max((value for value in values if value is not None), default=0)
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= factor:
            return factor, prefix
    return 1.0, ""


def span(low: float, high: float) -> tuple[str, str]:
    """Two ends of a scale as text, with three figures of what lies between them."""
    between = high - low or abs(high) or 1.0
    digits = max(0, 2 - math.floor(math.log10(between)))
    return number(low, digits), number(high, digits)


def duration(seconds: float) -> str:
    """A time such as "42 s", "3 min 05 s" or "2 h 07 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def cells(rows: Iterable[Row]) -> list[dict[str, str]]:
    """The columns of each row as text, numbers aligned within a column.

    The columns are seeds, error (percent), difference (points of percent), verdict,
    parameters, macs (in the unit of `unit`), ms_per_step, and mark: DAGGER where a
    point ran another version of the code than most.
    """
    rows = list(rows)
    factor, _ = unit(row.cost("macs") for row in rows)
    errors = aligned(plus_minus(row.error, 2) for row in rows)
    differences = aligned(plus_minus(row.difference, 2, sign=True) for row in rows)
    speeds = aligned(plus_minus(row.ms_per_step, 1) for row in rows)
    return [
        {
            "seeds": f"{len(row.done)} of {len(row.points)}"
            if len(row.done) < len(row.points)
            else f"{len(row.points)}",
            "error": error,
            "difference": "baseline" if row.baseline else difference,
            "verdict": row.verdict,
            "parameters": integer(row.cost("parameters")),
            "macs": _scaled(row.cost("macs"), factor),
            "ms_per_step": speed,
            "mark": DAGGER if row.other_code else "",
        }
        for row, error, difference, speed in zip(
            rows, errors, differences, speeds, strict=True
        )
    ]


def integer(value: int | None) -> str:
    """A whole number with its thousands set apart, a dash for none."""
    return DASH if value is None else f"{value:,}"


def _scaled(value: int | None, factor: float) -> str:
    return DASH if value is None else number(value / factor, 2 if factor > 1 else 0)
