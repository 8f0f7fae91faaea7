"""Learning curves of a sweep, as SVGs: one, or one for each of its columns."""

from collections.abc import Sequence

import matplotlib.axes
import numpy as np

from attn.report.analyse.table import Row
from attn.report.draw import style
from attn.report.draw.style import Drawn, Style
from attn.report.read.curves import Curve

MOST_STEPS = 160  # of a curve are drawn


def learning(drawn: Drawn, split: str, name: str, label: str) -> list[str]:
    """Curves of a quantity on a split over the steps, as SVGs; none if there are none.

    A line is the mean over the finished seeds of a row and its band reaches from the
    lowest to the highest seed. Points that are not finished are thin dotted lines.
    """
    reach = style.finite_range(
        [
            curve.values
            for row, _ in drawn
            for point in row.points
            if (curve := point.curve(split, name)) is not None
        ]
    )
    if reach is None:
        return []
    panels = style.panels(drawn)
    size = style.SMALL if len(panels) > 1 else style.WIDE
    found = []
    for column, part in panels:
        with style.axes(*size) as axes:
            shown = [
                values
                for row, row_style in part
                for values in _draw(axes, row, row_style, split, name)
            ]
            if len(panels) > 1:
                style.log_if_wide(axes, "y", np.array(reach))
                axes.set_ylim(*style.widened(reach, axes.get_yscale()))
            elif shown:
                style.log_if_wide(axes, "y", np.concatenate(shown))
            if axes.get_yscale() == "linear" and reach[0] >= 0:
                axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
            style.whole_numbers(axes)
            axes.set_xlabel("step")
            style.head(axes, column or label)
            title = f"{label} over the steps"
            found.append(style.svg(axes, f"{title}, {column}" if column else title))
    return found


def _draw(
    axes: matplotlib.axes.Axes, row: Row, row_style: Style, split: str, name: str
) -> list[np.ndarray]:
    """Draws the curves of a row; returns the values that were drawn."""
    shown, finished = [], []
    for point in row.points:
        curve = point.curve(split, name)
        if curve is None:
            continue
        if point.result is not None:
            finished.append(curve)
            continue
        some = _some(len(curve.steps))
        steps, values = curve.steps[some], curve.values[some]
        axes.plot(steps, values, ":", color=row_style.colour, linewidth=0.9)
        shown.append(values)
    if finished:
        shown.append(_band(axes, row_style, finished, row.baseline))
    return shown


def _some(count: int) -> np.ndarray:
    """Places of at most MOST_STEPS of `count` steps, the first and last included."""
    if count <= MOST_STEPS:
        return np.arange(count)
    return np.linspace(0, count - 1, MOST_STEPS).round().astype(int)


def _band(
    axes: matplotlib.axes.Axes,
    row_style: Style,
    curves: Sequence[Curve],
    baseline: bool,
) -> np.ndarray:
    """Draws mean and range over the steps that all curves have; returns the means."""
    series = [
        dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
        for curve in curves
    ]
    steps = sorted(set.intersection(*(set(one) for one in series)))
    steps = [steps[i] for i in _some(len(steps))]
    values = np.array([[one[step] for step in steps] for one in series])
    means = values.mean(axis=0)
    colour = row_style.colour
    if len(curves) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(
        steps,
        means,
        color=colour,
        dashes=row_style.dashes or (None, None),
        linewidth=2.0 if baseline else 1.4,
        marker=row_style.mark if len(steps) <= 12 else None,
        markersize=3,
    )
    return means
