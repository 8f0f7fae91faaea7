"""A record as a table for a README."""

from collections.abc import Sequence

from attn.report.analyse import columns, numbers, published, settings, table, verdicts
from attn.report.analyse.columns import Column
from attn.report.analyse.published import Comparison
from attn.report.analyse.table import Row
from attn.report.read import provenance
from attn.report.read.metrics import Metric
from attn.report.read.results import Sweep

# The columns that are not for a README.
LEFT_OUT = ("seeds", "uncorrected", "ms_per_step")


def text(sweep: Sweep) -> str:
    """The table of a sweep, or of a record read back, as Markdown.

    Where the paper published one it has its rows and columns, each cell ours with
    the interval and the paper's value in brackets. Our best value of a column is
    bold if it is better than its baseline after correction for the number of rows.
    """
    comparison = published.compare(sweep, table.rows(sweep))
    lines = _pivot(sweep, comparison) if comparison else _plain(sweep)
    return "\n".join([*lines, "", _foot(sweep, comparison)])


def _pivot(sweep: Sweep, comparison: Comparison) -> list[str]:
    names = [axis for axis in table.axes(sweep) if axis != comparison.axis]
    heads = [
        f"{comparison.axis} {column.head}" if comparison.axis else column.head
        for column in comparison.columns
    ]
    best = published.best(comparison)
    made = _head([" \N{MIDDLE DOT} ".join(names), *heads])
    for k, line in enumerate(comparison.lines):
        cells = [_cell(cell, bold=(k, i) in best) for i, cell in enumerate(line.cells)]
        made.append(_line([line.label, *cells]))
    return made


def _cell(cell: published.Cell, *, bold: bool) -> str:
    ours = published.ours(cell)
    ours = f"**{ours}**" if bold else ours
    if cell.theirs is None:
        return ours
    theirs = f"({published.theirs(cell)})"
    return theirs if cell.ours is None else f"{ours} {theirs}"


def _plain(sweep: Sweep) -> list[str]:
    rows = table.rows(sweep)
    shown = [
        column for column in columns.columns(sweep, rows) if column.name not in LEFT_OUT
    ]
    made = _rows(sweep, rows, shown)
    measured = columns.measures(sweep, rows)
    return [*made, "", *_rows(sweep, rows, measured)] if measured else made


def _rows(sweep: Sweep, rows: Sequence[Row], shown: Sequence[Column]) -> list[str]:
    """A table of some columns."""
    names = table.axes(sweep) or ["sweep"]
    best = _best(rows)
    made = _head([*names, *map(_title, shown)])
    for i, row in enumerate(rows):
        labels = [numbers.text(row.axes.get(name, row.label)) for name in names]
        cells = [_plain_cell(column, i, row, best) for column in shown]
        made.append(_line([*labels, *cells]))
    return made


def _title(column: Column) -> str:
    return column.head if column.role == "difference" else column.title


def _plain_cell(column: Column, i: int, row: Row, best: float | None) -> str:
    """The text of a row in a column; the headline is bold where it is the best."""
    text = column.cells[i].replace(numbers.FIGURE_SPACE, "")
    if column.role != "headline":
        return text
    text += columns.mark(row)
    bold = row.verdict == "better" and row.headline.mean == best
    return f"**{text}**" if bold else text


def _best(rows: Sequence[Row]) -> float | None:
    """The best mean of the headline."""
    means = [(row.metric, row.headline.mean) for row in rows if row.headline]
    return min((m.rank(mean), mean) for m, mean in means)[1] if means else None


def _foot(sweep: Sweep, comparison: Comparison | None) -> str:
    """Foot of a table: what the figures are, and where they come from."""
    seeds = {len(row.done) for row in table.rows(sweep)}
    count = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{max(seeds)}"
    many = "" if seeds == {1} else "s"
    metric = comparison.metric if comparison else sweep.headline
    said = f"{_described(metric)}, mean over {count} seed{many}"
    said += f" {numbers.PLUS_MINUS} half of a 95 % interval." if many else "."
    said += f" {metric.label}: {metric.note}." if metric.note else ""
    if comparison:
        said += f" In brackets: {comparison.source}."
        said += f" {comparison.note}" if comparison.note else ""
        said += " " + " ".join(published.sentences(comparison))
    elif sweep.baseline:
        rows = table.rows(sweep)
        told = [*verdicts.summary(rows), *verdicts.notes(sweep, rows)]
        said = " ".join([said, *told])
    missing, there = sweep.counts
    if missing:
        said += f" Not finished: {missing} of {there} points."
    facts = settings.environment(sweep.points)
    machine = facts.get("device") or facts.get("platform") or ""
    held = facts.get("cores")
    cores = f", {held} core{'' if str(held) == '1' else 's'}" if held else ""
    processor = f" ({facts['processor']}{cores})" if facts.get("processor") else ""
    ran = [
        f"commit {facts['commit']}" if facts.get("commit") else "",
        f"jax {facts['packages.jax']}" if facts.get("packages.jax") else "",
        f"{machine}{processor}",
        provenance.when(sweep.points) or "",
    ]
    known = ", ".join(part for part in ran if part)
    return f"{said} Ran as {known}." if known else said


def _described(metric: Metric) -> str:
    """The metric in words: "Test error in percent", "Test PSNR in dB, ..."."""
    unit = "percent" if metric.unit == "%" else metric.unit
    words = f"Test {metric.label}" + (f" in {unit}" if unit else "")
    return f"{words} (higher is better)" if metric.better == "higher" else words


def _head(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(["---", *("---:" for _ in cells[1:])])]


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
