"""Channel gates by class and depth, as Figure 6 of SENet (Hu et al., arXiv 1709.01507).

For each place in the network with a gate on channels: the gate of each channel, mean
over the examples of a class, for some classes and over all of them. Early gates
hardly depend on the class, later ones do: the spread between classes by depth shows
by how much. Letters: K classes, C channels.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from attn.report.analyse.table import Row
from attn.report.draw import style
from attn.report.draw.style import INK, Drawn, Style
from attn.report.read.damages import DAMAGES
from attn.report.read.results import Point
from attn.report.sections.budget import Budget

FILE = "gates.npz"
TEMPLATE = "class_gates.html"
BYTES = 0  # its plots are no pictures
CLASSES = 5
MOST_CHANNELS = 96  # of a layer are drawn
MOST_DEPTHS, MOST_ROWS = 8, 4


@dataclasses.dataclass(frozen=True)
class Gates:
    """Mean gates of a point: at each place in the network an array [K, C]."""

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    means: tuple[np.ndarray, ...]

    @property
    def spreads(self) -> list[float]:
        """At each place the deviation between classes, mean over channels."""
        return [float(np.nanmean(np.nanstd(mean, axis=0))) for mean in self.means]


@dataclasses.dataclass(frozen=True)
class Block:
    """The gates of one row.

    Attributes:
        row, style, point: whose gates they are.
        plots: one a depth.
        classes: that have a line of their own, with its colour.
        depths: how many are shown, and how many there are.
    """

    row: Row
    style: Style
    point: Point
    plots: tuple[str, ...]
    classes: tuple[tuple[str, str], ...]
    depths: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Section:
    """The blocks, the plot of the spread, and the labels of rows only in that."""

    blocks: tuple[Block, ...]
    spread: str
    unshown: tuple[str, ...]
    remarks: tuple[str, ...]
    legend: tuple[tuple[Row, Style], ...]


def read(point: Point) -> tuple[Gates | None, str | None]:
    """The mean gates of a point, or None and what is the matter, if something is."""
    path = point.directory / FILE
    if not path.is_file():
        return None, None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return _gates(archive), None
    except DAMAGES as error:
        return None, f"its {FILE} cannot be read ({type(error).__name__})"


def _gates(archive: Any) -> Gates:
    classes = tuple(str(name) for name in archive["classes"])
    index = json.loads(str(archive["index"]))
    means = tuple(np.asarray(archive[entry["key"]], np.float64) for entry in index)
    for mean in means:
        if mean.ndim != 2 or len(mean) != len(classes) or not mean.size:
            raise ValueError(f"means of shape {mean.shape}")
    paths = tuple(
        str(entry["path"]).rpartition("/")[0] or "whole network" for entry in index
    )
    return Gates(classes, paths, means)


def section(drawn: Drawn, budget: Budget) -> Section | None:
    """The gates of the rows whose points record some; None if none does."""
    del budget
    found, remarks = [], []
    for row, row_style in drawn:
        for point in row.done:
            gates, problem = read(point)
            if problem:
                remarks.append(f"{point.name}: {problem}")
            if gates is not None and gates.means:
                found.append((row, row_style, point, gates))
                break
    if not found:
        return None
    return Section(
        blocks=tuple(_block(*one) for one in found[:MOST_ROWS]),
        spread=by_depth([(row_style, gates) for _, row_style, _, gates in found]),
        unshown=tuple(row.label for row, *_ in found[MOST_ROWS:]),
        remarks=tuple(remarks),
        legend=tuple((row, row_style) for row, row_style, *_ in found),
    )


def _block(row: Row, row_style: Style, point: Point, gates: Gates) -> Block:
    return Block(
        row=row,
        style=row_style,
        point=point,
        plots=tuple(by_class(gates, row.label)),
        classes=tuple(chosen(gates.classes)),
        depths=(min(len(gates.means), MOST_DEPTHS), len(gates.means)),
    )


def chosen(classes: Sequence[str]) -> list[tuple[str, str]]:
    """The classes that have a line of their own, from first to last, with colours."""
    places = _spread(len(classes), CLASSES)
    colours = style.OKABE_ITO
    return [(classes[k], colours[i]) for i, k in enumerate(places)]


def by_class(gates: Gates, label: str) -> list[str]:
    """A plot for each depth: the gates of the channels, by class and over all."""
    places = _spread(len(gates.means), MOST_DEPTHS)
    reach = style.finite_range([gates.means[i] for i in places]) or (0.0, 1.0)
    room = 0.04 * (reach[1] - reach[0]) or 0.05
    svgs = []
    for i in places:
        mean = gates.means[i]
        some = _spread(mean.shape[1], MOST_CHANNELS)
        with style.axes(*style.SMALL) as axes:
            for (_, colour), k in zip(
                chosen(gates.classes), _spread(len(mean), CLASSES), strict=True
            ):
                axes.plot(some, mean[k, some], color=colour, linewidth=0.8)
            axes.plot(some, np.nanmean(mean, axis=0)[some], color=INK, linewidth=1.8)
            axes.set_ylim(reach[0] - room, reach[1] + room)
            axes.set_xlim(-0.5, mean.shape[1] - 0.5)
            axes.set_xlabel("channel")
            style.head(axes, f"{i + 1}  {gates.paths[i]}")
            title = f"gates by class at {gates.paths[i]}, {label}"
            svgs.append(style.svg(axes, title))
    return svgs


def by_depth(found: Sequence[tuple[Style, Gates]]) -> str:
    """The spread between classes at each depth, a line a row."""
    with style.axes(*style.WIDE) as axes:
        for row_style, gates in found:
            depths = np.arange(1, len(gates.means) + 1)
            axes.plot(
                depths,
                gates.spreads,
                color=row_style.colour,
                dashes=row_style.dashes or (None, None),
                marker=row_style.mark,
                markersize=4,
                linewidth=1.4,
            )
        style.from_zero(axes)
        style.whole_numbers(axes, max(len(gates.means) for _, gates in found))
        axes.set_xlabel("depth: number of the gate, from the input on")
        style.head(axes, "spread of gates between classes")
        return style.svg(axes, "spread of gates between classes by depth")


def _spread(count: int, most: int) -> list[int]:
    """At most some of `count` places, evenly spaced from first to last."""
    if count <= most:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()
