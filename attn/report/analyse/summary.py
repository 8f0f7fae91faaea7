"""Summary of a table and notes on how to read it, in sentences."""

from collections.abc import Iterable, Sequence

from attn.report.analyse import numbers, tuning, verdicts
from attn.report.analyse.numbers import DAGGER, PLUS_MINUS
from attn.report.analyse.table import Row
from attn.report.read import provenance
from attn.report.read.metrics import Metric
from attn.report.read.results import Point, Sweep, usual_code

QUANTITIES = {"parameters": "parameters", "macs": "multiply-adds", "latency": "latency"}
TOLERANCES = {"latency": "5 %"}


def summary(rows: Iterable[Row]) -> list[str]:
    """The best rows, and how the others compare to the baseline."""
    rows = [row for row in rows if row.headline is not None]
    if not rows:
        return ["No point is finished yet."]
    return [_best(rows), *verdicts.summary(rows)]


def _best(rows: Sequence[Row]) -> str:
    columns = dict.fromkeys(row.column for row in rows)
    best = [_best_of([row for row in rows if row.column == c]) for c in columns]
    metric = rows[0].metric
    extreme = "highest" if metric.better == "higher" else "lowest"
    what = f"The {extreme} mean test {metric.label}"
    if len(best) == 1:
        return f"{what} is {_value(best[0])}, {best[0].label}."
    each = "; ".join(f"{row.column} {_value(row)} ({row.kind})" for row in best)
    return f"{what} in each column: {each}."


def _best_of(rows: Sequence[Row]) -> Row:
    return min(rows, key=lambda row: row.metric.rank(row.headline.mean))


def _value(row: Row) -> str:
    shown = numbers.plus_minus(row.headline, row.metric.digits)
    return numbers.with_unit(shown, row.metric.unit)


def directions(metrics: Iterable[Metric]) -> list[str]:
    """Directions of some metrics, in sentences."""
    labels: dict[str, list[str]] = {"higher": [], "lower": []}
    for metric in metrics:
        if metric.better in labels:
            labels[metric.better].append(metric.label)
    return [
        f"{better.capitalize()} is better: {', '.join(found)}."
        for better, found in labels.items()
        if found
    ]


def notes(sweep: Sweep, rows: Iterable[Row]) -> list[str]:
    """Notes that a reader of the table needs to read it rightly."""
    rows = list(rows)
    return [
        *_on_seeds(rows),
        *verdicts.notes(sweep, rows),
        *_on_metrics(sweep),
        *_on_match(sweep),
        *(tuning.sentences(sweep.tuning) if sweep.tuning else []),
        *_on_times(sweep),
        *_on_code(sweep, rows),
    ]


def _on_seeds(rows: Sequence[Row]) -> list[str]:
    said = []
    seeds = [len(row.done) for row in rows]
    if any(count > 1 for count in seeds):
        said.append(
            f"{PLUS_MINUS} is half the width of a 95 % interval, of a value over seeds."
        )
    if 1 in seeds:
        alone = [row for row in rows if len(row.done) == 1]
        every = len(alone) == len(rows)
        who = "Every row has" if every else f"{verdicts.named(alone, rows)}:"
        said.append(f"{who} one seed only, so no interval.")
    return said


def _on_metrics(sweep: Sweep) -> list[str]:
    """What is noted of the metrics, once where it is the same of several."""
    noted: dict[str, list[str]] = {}
    for metric in sweep.metrics:
        if metric.note:
            noted.setdefault(metric.note, []).append(metric.label)
    return [f"{', '.join(labels)}: {note}." for note, labels in noted.items()]


def _on_match(sweep: Sweep) -> list[str]:
    if sweep.match is None:
        return []
    by, budget = sweep.match["by"], sweep.match.get("budget")
    what = QUANTITIES.get(by, numbers.text(by))
    if budget is None:
        with_what = (
            "those of the baseline" if by != "latency" else "that of the baseline"
        )
    else:
        with_what = f"{budget:,}" if isinstance(budget, int | float) else str(budget)
        with_what += " ms" if by == "latency" else ""
    agree = "agrees" if by == "latency" else "agree"
    return [
        f"Widths are scaled so that the {what} of a point {agree} with {with_what}"
        f" within {TOLERANCES.get(by, '1 %')}."
    ]


def _on_times(sweep: Sweep) -> list[str]:
    said = []
    most = max((point.result.together or 1 for point in sweep.done), default=1)
    if most > 1:
        said.append(
            f"Up to {most} points were trained together in one program; the times of a"
            " point are then its share of theirs."
        )
    count = len(provenance.machines(sweep.done))
    if count > 1:
        said.append(
            f"Points ran on {count} machines that differ, so their times are not"
            " compared."
        )
    return said


def _on_code(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    usual = usual_code(sweep.points)
    others: dict[tuple[str, ...], list[Point]] = {}
    for row in rows:
        for point in row.other_code:
            others.setdefault(point.codes, []).append(point)
    return [
        f"{DAGGER} {numbers.listed([point.name for point in points])} ran code"
        f" {' and then '.join(codes)}, most ran {usual}."
        for codes, points in others.items()
    ]
