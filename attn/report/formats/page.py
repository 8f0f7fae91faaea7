"""Writes sweeps as one HTML page that needs nothing but itself."""

import os
import pathlib
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

from attn.report.analyse import published, regression, statistics, summary, table
from attn.report.analyse.table import Row
from attn.report.draw import pictures, plots, style
from attn.report.read import provenance
from attn.report.read.results import Sweep
from attn.report.sections import attention, class_gates

COSTS = {"parameters": "parameters", "macs": "MACs", "ms_per_step": "ms per step"}
CURVES = {"loss": ("train", "training loss"), "error": ("test", "test error, %")}
# Bytes of pictures on a page, for what was looked at and for that over training.
LOOKED, OVER_TRAINING = 3_000_000, 1_200_000


def write(
    sweeps: Sequence[Sweep],
    output: pathlib.Path,
    record: Sweep | None = None,
) -> pathlib.Path:
    """Writes the page of some sweeps to `output` and returns its path.

    The file appears whole or not at all.

    Args:
        sweeps: what the page is about.
        output: the file.
        record: an earlier record, against which each of the sweeps is held.
    """
    page = render(sweeps, record)
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    part.write_text(page, encoding="utf-8")
    part.replace(output)
    return output


def render(sweeps: Sequence[Sweep], record: Sweep | None = None) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        sweeps=[_sweep(sweep, record, len(sweeps)) for sweep in sweeps],
        title=", ".join(sweep.title for sweep in sweeps),
        colour_scale=pictures.colour_scale(),
        confidence=f"{statistics.CONFIDENCE:.0%}".replace("%", " %"),
    )


def _sweep(sweep: Sweep, record: Sweep | None, sharers: int) -> dict[str, Any]:
    """What the template says about one of so many sweeps that share a page."""
    rows = table.rows(sweep)
    drawn = list(zip(rows, style.looks(rows), strict=True))
    over_training = attention.over_training(
        drawn, attention.Share(OVER_TRAINING // sharers)
    )
    blocks = attention.blocks(drawn, attention.Share(LOOKED // sharers))
    bases = [row.label for row in rows if row.baseline]
    axis = table.column_axis(sweep)
    return {
        "title": sweep.title,
        "description": _paragraphs(sweep.description),
        "facts": _facts(sweep),
        "column_axis": axis,
        "axes": [name for name in table.axes(sweep) if name != axis] or ["sweep"],
        "groups": _groups(sweep, drawn),
        "compared": bool(sweep.baseline) and bool(bases),
        "macs_prefix": table.unit(row.cost("macs") for row in rows)[1],
        "summary": summary.summary(rows),
        "notes": summary.notes(sweep, rows),
        "legend": list({row.kind: (row, look) for row, look in drawn}.values()),
        "published": _published(sweep, drawn),
        "against": _against(sweep, record),
        **_plots(drawn),
        "over_training": over_training,
        "excitation": class_gates.section(drawn),
        "looked": blocks,
        "unseen": [row.label for row in rows if not row.done],
        "open": sweep.unfinished,
        "counts": (len(sweep.points) - len(sweep.done), len(sweep.points)),
        "varying": provenance.listings(rows),
        "shared": provenance.shared(sweep),
        "environments": [
            (name.removeprefix("packages."), value)
            for name, value in provenance.environment(sweep.points).items()
        ],
    }


def _plots(drawn: plots.Drawn) -> dict[str, Any]:
    """The learning curves and plots against costs, and what is not worth a plot."""
    rows = [row for row, _ in drawn]
    learning = [
        (label, plots.learning(drawn, split, quantity, label))
        for quantity, (split, label) in CURVES.items()
    ]
    same = [label for cost, label in COSTS.items() if plots.alike(rows, cost)]
    costs = [
        (label, plots.against(drawn, cost, label))
        for cost, label in COSTS.items()
        if label not in same
    ]
    return {
        "learning": [(label.capitalize(), svgs) for label, svgs in learning if svgs],
        "costs": [(f"Against {label}", svgs) for label, svgs in costs if svgs],
        "same_costs": same,
    }


def _published(sweep: Sweep, drawn: plots.Drawn) -> dict[str, Any] | None:
    """The paper's table beside ours."""
    comparison = published.compare(sweep, [row for row, _ in drawn])
    if comparison is None:
        return None
    look = {row.label: look for row, look in drawn}
    best = published.best(comparison)
    lines = [
        {
            "label": line.label,
            "remark": line.remark,
            "look": look[line.row.label] if line.row else None,
            "baseline": bool(line.row and line.row.baseline),
            "cells": [
                {**_pair(cell), "best": (k, i) in best}
                for i, cell in enumerate(line.cells)
            ],
        }
        for k, line in enumerate(comparison.lines)
    ]
    return {
        "source": comparison.source,
        "note": comparison.note,
        "axis": comparison.axis,
        "names": [axis for axis in table.axes(sweep) if axis != comparison.axis],
        "columns": comparison.columns,
        "lines": lines,
        "said": published.sentences(comparison),
        "agreements": comparison.agreements if comparison.axis else None,
        "plots": plots.beside(comparison, lambda row: look[row.label]),
    }


def _pair(cell: published.Cell) -> dict[str, Any]:
    mean, sign, half = published.ours(cell).partition(f" {table.PLUS_MINUS} ")
    part = cell.row is not None and 0 < len(cell.row.done) < len(cell.row.points)
    return {
        "mean": mean,
        "half": sign.replace(" ", "\N{NO-BREAK SPACE}") + half,
        "theirs": published.theirs(cell),
        "seeds": f"{len(cell.row.done)} of {len(cell.row.points)} seeds"
        if cell.row is not None and part
        else "",
        "own": cell.quantity in published.OWN,
    }


def _against(sweep: Sweep, record: Sweep | None) -> dict[str, Any] | None:
    """The sweep against an earlier record."""
    if record is None:
        return None
    comparison = regression.compare(sweep, record)
    return {
        "source": comparison.source,
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
        facts.append(f"{table.duration(sum(seconds))} of training in all")
    when = provenance.when(sweep.points)
    return [*facts, when] if when else facts


def _groups(sweep: Sweep, drawn: plots.Drawn) -> list[dict[str, Any]]:
    """The cells of the table as text by column, with figures aligned in all of it."""
    rows = [row for row, _ in drawn]
    cells = table.cells(rows)
    reach = max(
        (abs(end) for row in rows if row.difference for end in _ends(row)), default=0.0
    )
    for name in ("error", "difference", "ms_per_step"):
        _align(cells, name)
    axis = table.column_axis(sweep)
    names = [name for name in table.axes(sweep) if name != axis]
    groups: dict[str | None, list[dict[str, Any]]] = {}
    for cell, (row, look) in zip(cells, drawn, strict=True):
        shown = {
            "axes": [table.text(row.axes.get(name, "")) for name in names]
            or [row.label],
            "row": row,
            "look": look,
            "whisker": plots.whisker(row.difference, reach or 1.0, look.colour)
            if row.difference
            else "",
        }
        groups.setdefault(row.column, []).append({**cell, **shown})
    return [{"column": column, "rows": part} for column, part in groups.items()]


def _align(cells: Sequence[dict[str, Any]], column: str) -> None:
    """Gives a mean without an interval the unseen half of the widest other cell.

    Spaces, with which the terminal aligns, are not as wide as signs here.
    """
    halves = [cell[column].partition(f" {table.PLUS_MINUS}") for cell in cells]
    widest = max((sign + half for _, sign, half in halves), key=len, default="")
    for cell, (mean, sign, _) in zip(cells, halves, strict=True):
        if widest and not sign:
            ghost = markupsafe.Markup('<span class="unseen">{}</span>').format(widest)
            cell[column] = markupsafe.escape(mean.rstrip(table.FIGURE_SPACE)) + ghost


def _ends(row: Row) -> tuple[float, float]:
    return row.difference.low, row.difference.high
