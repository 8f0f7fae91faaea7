"""Plots of rows as marks: the headline against costs, ours against the paper's.

Each is a list of SVGs: one, or where the sweep has columns one for each column, on
common axes.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import matplotlib.axes
import numpy as np

from attn.report.analyse import numbers
from attn.report.analyse.published import Comparison
from attn.report.analyse.statistics import Interval
from attn.report.analyse.table import Row
from attn.report.draw import labels, style
from attn.report.draw.style import FONT, INK, Drawn, Style
from attn.report.read import metrics


@dataclasses.dataclass(frozen=True)
class Mark:
    """A row in a plot, with its style and what it is across and upwards."""

    row: Row
    style: Style
    x: Interval
    y: Interval


def against(drawn: Drawn, cost: str, label: str) -> list[str]:
    """The headline against a cost, with intervals and labels, as SVGs.

    Side by side the plots have no room for labels and rely on the legend.

    Args:
        drawn: rows without a finished point or without this cost are left out.
        cost: "parameters", "macs" or "ms_per_step".
        label: name of the cost, without its prefix of size.

    Returns:
        Nothing if nothing can be drawn.
    """
    known = [
        (row, row_style, costs)
        for row, row_style in drawn
        if row.headline is not None and (costs := _cost(row, cost)) is not None
    ]
    if not known:
        return []
    factor, prefix = numbers.unit(costs.mean for *_, costs in known)
    metric = known[0][0].metric
    return _scatter(
        [Mark(row, s, _scaled(at, factor), row.headline) for row, s, at in known],
        f"{label} ({prefix})" if prefix else label,
        f"test {metric.head}",
        f"test {metric.label} against {label}",
    )


def alike(rows: Iterable[Row], cost: str) -> bool:
    """Whether a cost agrees within 1 % in all rows, so that it orders nothing."""
    costs = [_cost(row, cost) for row in rows]
    known = [at.mean for at in costs if at is not None]
    return len(known) > 1 and min(known) > 0 and max(known) <= 1.01 * min(known)


def beside(comparison: Comparison, drawn: Drawn) -> list[str]:
    """Our values against the paper's, a mark a row, as SVGs; [] where nothing ranks."""
    styles = {row.label: found for row, found in drawn}
    marks = [
        Mark(row, styles[row.label], Interval(cell.theirs, None, 1), cell.ours)
        for line in comparison.lines
        for cell in line.cells
        if cell.column.ranked
        and (row := cell.row) is not None
        and cell.ours is not None
        and cell.theirs is not None
    ]
    metric = comparison.metric
    return _scatter(
        marks,
        metrics.head("the paper's", metric.unit),
        metrics.head("ours", metric.unit),
        f"our test {metric.label} against the paper's",
        shared=False,
    )


def whisker(
    interval: Interval, reach: float, colour: str, rope: float | None = None
) -> str:
    """An interval as a small SVG, on an axis from -reach to reach with zero marked.

    What differs too little to matter, from -rope to rope, is shaded.
    """
    width, height, edge = 120, 16, 4
    scale = (width / 2 - edge) / reach
    low, mean, high = (
        width / 2 + value * scale
        for value in (interval.low, interval.mean, interval.high)
    )
    band = ""
    if rope is not None:
        half = min(width / 2, rope * scale)
        left, right = width / 2 - half, width / 2 + half
        band = (
            f'<rect x="{left:.1f}" width="{right - left:.1f}" height="{height}"'
            ' fill="currentColor" opacity=".12"/>'
        )
    return (
        f'<svg class="whisker" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" aria-hidden="true">'
        f"{band}"
        f'<line x1="{width / 2}" x2="{width / 2}" y1="0" y2="{height}"'
        ' stroke="currentColor" stroke-width="1" opacity=".45"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="8" y2="8" stroke="{colour}"'
        ' stroke-width="2"/>'
        f'<circle cx="{mean:.1f}" cy="8" r="3.5" fill="{colour}"/></svg>'
    )


def _scatter(
    marks: Sequence[Mark],
    across: str,
    upwards: str,
    title: str,
    *,
    shared: bool = True,
) -> list[str]:
    """Marks with intervals, labelled unless they are spread over several columns.

    Args:
        marks: what is drawn.
        across, upwards: what the axes show.
        title: of the SVGs.
        shared: whether plots side by side have their axes in common.
    """
    found: dict[str | None, list[Mark]] = {}
    for mark in marks:
        found.setdefault(mark.row.column, []).append(mark)
    size = style.SMALL if len(found) > 1 else style.TALL
    svgs = []
    for column, part in found.items():
        with style.axes(*size) as axes:
            for mark in part:
                _draw(axes, mark)
            axes.margins(x=0.16, y=0.08)
            common = marks if shared else part
            if len(found) > 1:
                _limit(axes, [mark.x for mark in common], [mark.y for mark in common])
            if min(mark.y.mean for mark in common) >= 0:  # intervals know no limit
                axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
            style.log_if_wide(axes, "x", np.array([mark.x.mean for mark in common]))
            axes.set_xlabel(across)
            style.head(axes, column or upwards)
            if len(found) == 1:
                _name(axes, part)
            svgs.append(style.svg(axes, f"{title}, {column}" if column else title))
    return svgs


def _draw(axes: matplotlib.axes.Axes, mark: Mark) -> None:
    axes.errorbar(
        mark.x.mean,
        mark.y.mean,
        xerr=mark.x.half,
        yerr=mark.y.half,
        fmt=mark.style.mark,
        markersize=5,
        color=mark.style.colour,
        elinewidth=0.9,
        capsize=2,
    )


def _limit(
    axes: matplotlib.axes.Axes, across: Sequence[Interval], upwards: Sequence[Interval]
) -> None:
    """Limits in which all of some marks lie, with their intervals."""
    low, high = min(x.mean for x in across), max(x.mean for x in across)
    log = low > 0 and high >= 4 * low
    if not log:
        low, high = min(x.low for x in across), max(x.high for x in across)
    axes.set_xlim(*style.widened((low, high), "log" if log else "linear", 0.12))
    ends = min(y.low for y in upwards), max(y.high for y in upwards)
    axes.set_ylim(*style.widened(ends, "linear", 0.06))


def _cost(row: Row, name: str) -> Interval | None:
    if name == "ms_per_step":
        return row.ms_per_step
    cost = row.cost(name)
    return None if cost is None else Interval(float(cost), None, 1)


def _scaled(interval: Interval, factor: float) -> Interval:
    half = None if interval.half is None else interval.half / factor
    return Interval(interval.mean / factor, half, interval.count)


def _name(axes: matplotlib.axes.Axes, marks: Sequence[Mark]) -> None:
    """Writes the label of each row beside its mark, with a line if it is far off."""
    to_screen = axes.transData.transform
    axes.autoscale_view()
    axes.autoscale(False)  # labels must not widen the axes
    anchors, obstacles, sizes = [], [], []
    for mark in marks:
        x, y = mark.x, mark.y
        center = to_screen((x.mean, y.mean))
        ends = to_screen([(x.low, y.low), (x.high, y.high)])
        anchors.append(tuple(center))
        obstacles.append((*(center - 4), *(center + 4)))
        obstacles.append((center[0] - 1.5, ends[0, 1], center[0] + 1.5, ends[1, 1]))
        obstacles.append((ends[0, 0], center[1] - 1.5, ends[1, 0], center[1] + 1.5))
        sizes.append((0.6 * FONT * len(mark.row.kind), 1.25 * FONT))
    box = axes.bbox
    bounds = (box.x0 + 2, box.y0 + 2, box.x1, box.y1)
    centres = labels.place(anchors, sizes, obstacles, bounds)
    back = axes.transData.inverted().transform
    for mark, anchor, size, centre in zip(marks, anchors, sizes, centres, strict=True):
        nearest = np.clip(
            anchor,
            np.array(centre) - np.array(size) / 2,
            np.array(centre) + np.array(size) / 2,
        )
        if math.dist(nearest, anchor) > 16:
            ends = back([anchor, nearest])
            axes.plot(*ends.T, color=INK, alpha=0.35, linewidth=0.6, zorder=1)
        axes.text(
            *back(centre),
            mark.row.kind,
            ha="center",
            va="center",
            fontsize=FONT,
            parse_math=False,
        )
