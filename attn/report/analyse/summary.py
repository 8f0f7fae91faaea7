"""What a table says and what its reader must know, in sentences."""

from collections.abc import Iterable, Sequence

from attn.report.analyse import table
from attn.report.analyse.table import DAGGER, PLUS_MINUS, Row
from attn.report.read.results import Point, Sweep

MOST_NAMES = 8
SENSES = {
    "lower": "Lower than",
    "higher": "Higher than",
    "not distinguishable": "Not distinguishable from",
}
QUANTITIES = {"parameters": "parameters", "macs": "multiply-adds", "latency": "latency"}
TOLERANCES = {"latency": "5 %"}


def summary(rows: Iterable[Row]) -> list[str]:
    """What the table says."""
    rows = [row for row in rows if row.error is not None]
    if not rows:
        return ["No point is finished yet."]
    said = [_best(rows)]
    bases = [row.label for row in rows if row.baseline]
    against = bases[0] if len(bases) == 1 else "its baseline"
    for word, sense in SENSES.items():
        found = [row for row in rows if row.verdict == word]
        if found and bases:
            said.append(f"{sense} {against}: {named(found, rows)}.")
    return said


def _best(rows: Sequence[Row]) -> str:
    columns = dict.fromkeys(row.column for row in rows)
    best = [
        min((r for r in rows if r.column == c), key=lambda row: row.error.mean)
        for c in columns
    ]
    show = lambda row: table.plus_minus(row.error, 2)
    if len(best) == 1:
        return f"The lowest mean test error is {show(best[0])} %, {best[0].label}."
    each = "; ".join(f"{row.column} {show(row)} % ({row.kind})" for row in best)
    return f"The lowest mean test errors are: {each}."


def named(some: Iterable[Row], rows: Iterable[Row]) -> str:
    """Names some of the rows; those of one kind together, with their columns."""
    columns = [row.column for row in rows]
    kinds: dict[str, list[str]] = {}
    for row in some:
        kinds.setdefault(row.kind, []).append(row.column or "")
    everywhere = len(dict.fromkeys(columns))
    where = lambda found: (
        f"all {everywhere}" if len(found) == everywhere else ", ".join(found)
    )
    return ", ".join(
        kind if columns[0] is None else f"{kind} ({where(found)})"
        for kind, found in kinds.items()
    )


def notes(sweep: Sweep, rows: Iterable[Row]) -> list[str]:
    """What a reader of the table must know to read it rightly."""
    rows = list(rows)
    return [
        *_on_seeds(rows),
        *_on_baseline(sweep, rows),
        *_on_match(sweep),
        *_on_times(sweep),
        *_on_code(sweep, rows),
    ]


def _on_seeds(rows: Sequence[Row]) -> list[str]:
    said = []
    seeds = [len(row.done) for row in rows]
    if any(count > 1 for count in seeds):
        said.append(
            f"{PLUS_MINUS} is half the width of a 95 % interval over seeds (Student t)."
        )
    if 1 in seeds:
        alone = [row for row in rows if len(row.done) == 1]
        every = len(alone) == len(rows)
        who = "Every row has" if every else f"{named(alone, rows)}:"
        said.append(f"{who} one seed only, so no interval.")
    return said


def _on_baseline(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    said = []
    compared = [row for row in rows if row.difference is not None]
    setting = ", ".join(f"{k} = {table.text(v)}" for k, v in sweep.baseline.items())
    bases = sum(row.baseline for row in rows)
    if sweep.baseline and not bases:
        said.append(f"The baseline ({setting}) is not among the points.")
    if bases > 1:
        said.append(f"The baseline of a row is the one like it with {setting}.")
    if any(row.difference.half is not None for row in compared):
        said.append(
            "A difference is taken seed by seed; it is not distinguishable where its"
            " interval includes zero. No interval is narrower than the number of test"
            " images allows."
        )
        if len(compared) > 1:
            said.append(
                f"Each of the {len(compared)} intervals is at 95 % by itself, without"
                " correction for their number."
            )
    return said


def _on_match(sweep: Sweep) -> list[str]:
    if sweep.match is None:
        return []
    by, budget = sweep.match["by"], sweep.match.get("budget")
    what = QUANTITIES.get(by, table.text(by))
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
    most = max((point.result.together or 1 for point in sweep.done), default=1)
    if most == 1:
        return []
    return [
        f"Up to {most} points were trained together in one program; the times of a"
        " point are then its share of theirs."
    ]


def _on_code(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    usual = table.usual_code(sweep.points)
    others: dict[str | None, list[Point]] = {}
    for row in rows:
        for point in row.other_code:
            others.setdefault(point.code, []).append(point)
    return [
        f"{DAGGER} {some([point.name for point in points])} ran code {code}, most ran"
        f" {usual}."
        for code, points in others.items()
    ]


def some(names: Sequence[str]) -> str:
    """Names in a row, the first ones only if they are many."""
    rest = len(names) - MOST_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(names[:MOST_NAMES]) + more
