"""Tables of sweeps on the terminal, as wide as it is."""

import dataclasses
from collections.abc import Sequence

import rich.console
import rich.table
import rich.text

from attn.report.analyse import columns, numbers, published, regression, summary, table
from attn.report.analyse.columns import Column
from attn.report.analyse.table import Row
from attn.report.formats.terminal import empty, plain
from attn.report.read import metrics
from attn.report.read.results import Sweep

# Columns that are left out, the first first, where the terminal is too narrow: by
# their role, and of one role the last first.
DISPENSABLE = ("verdict", "seeds", "measure", "cost", "metric")
# Of a cell of both tables: with our interval, without, the one above the other.
FORMS = ("intervals", "means", "stacked")


def show(
    sweeps: Sequence[Sweep],
    console: rich.console.Console | None = None,
    then: Sweep | None = None,
) -> None:
    """Prints the table of each sweep, its summary, and what is not finished.

    Args:
        sweeps: what is shown.
        console: where; standard output if none is given.
        then: an earlier record, against which each is held.
    """
    console = console or rich.console.Console()
    for sweep in sweeps:
        rows = table.rows(sweep)
        console.print()
        shown = columns.columns(sweep, rows)
        console.print(_fitting(sweep.title, sweep, rows, shown, console))
        _say([*summary.summary(rows), *summary.notes(sweep, rows)], console)
        measured = columns.measures(sweep, rows)
        if measured:
            console.print()
            title = "Measures of attention"
            console.print(_fitting(title, sweep, rows, measured, console))
            _say(summary.directions(sweep.measures), console)
        beside = published.compare(sweep, rows)
        if beside is not None:
            console.print()
            console.print(_beside(beside, console))
            said = [*published.sentences(beside), *published.lacking(beside)]
            _say([beside.note, *said] if beside.note else said, console)
        if then is not None:
            comparison = regression.compare(sweep, then)
            if comparison.lines:
                console.print()
                console.print(_regression(comparison, console))
            _say(regression.sentences(comparison), console)
        _unfinished(sweep, console)
        console.print()


def _say(said: Sequence[str], console: rich.console.Console) -> None:
    for sentence in said:
        console.print(plain(sentence, console), style="dim", markup=False)


def _beside(
    comparison: published.Comparison, console: rich.console.Console
) -> rich.table.Table:
    """Ours and, in brackets, the paper's, in the widest form there is room for."""
    what = f"test {comparison.metric.head}"
    by = f": {what}, by {comparison.axis}" if comparison.axis else ""
    title = f"Ours (and {comparison.source}){by}"
    for form in FORMS:
        made = _empty_beside(title, comparison, console)
        for line in comparison.lines:
            shown = (line.label, *(_both(cell, form) for cell in line.cells))
            made.add_row(*(rich.text.Text(plain(c, console)) for c in shown))
        wide = console.measure(made, options=console.options.update(width=10_000))
        if wide.maximum <= console.width:
            break
    return made


def _empty_beside(
    title: str, comparison: published.Comparison, console: rich.console.Console
) -> rich.table.Table:
    made = empty(title, console)
    made.add_column("", overflow="fold")
    for column in comparison.columns:
        made.add_column(plain(column.head, console), justify="right", overflow="fold")
    return made


def _both(cell: published.Cell, form: str) -> str:
    ours = published.ours(cell)
    if form != "intervals":
        ours = ours.partition(f" {numbers.PLUS_MINUS}")[0]
        ours += "" if ours.endswith(cell.mark) else cell.mark
    between = "\n" if form == "stacked" else " "
    return f"{ours}{between}({published.theirs(cell)})"


def _regression(
    comparison: regression.Comparison, console: rich.console.Console
) -> rich.table.Table:
    """Then and now, row by row."""
    made = empty(f"Against {comparison.source}", console)
    unit = comparison.metric.unit
    then, now = metrics.head("then", unit), metrics.head("now", unit)
    for head in ("", "seeds", then, now, "now - then", ""):
        made.add_column(head, justify="right" if head else "left", overflow="fold")
    for cells in regression.cells(comparison):
        texts = dataclasses.astuple(cells)
        made.add_row(*(rich.text.Text(plain(text, console)) for text in texts))
    return made


def _unfinished(sweep: Sweep, console: rich.console.Console) -> None:
    missing, there = sweep.counts
    if not missing:
        return
    head = f"Not finished: {missing} of {there} points"
    console.print(head, style="bold yellow", markup=False, highlight=False)
    for problem, names in sweep.unfinished.items():
        line = f"{problem}: {', '.join(names)}"
        console.print(line, markup=False, highlight=False)


def _fitting(
    title: str,
    sweep: Sweep,
    rows: Sequence[Row],
    shown: Sequence[Column],
    console: rich.console.Console,
) -> rich.table.Table:
    """A table with as many of the columns as the terminal has room for."""
    shown = list(shown)
    spare = [
        column
        for role in DISPENSABLE
        for column in reversed(shown)
        if column.role == role
    ]
    made = _table(title, sweep, rows, shown, console)
    for column in spare:
        wide = console.measure(made, options=console.options.update(width=10_000))
        if wide.maximum <= console.width:
            break
        shown.remove(column)
        made = _table(title, sweep, rows, shown, console)
    return made


def _table(
    title: str,
    sweep: Sweep,
    rows: Sequence[Row],
    shown: Sequence[Column],
    console: rich.console.Console,
) -> rich.table.Table:
    made = empty(title, console)
    names = table.axes(sweep) or ["sweep"]
    for name in names:
        made.add_column(name, overflow="fold")
    for column in shown:
        side = "left" if column.role == "verdict" else "right"
        head = _head(column)
        made.add_column(plain(head, console), justify=side, no_wrap=True)
    before = None
    for i, row in enumerate(rows):
        if before is not None and row.column != before.column:
            made.add_section()
        before = row
        values = [numbers.text(row.axes.get(name, row.label)) for name in names]
        values[-1] += columns.mark(row)
        cells = [*values, *(column.cells[i] for column in shown)]
        made.add_row(
            *(rich.text.Text(plain(value, console)) for value in cells),
            style="bold" if row.baseline else None,
        )
    return made


def _head(column: Column) -> str:
    """A heading as short as can be: all values are of the test split."""
    if column.role == "difference":
        return column.head
    if column.name == "ms_per_step":
        return column.unit
    return column.title.removeprefix("test ")
