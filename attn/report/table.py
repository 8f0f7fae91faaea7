"""The table: one row for each value of the axes other than the seed."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from attn.report import statistics
from attn.report.results import SEED, Point, Sweep
from attn.report.statistics import Interval

FIGURE_SPACE = "\N{FIGURE SPACE}"
MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
DASH = "\N{EN DASH}"
DAGGER = "\N{DAGGER}"


@dataclasses.dataclass(frozen=True)
class Row:
    """Everything that is said about one configuration over its seeds.

    Attributes:
        axes: its values of the axes other than the seed.
        label: those values as text.
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
    """The rows of a sweep, in the order in which its points name them."""
    groups: dict[str, list[Point]] = {}
    for point in sweep.points:
        groups.setdefault(_key(_place(point.axes)), []).append(point)
    usual = usual_code(sweep.points)
    return [_row(sweep, key, groups, usual) for key in groups]


def usual_code(points: Iterable[Point]) -> str | None:
    """The version of the code that most finished points ran, None if none tells."""
    codes = [point.code for point in points if point.result and point.code]
    return max(codes, key=codes.count, default=None)


def axes(sweep: Sweep) -> list[str]:
    """The names of the axes other than the seed."""
    return [axis for axis in sweep.axes if axis != SEED]


def _row(
    sweep: Sweep, key: str, groups: Mapping[str, list[Point]], usual: str | None
) -> Row:
    points = groups[key]
    place = _place(points[0].axes)
    reference = _key({**place, **sweep.baseline})
    is_baseline = bool(sweep.baseline) and reference == key
    difference = None
    if sweep.baseline and not is_baseline:
        base = groups.get(reference, [])
        difference = statistics.paired(_errors(points), _errors(base))
    done = [point for point in points if point.result is not None]
    speeds = [point.result.ms_per_step for point in done]
    return Row(
        axes=place,
        label=" \N{MIDDLE DOT} ".join(map(text, place.values())) or sweep.name,
        points=tuple(points),
        baseline=is_baseline,
        error=statistics.interval(_errors(points).values()),
        difference=difference,
        verdict=statistics.verdict(difference) if difference else "",
        ms_per_step=statistics.interval(speed for speed in speeds if speed is not None),
        other_code=tuple(p for p in done if p.code is not None and p.code != usual),
    )


def _errors(points: Iterable[Point]) -> dict[Any, float]:
    return {_key(p.seed): p.result.error for p in points if p.result is not None}


def _place(values: Mapping[str, Any]) -> dict[str, Any]:
    return {axis: value for axis, value in values.items() if axis != SEED}


def _key(value: Any) -> str:
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
            "parameters": _integer(row.cost("parameters")),
            "macs": _scaled(row.cost("macs"), factor),
            "ms_per_step": speed,
            "mark": DAGGER if row.other_code else "",
        }
        for row, error, difference, speed in zip(
            rows, errors, differences, speeds, strict=True
        )
    ]


def summary(rows: Iterable[Row]) -> list[str]:
    """What the table says, in sentences."""
    rows = [row for row in rows if row.error is not None]
    if not rows:
        return ["No point is finished yet."]
    best = min(rows, key=lambda row: row.error.mean)
    said = [
        f"The lowest mean test error is {plus_minus(best.error, 2)} %, {best.label}."
    ]
    baseline = next((row.label for row in rows if row.baseline), None)
    for word, sense in (
        ("lower", "Lower than"),
        ("higher", "Higher than"),
        ("not distinguishable", "Not distinguishable from"),
    ):
        labels = [row.label for row in rows if row.verdict == word]
        if labels and baseline:
            said.append(f"{sense} {baseline}: {', '.join(labels)}.")
    return said


def notes(sweep: Sweep, rows: Iterable[Row]) -> list[str]:
    """What a reader of the table must know to read it rightly."""
    rows = list(rows)
    said = []
    seeds = [len(row.done) for row in rows]
    if any(count > 1 for count in seeds):
        said.append(
            f"{PLUS_MINUS} is half the width of a 95 % interval over seeds (Student t)."
        )
    if 1 in seeds:
        alone = [row.label for row in rows if len(row.done) == 1]
        who = "Every row has" if len(alone) == len(rows) else f"{', '.join(alone)}:"
        said.append(f"{who} one seed only, so no interval.")
    compared = [row for row in rows if row.difference is not None]
    if sweep.baseline and not any(row.baseline for row in rows):
        named = ", ".join(f"{k} = {text(v)}" for k, v in sweep.baseline.items())
        said.append(f"The baseline ({named}) is not among the points.")
    if any(row.difference.half is not None for row in compared):
        said.append(
            "A difference is taken seed by seed; it is not distinguishable where its"
            " interval includes zero."
        )
        if len(compared) > 1:
            said.append(
                f"Each of the {len(compared)} intervals is at 95 % by itself, without"
                " correction for their number."
            )
    usual = usual_code(sweep.points)
    for row in rows:
        for point in row.other_code:
            said.append(
                f"{DAGGER} {point.name} ran code {point.code}, most ran {usual}."
            )
    return said


def _integer(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _scaled(value: int | None, factor: float) -> str:
    return DASH if value is None else number(value / factor, 2 if factor > 1 else 0)
