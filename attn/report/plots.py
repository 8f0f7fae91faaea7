"""Plots as SVG that stand inline in a page: learning curves, error against cost.

Text and axes are `currentColor` and the ground is transparent, so that one plot
suits a light, a dark and a printed page. Figures are made without pyplot and leave
no state behind. Colours are those of Okabe and Ito, which the colour-blind tell
apart; beyond six rows the dashes of the lines and the shapes of the marks differ too.
"""

import dataclasses
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib
import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from attn.report import placement, table
from attn.report.results import Curve, Point
from attn.report.statistics import Interval
from attn.report.table import Row

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
BASELINE = "#808080"
DASHES = ((), (5, 1.6), (1.4, 1.4), (7, 1.6, 1.4, 1.6))
MARKS = ("o", "s", "^", "D")
INK = "#0a0b0c"  # stands for currentColor until the SVG is written
FONT = 8.5
SETTINGS = {
    "svg.fonttype": "none",
    "font.size": FONT,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclasses.dataclass(frozen=True)
class Look:
    """How a row is drawn in every plot: colour, dashes of its lines, shape of marks."""

    colour: str
    dashes: tuple[float, ...]
    mark: str

    @property
    def dasharray(self) -> str:
        """The dashes as SVG writes them."""
        return " ".join(map(str, self.dashes)) or "none"


def looks(rows: Sequence[Row]) -> list[Look]:
    """A look for each row; the baseline is grey."""
    found, used = [], 0
    for row in rows:
        if row.baseline:
            found.append(Look(BASELINE, (), "o"))
            continue
        turn, colour = divmod(used, len(OKABE_ITO))
        found.append(
            Look(
                OKABE_ITO[colour],
                DASHES[turn % len(DASHES)],
                MARKS[turn % len(MARKS)],
            )
        )
        used += 1
    return found


def learning(
    rows: Sequence[Row],
    split: str,
    quantity: Literal["loss", "error"],
    label: str,
) -> str | None:
    """Curves over the steps, as SVG; None if no point has one.

    A line is the mean over the finished seeds of a row and its band reaches from the
    lowest to the highest seed. Points that are not finished are thin dotted lines.
    """
    with matplotlib.rc_context(SETTINGS):
        axes = _axes(width=4.4, height=3.0)
        shown = []
        for look, row in zip(looks(rows), rows, strict=True):
            done, rest = _split(row.points, split)
            for curve in rest:
                values = getattr(curve, quantity)
                axes.plot(curve.steps, values, ":", color=look.colour, linewidth=0.9)
                shown.append(values)
            if done:
                shown.append(_band(axes, look, done, quantity, row.baseline))
        if not shown:
            return None
        _log_if_wide(axes, "y", np.concatenate(shown))
        axes.set_xlabel("step")
        axes.set_title(label, loc="left", fontsize=FONT + 0.5)
        return _svg(axes, f"{label} over the steps")


def against(rows: Sequence[Row], cost: str, label: str) -> str | None:
    """Test error against a cost, with intervals and labels, as SVG.

    Args:
        rows: rows without a finished point or without this cost are left out.
        cost: "parameters", "macs" or "ms_per_step".
        label: name of the cost, without its prefix of size.

    Returns:
        None if nothing can be drawn.
    """
    known = [
        (row, look, _cost(row, cost))
        for row, look in zip(rows, looks(rows), strict=True)
        if row.error is not None and _cost(row, cost) is not None
    ]
    if not known:
        return None
    factor, prefix = table.unit(at.mean for _, _, at in known)
    with matplotlib.rc_context(SETTINGS):
        axes = _axes(width=3.7, height=3.3)
        for row, look, at in known:
            axes.errorbar(
                at.mean / factor,
                row.error.mean,
                xerr=None if at.half is None else at.half / factor,
                yerr=row.error.half,
                fmt=look.mark,
                markersize=5,
                color=look.colour,
                elinewidth=0.9,
                capsize=2,
            )
        axes.margins(x=0.16, y=0.08)
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))  # intervals know no limit
        _log_if_wide(axes, "x", np.array([at.mean / factor for _, _, at in known]))
        axes.set_xlabel(f"{label} ({prefix})" if prefix else label)
        axes.set_title("test error, %", loc="left", fontsize=FONT + 0.5)
        _name([(row, at.mean / factor, at.half) for row, _, at in known], axes, factor)
        return _svg(axes, f"test error against {label}")


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


def _cost(row: Row, name: str) -> Interval | None:
    if name == "ms_per_step":
        return row.ms_per_step
    cost = row.cost(name)
    return None if cost is None else Interval(float(cost), None, 1)


def _split(points: Sequence[Point], split: str) -> tuple[list[Curve], list[Curve]]:
    """The curves of the finished points, and those of the others."""
    done, rest = [], []
    for point in points:
        if split in point.curves:
            (rest if point.result is None else done).append(point.curves[split])
    return done, rest


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
    marks: Sequence[tuple[Row, float, float | None]],
    axes: matplotlib.axes.Axes,
    factor: float,
) -> None:
    """Writes the label of each row beside its mark, with a line if it is far off."""
    to_screen = axes.transData.transform
    axes.autoscale_view()
    axes.autoscale(False)  # labels must not widen the axes
    anchors, obstacles, sizes = [], [], []
    for row, x, half in marks:
        error = row.error
        center = to_screen((x, error.mean))
        reach = (half or 0.0) / factor
        ends = to_screen([(x - reach, error.low), (x + reach, error.high)])
        anchors.append(tuple(center))
        obstacles.append((*(center - 4), *(center + 4)))
        obstacles.append((center[0] - 1.5, ends[0, 1], center[0] + 1.5, ends[1, 1]))
        obstacles.append((ends[0, 0], center[1] - 1.5, ends[1, 0], center[1] + 1.5))
        sizes.append((0.6 * FONT * len(row.label), 1.25 * FONT))
    box = axes.bbox
    bounds = (box.x0 + 2, box.y0 + 2, box.x1, box.y1)
    centres = placement.place(anchors, sizes, obstacles, bounds)
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
            row.label,
            ha="center",
            va="center",
            fontsize=FONT,
            parse_math=False,
        )


def _axes(width: float, height: float) -> matplotlib.axes.Axes:
    """Axes of a new figure, inches; at 72 dpi a pixel is a unit of the SVG."""
    figure = matplotlib.figure.Figure((width, height), dpi=72, layout=None)
    left, bottom = 0.42, 0.44
    place = (
        left / width,
        bottom / height,
        1 - (left + 0.1) / width,
        1 - (bottom + 0.27) / height,
    )
    axes = figure.add_axes(place)
    axes.grid(color=INK, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, width=0.6)
    return axes


def _log_if_wide(
    axes: matplotlib.axes.Axes, side: Literal["x", "y"], values: np.ndarray
) -> None:
    """A logarithmic axis where the values are positive and span a factor of 4."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 4 * values.min():
        return
    axes.set(**{f"{side}scale": "log"})
    axis = getattr(axes, f"{side}axis")
    subs = (1, 2, 5) if values.max() > 30 * values.min() else (1, 2, 3, 5, 7)
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def _svg(axes: matplotlib.axes.Axes, title: str) -> str:
    """The figure as an SVG element that takes its colour and font from the page."""
    buffer = io.StringIO()
    # Ids within one page must differ, and the same input must give the same page.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        axes.figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    svg = re.sub(
        r' width="[\d.]+pt"| height="[\d.]+pt"| xmlns(:xlink)?="[^"]*"', "", svg
    )
    svg = svg.replace("xlink:href", "href").replace("\n", " ")
    svg = svg.replace(INK, "currentColor")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
