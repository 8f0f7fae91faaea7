"""Plots of a sweep: learning curves, error against cost, ours against the paper's.

Each is a list of SVGs: one, or where the sweep has columns one for each column, on
common axes. What they have in common is in `attn.report.draw.style`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import matplotlib.axes
import numpy as np

from attn.report.analyse import table
from attn.report.analyse.published import Cell, Comparison
from attn.report.analyse.statistics import Interval
from attn.report.analyse.table import Row
from attn.report.draw import labels, style
from attn.report.draw.style import FONT, INK, Look
from attn.report.read.results import Curve, Point

# A row with the way it is drawn; all plots of a page take the same.
Drawn = Sequence[tuple[Row, Look]]
MOST_STEPS = 160  # of a curve are drawn


def columns(drawn: Drawn) -> list[tuple[str | None, Drawn]]:
    """The rows by their column, in order; all under None if there are none."""
    found: dict[str | None, list[tuple[Row, Look]]] = {}
    for row, look in drawn:
        found.setdefault(row.column, []).append((row, look))
    return list(found.items())


def learning(
    drawn: Drawn,
    split: str,
    quantity: Literal["loss", "error"],
    label: str,
) -> list[str]:
    """Curves over the steps, as SVGs; none if no point has one.

    A line is the mean over the finished seeds of a row and its band reaches from the
    lowest to the highest seed. Points that are not finished are thin dotted lines.
    """
    reach = style.finite_range(
        [
            getattr(curve, quantity)
            for row, _ in drawn
            for point in row.points
            for name, curve in point.curves.items()
            if name == split
        ]
    )
    if reach is None:
        return []
    panels = columns(drawn)
    size = style.SMALL if len(panels) > 1 else style.WIDE
    found = []
    for column, part in panels:
        with style.axes(*size) as axes:
            shown = []
            for row, look in part:
                done, rest = _split(row.points, split)
                for curve in rest:
                    curve = _thinned(curve)
                    values = getattr(curve, quantity)
                    axes.plot(
                        curve.steps, values, ":", color=look.colour, linewidth=0.9
                    )
                    shown.append(values)
                if done:
                    shown.append(_band(axes, look, done, quantity, row.baseline))
            if len(panels) > 1:
                style.log_if_wide(axes, "y", np.array(reach))
                axes.set_ylim(*_widened(reach, axes.get_yscale()))
            elif shown:
                style.log_if_wide(axes, "y", np.concatenate(shown))
            axes.set_xlabel("step")
            style.head(axes, column or label)
            found.append(style.svg(axes, _titled(f"{label} over the steps", column)))
    return found


def against(drawn: Drawn, cost: str, label: str) -> list[str]:
    """Test error against a cost, with intervals and labels, as SVGs.

    Side by side the plots have no room for labels and rely on the legend.

    Args:
        drawn: rows without a finished point or without this cost are left out.
        cost: "parameters", "macs" or "ms_per_step".
        label: name of the cost, without its prefix of size.

    Returns:
        Nothing if nothing can be drawn.
    """
    known = [
        (row, look)
        for row, look in drawn
        if row.error is not None and _cost(row, cost) is not None
    ]
    if not known:
        return []
    factor, prefix = table.unit(_cost(row, cost).mean for row, _ in known)
    share = lambda row: _scaled(_cost(row, cost), factor)
    return _scatter(
        [(row, look, share(row), row.error) for row, look in known],
        f"{label} ({prefix})" if prefix else label,
        "test error, %",
        f"test error against {label}",
    )


def alike(rows: Iterable[Row], cost: str) -> bool:
    """Whether a cost agrees within 1 % in all rows, so that it orders nothing."""
    costs = [_cost(row, cost) for row in rows]
    known = [at.mean for at in costs if at is not None]
    return len(known) > 1 and min(known) > 0 and max(known) <= 1.01 * min(known)


def beside(comparison: Comparison, look: Callable[[Row], Look]) -> list[str]:
    """Our test error against the paper's, a mark a row, as SVGs; [] without errors."""
    marks = []
    for line in comparison.lines:
        for column, cell in zip(comparison.columns, line.cells, strict=True):
            if column.ranked and cell.complete:
                marks.append((*_pair(cell), Interval(cell.theirs, None, 1)))
    return _scatter(
        [(row, look(row), theirs, ours) for row, ours, theirs in marks],
        "the paper's, %",
        "ours, %",
        "our test error against the paper's",
        shared=False,
    )


def whisker(interval: Interval, reach: float, colour: str) -> str:
    """An interval as a small SVG, on an axis from -reach to reach with zero marked."""
    width, height, edge = 120, 16, 4
    at = lambda value: width / 2 + value / reach * (width / 2 - edge)
    low, mean, high = (at(v) for v in (interval.low, interval.mean, interval.high))
    return (
        f'<svg class="whisker" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" aria-hidden="true">'
        f'<line x1="{width / 2}" x2="{width / 2}" y1="0" y2="{height}"'
        ' stroke="currentColor" stroke-width="1" opacity=".45"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="8" y2="8" stroke="{colour}"'
        ' stroke-width="2"/>'
        f'<circle cx="{mean:.1f}" cy="8" r="3.5" fill="{colour}"/></svg>'
    )


def _pair(cell: Cell) -> tuple[Row, Interval]:
    assert cell.row is not None and cell.ours is not None
    return cell.row, cell.ours


def _titled(title: str, column: str | None) -> str:
    return f"{title}, {column}" if column else title


def _scatter(
    marks: Sequence[tuple[Row, Look, Interval, Interval]],
    across: str,
    upwards: str,
    title: str,
    *,
    shared: bool = True,
) -> list[str]:
    """Marks with intervals, labelled unless they are spread over several columns.

    Args:
        marks: row, its look, what it is across and what it is upwards.
        across, upwards: what the axes show.
        title: of the SVGs.
        shared: whether plots side by side have their axes in common.
    """
    if not marks:
        return []
    found: dict[str | None, list[tuple[Row, Look, Interval, Interval]]] = {}
    for mark in marks:
        found.setdefault(mark[0].column, []).append(mark)
    size = style.SMALL if len(found) > 1 else style.TALL
    svgs = []
    for column, part in found.items():
        with style.axes(*size) as axes:
            for _, look, x, y in part:
                axes.errorbar(
                    x.mean,
                    y.mean,
                    xerr=x.half,
                    yerr=y.half,
                    fmt=look.mark,
                    markersize=5,
                    color=look.colour,
                    elinewidth=0.9,
                    capsize=2,
                )
            axes.margins(x=0.16, y=0.08)
            common = marks if shared else part
            if len(found) > 1:
                _limit(axes, [x for _, _, x, _ in common], [y for *_, y in common])
            axes.set_ylim(
                bottom=max(0.0, axes.get_ylim()[0])
            )  # intervals know no limit
            style.log_if_wide(axes, "x", np.array([x.mean for _, _, x, _ in common]))
            axes.set_xlabel(across)
            style.head(axes, column or upwards)
            if len(found) == 1:
                _name(axes, [(row, x, y) for row, _, x, y in part])
            svgs.append(style.svg(axes, _titled(title, column)))
    return svgs


def _limit(
    axes: matplotlib.axes.Axes, across: Sequence[Interval], upwards: Sequence[Interval]
) -> None:
    """Limits in which all of some marks lie, with their intervals."""
    low, high = min(x.mean for x in across), max(x.mean for x in across)
    log = low > 0 and high >= 4 * low
    if not log:
        low, high = min(x.low for x in across), max(x.high for x in across)
    axes.set_xlim(*_widened((low, high), "log" if log else "linear", 0.12))
    ends = min(y.low for y in upwards), max(y.high for y in upwards)
    axes.set_ylim(*_widened(ends, "linear", 0.06))


def _widened(
    reach: tuple[float, float], scale: str, share: float = 0.05
) -> tuple[float, float]:
    """Limits a little wider than a range."""
    low, high = reach
    if scale == "log":
        factor = (high / low) ** share
        return low / factor, high * factor
    room = share * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _cost(row: Row, name: str) -> Interval | None:
    if name == "ms_per_step":
        return row.ms_per_step
    cost = row.cost(name)
    return None if cost is None else Interval(float(cost), None, 1)


def _scaled(interval: Interval, factor: float) -> Interval:
    half = None if interval.half is None else interval.half / factor
    return Interval(interval.mean / factor, half, interval.count)


def _split(points: Sequence[Point], split: str) -> tuple[list[Curve], list[Curve]]:
    """The curves of the finished points, and those of the others."""
    done, rest = [], []
    for point in points:
        if split in point.curves:
            (rest if point.result is None else done).append(point.curves[split])
    return done, rest


def _some(count: int) -> np.ndarray:
    """Places of at most MOST_STEPS of `count` steps, the first and last included."""
    if count <= MOST_STEPS:
        return np.arange(count)
    return np.linspace(0, count - 1, MOST_STEPS).round().astype(int)


def _thinned(curve: Curve) -> Curve:
    some = _some(len(curve.steps))
    return Curve(curve.steps[some], curve.loss[some], curve.error[some])


def _band(
    axes: matplotlib.axes.Axes,
    look: Look,
    curves: Sequence[Curve],
    quantity: str,
    baseline: bool,
) -> np.ndarray:
    """Draws mean and range over the steps that all curves have; returns the means."""
    series: list[Mapping[int, float]] = [
        dict(zip(curve.steps.tolist(), getattr(curve, quantity), strict=True))
        for curve in curves
    ]
    steps = sorted(set.intersection(*(set(one) for one in series)))
    steps = [steps[i] for i in _some(len(steps))]
    values = np.array([[one[step] for step in steps] for one in series])
    means = values.mean(axis=0)
    if len(curves) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.16, linewidth=0)
    axes.plot(
        steps,
        means,
        color=look.colour,
        dashes=look.dashes or (None, None),
        linewidth=2.0 if baseline else 1.4,
        marker=look.mark if len(steps) <= 12 else None,
        markersize=3,
    )
    return means


def _name(
    axes: matplotlib.axes.Axes, marks: Sequence[tuple[Row, Interval, Interval]]
) -> None:
    """Writes the label of each row beside its mark, with a line if it is far off."""
    to_screen = axes.transData.transform
    axes.autoscale_view()
    axes.autoscale(False)  # labels must not widen the axes
    anchors, obstacles, sizes = [], [], []
    for row, x, y in marks:
        center = to_screen((x.mean, y.mean))
        ends = to_screen([(x.low, y.low), (x.high, y.high)])
        anchors.append(tuple(center))
        obstacles.append((*(center - 4), *(center + 4)))
        obstacles.append((center[0] - 1.5, ends[0, 1], center[0] + 1.5, ends[1, 1]))
        obstacles.append((ends[0, 0], center[1] - 1.5, ends[1, 0], center[1] + 1.5))
        sizes.append((0.6 * FONT * len(row.kind), 1.25 * FONT))
    box = axes.bbox
    bounds = (box.x0 + 2, box.y0 + 2, box.x1, box.y1)
    centres = labels.place(anchors, sizes, obstacles, bounds)
    back = axes.transData.inverted().transform
    for (row, *_), anchor, size, centre in zip(
        marks, anchors, sizes, centres, strict=True
    ):
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
            row.kind,
            ha="center",
            va="center",
            fontsize=FONT,
            parse_math=False,
        )
