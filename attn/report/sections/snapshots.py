"""Attention maps during training: the same examples at some of the steps."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from attn.report.analyse import numbers
from attn.report.analyse.table import Row
from attn.report.draw import maps, pictures
from attn.report.draw.maps import Attention, Strip
from attn.report.draw.style import Drawn, Style
from attn.report.read.results import Point
from attn.report.sections import budget as budgets
from attn.report.sections.attention import warps
from attn.report.sections.budget import Budget, Picture, Shown

FILE = "snapshots/*.npz"
EARLIER = "looks/*.npz"  # the name of the folder in older work directories
TEMPLATE = "snapshots.html"
BYTES = 1_200_000
# Examples, steps, kinds of maps and rows that are shown.
EXAMPLES, STEPS, KINDS, MOST_ROWS = 4, 6, 2, 8


@dataclasses.dataclass(frozen=True)
class Step:
    """The pictures at one step, one an example, or of a sampling grid two."""

    name: str
    pictures: tuple[Picture, ...]


@dataclasses.dataclass(frozen=True)
class Evolution:
    """One place in the network over the steps, on one scale of colours."""

    path: str
    what: str
    form: str
    scale: tuple[str, str] | None
    steps: tuple[Step, ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """The snapshots of one point of a row; the examples themselves if they help."""

    row: Row
    style: Style
    point: Point
    examples: tuple[Picture, ...]
    places: tuple[Evolution, ...]
    remarks: tuple[str, ...]


def section(drawn: Drawn, budget: Budget, most: int = MOST_ROWS) -> Shown | None:
    """The snapshots of rows with a point that has some, finished or not, or None."""
    make = lambda *of: _block(*of, budget)
    return budgets.shown(drawn, _keeper, make, budget, most)


def _keeper(row: Row) -> Point | None:
    """The first point of a row that has snapshots, a finished one if there is one."""
    rest = [point for point in row.points if point.result is None]
    return next((point for point in (*row.done, *rest) if _kept(point)), None)


def _kept(point: Point) -> list[tuple[int, pathlib.Path]]:
    """The steps at which a point has snapshots, with their files."""
    files = [*point.directory.glob(EARLIER), *point.directory.glob(FILE)]
    return sorted((int(path.stem), path) for path in files if path.stem.isdigit())


def _block(row: Row, row_style: Style, point: Point, budget: Budget) -> Block:
    """A line of pictures for each of some steps of one point of a row."""
    remarks = []
    by_step: list[tuple[int, Attention, list[Strip]]] = []
    for step, path in spaced(_kept(point), STEPS):
        attention, problem = maps.load(path, EXAMPLES)
        if attention is None:
            remarks.append(problem)
        else:
            by_step.append((step, attention, maps.strips(attention)[0]))
    places = tuple(
        _evolution(_at(by_step, place), budget)
        for place in _places(by_step[-1][2] if by_step else ())
    )
    examples: tuple[Picture, ...] = ()
    if any(place.form != "grid" for place in places) and by_step[-1][1].pictured:
        images = by_step[-1][1].images
        examples = budget.pictures([pictures.plain(image) for image in images])
    if by_step and not places:
        remarks.append("its snapshots show no attention")
    return Block(row, row_style, point, examples, places, tuple(remarks))


def _places(strips: Sequence[Strip]) -> list[tuple[Any, ...]]:
    """The strips that are followed over the steps: grids, else the last ones."""
    grids = [strip for strip in strips if strip.form == "grid"]
    return list(dict.fromkeys(map(_place, grids[:KINDS] or strips[-KINDS:])))


def _place(strip: Strip) -> tuple[Any, ...]:
    return strip.path, strip.form, strip.query


def _at(
    by_step: Sequence[tuple[int, Attention, list[Strip]]], place: tuple[Any, ...]
) -> list[tuple[int, Attention, Strip]]:
    """The strips of one place, step by step."""
    return [
        (step, attention, strip)
        for step, attention, strips in by_step
        for strip in strips
        if _place(strip) == place
    ]


def _evolution(
    found: Sequence[tuple[int, Attention, Strip]], budget: Budget
) -> Evolution:
    _, _, last = found[-1]
    alike = [one for one in found if one[2].values.shape == last.values.shape]
    images = np.concatenate([attention.images for _, attention, _ in alike])
    values = np.concatenate([strip.values for _, _, strip in alike])
    whole = dataclasses.replace(last, values=values)
    low, high = pictures.scale(whole)
    drawn = pictures.draw(whole, images)
    if last.form == "grid":
        pairs = zip(drawn, warps(images, values), strict=True)
        drawn = [picture for pair in pairs for picture in pair]
    each = len(drawn) // len(alike)
    return Evolution(
        path=last.path,
        what=last.what,
        form=last.form,
        scale=numbers.span(low, high) if last.form != "grid" and low < high else None,
        steps=tuple(
            Step(f"step {step:,}", budget.pictures(drawn[i * each : (i + 1) * each]))
            for i, (step, _, _) in enumerate(alike)
        ),
    )


def spaced(kept: Sequence[tuple[int, Any]], most: int) -> list[tuple[int, Any]]:
    """At most some steps, evenly spaced in their logarithm, the ends included.

    Where steps are too far apart for that, the next later ones take their place.
    """
    if len(kept) <= most:
        return list(kept)
    logs = np.log1p([step for step, _ in kept])
    chosen: list[int] = []
    for k, wanted in enumerate(np.linspace(logs[0], logs[-1], most)):
        nearest = int(np.argmin(np.abs(logs - wanted)))
        earliest = chosen[-1] + 1 if chosen else 0
        latest = len(kept) - (most - k)
        chosen.append(min(max(nearest, earliest), latest))
    return [kept[i] for i in chosen]
