"""A record as a table for a README."""

from collections.abc import Sequence

from attn.report.analyse import published, table
from attn.report.analyse.published import Comparison
from attn.report.read import provenance
from attn.report.read.results import Sweep


def text(sweep: Sweep) -> str:
    """The table of a sweep, or of a record read back, as Markdown.

    Where the paper published one it has its rows and columns, each cell ours with
    the interval and the paper's value in brackets. Our lowest error of a column is
    bold if it differs from its baseline by more than the interval.
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
    names = table.axes(sweep) or ["sweep"]
    prefix = table.unit(row.cost("macs") for row in rows)[1]
    heads = [
        "test error, %",
        "difference",
        "parameters",
        f"MACs, {prefix}".rstrip(", "),
    ]
    made = _head([*names, *heads])
    lowest = min((row.error.mean for row in rows if row.error), default=None)
    for row, cell in zip(rows, table.cells(rows), strict=True):
        best = row.verdict == "lower" and row.error.mean == lowest
        error = cell["error"].replace(table.FIGURE_SPACE, "") + cell["mark"]
        difference = cell["difference"].replace(table.FIGURE_SPACE, "")
        made.append(
            _line(
                [
                    *(table.text(row.axes.get(name, row.label)) for name in names),
                    f"**{error}**" if best else error,
                    difference,
                    cell["parameters"],
                    cell["macs"],
                ]
            )
        )
    return made


def _foot(sweep: Sweep, comparison: Comparison | None) -> str:
    """What the figures are, and where they come from."""
    seeds = {len(row.done) for row in table.rows(sweep)}
    told = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{max(seeds)}"
    many = "" if seeds == {1} else "s"
    said = f"Test error in percent, mean over {told} seed{many}"
    said += f" {table.PLUS_MINUS} half of a 95 % interval." if many else "."
    if comparison:
        said += f" In brackets: {comparison.source}."
        said += " " + " ".join(published.sentences(comparison))
    facts = provenance.environment(sweep.points)
    machine = facts.get("device") or facts.get("platform") or ""
    cores = f", {facts['cores']} cores" if facts.get("cores") else ""
    processor = f" ({facts['processor']}{cores})" if facts.get("processor") else ""
    ran = [
        f"commit {facts['commit']}" if facts.get("commit") else "",
        f"jax {facts['packages.jax']}" if facts.get("packages.jax") else "",
        f"{machine}{processor}",
        provenance.when(sweep.points) or "",
    ]
    return f"{said} Ran as {', '.join(part for part in ran if part)}."


def _head(cells: Sequence[str]) -> list[str]:
    return [_line(cells), _line(["---", *("---:" for _ in cells[1:])])]


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
