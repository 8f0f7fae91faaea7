"""Measures of attention by depth: of each attention module of a network.

The artefact holds of each module, from the input on, its "path" and its measures by
name, means over examples; and the share of the image that is "object_area", in percent,
where the data set knows where the objects are. Shown are means over seeds.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn.report.analyse.table import Row
from attn.report.draw import style
from attn.report.draw.style import Drawn, Style
from attn.report.read.results import Point
from attn.report.sections.budget import Budget

FILE = "measures.json"
TEMPLATE = "measures.html"
BYTES = 0  # it has plots and no pictures
PLOTS = {
    "attention_inside": "attention in object, %",
    "attention_hits": "attention hits object, %",
    "attention_entropy": "entropy of attention",
    "attention_distance": "distance of attention, px",
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """A row: its measures by name, mean over seeds, one a module."""

    row: Row
    style: Style
    paths: tuple[str, ...]
    values: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Section:
    """The plots, their rows, and the area of the objects, in percent of the image."""

    plots: tuple[str, ...]
    legend: tuple[tuple[Row, Style], ...]
    area: float | None
    remarks: tuple[str, ...]


def section(drawn: Drawn, budget: Budget) -> Section | None:
    """The measures by depth of the rows that have some, or None."""
    del budget
    rows, areas, remarks = [], [], []
    for row, row_style in drawn:
        records = []
        for point in row.done:
            record, problem = read(point)
            if problem:
                remarks.append(f"{point.name}: {problem}")
            if record is not None:
                records.append(record)
        if records:
            rows.append(_measured(row, row_style, records))
            areas += [r["object_area"] for r in records if "object_area" in r]
    area = float(np.mean(areas)) if areas else None
    plots = tuple(
        _plot(name, head, rows, area if head.endswith("%") else None)
        for name, head in PLOTS.items()
        if any(name in one.values for one in rows)
    )
    if not plots:
        return None
    legend = tuple((one.row, one.style) for one in rows)
    return Section(plots, legend, area, tuple(remarks))


def read(point: Point) -> tuple[dict[str, Any] | None, str | None]:
    """The record of a point, or None and what is the matter, if something is."""
    path = point.directory / FILE
    if not path.is_file():
        return None, None
    try:
        record = json.loads(path.read_text())
        if not all(isinstance(one["path"], str) for one in record["attentions"]):
            raise ValueError("a path that is no text")
        return record, None
    except (OSError, ValueError, LookupError, TypeError) as error:
        return None, f"its {FILE} cannot be read ({type(error).__name__})"


def _measured(
    row: Row, row_style: Style, records: Sequence[Mapping[str, Any]]
) -> Measured:
    """The means over the records that have the modules of the first."""
    paths = tuple(one["path"] for one in records[0]["attentions"])
    alike = [
        record["attentions"]
        for record in records
        if tuple(one["path"] for one in record["attentions"]) == paths
    ]
    values = {}
    for name in PLOTS:
        table = [[one.get(name, np.nan) for one in each] for each in alike]
        mean = np.mean(np.asarray(table, np.float64), axis=0)
        if np.isfinite(mean).any():
            values[name] = mean
    return Measured(row, row_style, paths, values)


def _plot(name: str, head: str, rows: Sequence[Measured], area: float | None) -> str:
    """One measure at each depth, a line a row; what an even map has is dotted."""
    with style.axes(*style.WIDE) as axes:
        for one in rows:
            if name not in one.values:
                continue
            depths = np.arange(1, len(one.paths) + 1)
            axes.plot(
                depths,
                one.values[name],
                color=one.style.colour,
                dashes=one.style.dashes or (None, None),
                marker=one.style.mark,
                markersize=4,
                linewidth=1.4,
            )
        if area is not None:
            axes.axhline(area, color=style.INK, linewidth=0.9, linestyle=":")
        style.from_zero(axes)
        style.whole_numbers(
            axes, max(len(one.paths) for one in rows if name in one.values)
        )
        axes.set_xlabel("depth: number of the module, from the input on")
        style.head(axes, head)
        return style.svg(axes, f"{head}, by depth")
