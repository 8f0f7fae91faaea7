"""Sweeps as one HTML page that needs nothing but itself."""

import dataclasses
import pathlib
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

from attn.report import sections
from attn.report.analyse import (
    columns,
    numbers,
    published,
    regression,
    settings,
    statistics,
    summary,
    table,
)
from attn.report.analyse.columns import Column
from attn.report.analyse.published import Cell
from attn.report.analyse.table import Row
from attn.report.draw import curves, pictures, scatter, style
from attn.report.draw.style import Drawn, Style
from attn.report.read import provenance
from attn.report.read.curves import LOSS, TEST, TRAIN, VALIDATION
from attn.report.read.results import Sweep
from attn.workdir import files

TIME = "ms_per_step"
COSTS = {"parameters": "parameters", "macs": "MACs", TIME: "ms per step"}
# Templates of the page, and of its sections.
TEMPLATES = (
    pathlib.Path(__file__).parent / "templates",
    pathlib.Path(sections.__file__).parent,
)


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the result table: its labels, mark, cells by column, and whisker."""

    row: Row
    style: Style
    axes: tuple[str, ...]
    mark: str
    cells: tuple[str, ...]
    whisker: str


@dataclasses.dataclass(frozen=True)
class Pair:
    """A cell beside the paper: our mean and interval, theirs, and what seeds lack."""

    mean: str
    half: str
    theirs: str
    seeds: str
    own: bool
    best: bool


@dataclasses.dataclass(frozen=True)
class PublishedLine:
    """A row beside the paper."""

    label: str
    remark: str
    style: Style | None
    baseline: bool
    cells: tuple[Pair, ...]


def write(
    sweeps: Sequence[Sweep],
    output: pathlib.Path,
    record: Sweep | None = None,
) -> pathlib.Path:
    """Writes the page of some sweeps to `output` and returns its path.

    The file appears whole or not at all.

    Args:
        sweeps: what the page is about.
        output: the file; in a directory that exists it is `report.html`.
        record: an earlier record, against which each of the sweeps is held.

    Raises:
        Invalid: it cannot be written.
    """
    page = render(sweeps, record)
    return files.save(output, page.encode(), "report.html")


def environment() -> jinja2.Environment:
    """Where the templates of pages are found, and how they are filled."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters["joined"] = numbers.joined
    return made


def render(sweeps: Sequence[Sweep], record: Sweep | None = None) -> str:
    """The page as text."""
    return (
        environment()
        .get_template("page.html")
        .render(
            sweeps=[_sweep(sweep, record, len(sweeps)) for sweep in sweeps],
            title=", ".join(sweep.title for sweep in sweeps),
            colour_scale=pictures.colour_scale(),
            confidence=f"{statistics.CONFIDENCE:.0%}".replace("%", " %"),
        )
    )


def _sweep(sweep: Sweep, record: Sweep | None, sharers: int) -> dict[str, Any]:
    """Content of the template for one of so many sweeps that share a page."""
    rows = table.rows(sweep)
    drawn = list(zip(rows, style.styles(rows), strict=True))
    shown = columns.columns(sweep, rows)
    measured = columns.measures(sweep, rows)
    axis = table.column_axis(sweep)
    return {
        "title": sweep.title,
        "description": _paragraphs(sweep.description),
        "facts": _facts(sweep),
        "metric": sweep.headline,
        "column_axis": axis,
        "axes": [name for name in table.axes(sweep) if name != axis] or ["sweep"],
        "columns": shown,
        "groups": _groups(sweep, drawn, shown),
        "measures": measured,
        "directions": summary.directions(sweep.measures),
        "measured": _groups(sweep, drawn, measured),
        "summary": summary.summary(rows),
        "notes": summary.notes(sweep, rows),
        "legend": list({row.kind: (row, own) for row, own in drawn}.values()),
        "published": _published(sweep, drawn),
        "regression": _regression(sweep, record),
        **_plots(sweep, drawn),
        "sections": sections.made(drawn, sharers),
        "open": sweep.unfinished,
        "counts": sweep.counts,
        "varying": settings.listings(rows),
        "shared": settings.shared(sweep),
        "environments": [
            (name.removeprefix("packages."), value)
            for name, value in settings.environment(sweep.points).items()
        ],
    }


def _plots(sweep: Sweep, drawn: Drawn) -> dict[str, Any]:
    """The learning curves and plots against costs, and what is not worth a plot."""
    rows = [row for row, _ in drawn]
    metric = sweep.headline
    split = VALIDATION if _logs(sweep, VALIDATION, metric.name) else TEST
    learning = [
        ("Training loss", curves.learning(drawn, TRAIN, LOSS, "training loss")),
        (
            f"{split.capitalize()} {metric.head}",
            curves.learning(drawn, split, metric.name, f"{split} {metric.head}"),
        ),
    ]
    timed = provenance.comparable(sweep.done)
    costs = {name: label for name, label in COSTS.items() if timed or name != TIME}
    same = [label for cost, label in costs.items() if scatter.alike(rows, cost)]
    plots = [
        (f"Against {label}", scatter.against(drawn, cost, label))
        for cost, label in costs.items()
        if label not in same
    ]
    return {
        "learning": [(label, svgs) for label, svgs in learning if svgs],
        "costs": [(label, svgs) for label, svgs in plots if svgs],
        "same_costs": same,
        "timed": timed,
    }


def _logs(sweep: Sweep, split: str, name: str) -> bool:
    return any(point.curve(split, name) is not None for point in sweep.points)


def _published(sweep: Sweep, drawn: Drawn) -> dict[str, Any] | None:
    """The paper's table beside ours."""
    comparison = published.compare(sweep, [row for row, _ in drawn])
    if comparison is None:
        return None
    styles = {row.label: own for row, own in drawn}
    best = published.best(comparison)
    lines = [
        PublishedLine(
            label=line.label,
            remark=line.remark,
            style=styles[line.row.label] if line.row else None,
            baseline=bool(line.row and line.row.baseline),
            cells=tuple(
                _pair(cell, best=(k, i) in best) for i, cell in enumerate(line.cells)
            ),
        )
        for k, line in enumerate(comparison.lines)
    ]
    return {
        "source": comparison.source,
        "note": comparison.note,
        "axis": comparison.axis,
        "metric": comparison.metric,
        "names": [axis for axis in table.axes(sweep) if axis != comparison.axis],
        "columns": comparison.columns,
        "lines": lines,
        "said": published.sentences(comparison),
        "agreements": comparison.agreements if comparison.axis else None,
        "plots": scatter.beside(comparison, drawn),
    }


def _pair(cell: Cell, *, best: bool) -> Pair:
    mean, sign, half = published.ours(cell).partition(f" {numbers.PLUS_MINUS} ")
    row = cell.row
    part = row is not None and 0 < len(row.done) < len(row.points)
    return Pair(
        mean=mean,
        half=sign.replace(" ", "\N{NO-BREAK SPACE}") + half,
        theirs=published.theirs(cell),
        seeds=f"{len(row.done)} of {len(row.points)} seeds" if part else "",
        own=cell.column.own,
        best=best,
    )


def _regression(sweep: Sweep, record: Sweep | None) -> dict[str, Any] | None:
    """The sweep against an earlier record."""
    if record is None:
        return None
    comparison = regression.compare(sweep, record)
    return {
        "source": comparison.source,
        "metric": comparison.metric,
        "said": regression.sentences(comparison),
        "lines": regression.cells(comparison),
    }


def _paragraphs(text: str) -> list[tuple[str, markupsafe.Markup]]:
    """Paragraphs as ("p" or "pre", markup): indented ones are commands, `x` code."""
    found = []
    for part in filter(str.strip, text.split("\n\n")):
        if all(line.startswith("    ") for line in part.splitlines() if line):
            found.append(("pre", markupsafe.escape(textwrap.dedent(part.strip("\n")))))
            continue
        marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(part)))
        found.append(("p", markupsafe.Markup(marked)))
    return found


def _facts(sweep: Sweep) -> list[str]:
    """One-line facts under the title."""
    done = sweep.done
    facts = [f"{len(done)} of {len(sweep.points)} points finished"]
    steps = sorted({p.result.steps for p in done if p.result.steps is not None})
    if steps:
        facts.append(f"{' or '.join(f'{step:,}' for step in steps)} steps each")
    examples = {p.result.examples for p in done if p.result.examples is not None}
    if len(examples) == 1:
        facts.append(f"{examples.pop():,} test examples")
    seconds = [p.result.seconds for p in done if p.result.seconds is not None]
    if seconds:
        facts.append(f"{numbers.duration(sum(seconds))} of training in all")
    when = provenance.when(sweep.points)
    return [*facts, when] if when else facts


def _groups(
    sweep: Sweep, drawn: Drawn, shown: Sequence[Column]
) -> list[tuple[str | None, list[Line]]]:
    """The lines of the table by column, with figures aligned in all of it."""
    aligned = [_aligned(column) for column in shown]
    differences = [row.difference for row, _ in drawn if row.difference]
    reach = max((abs(end) for d in differences for end in (d.low, d.high)), default=0.0)
    axis = table.column_axis(sweep)
    names = [name for name in table.axes(sweep) if name != axis]
    groups: dict[str | None, list[Line]] = {}
    for i, (row, own) in enumerate(drawn):
        texts = tuple(cells[i] for cells in aligned)
        axes = tuple(numbers.text(row.axes.get(name, "")) for name in names)
        whisker = ""
        if row.difference:
            whisker = scatter.whisker(
                row.difference, reach or 1.0, own.colour, sweep.rope
            )
        line = Line(row, own, axes or (row.label,), columns.mark(row), texts, whisker)
        groups.setdefault(row.column, []).append(line)
    return list(groups.items())


def _aligned(column: Column) -> list[str]:
    """The cells, where a mean without an interval has the unseen half of the widest.

    Spaces, with which the terminal aligns, are not as wide as signs here.
    """
    parts = [cell.partition(f" {numbers.PLUS_MINUS}") for cell in column.cells]
    widest = max((sign + half for _, sign, half in parts), key=len, default="")
    if not widest:
        return list(column.cells)
    ghost = markupsafe.Markup('<span class="unseen">{}</span>').format(widest)
    return [
        cell if sign else markupsafe.escape(mean.rstrip(numbers.FIGURE_SPACE)) + ghost
        for cell, (mean, sign, _) in zip(column.cells, parts, strict=True)
    ]
