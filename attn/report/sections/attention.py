"""Attention maps of each row, on the same examples."""

import dataclasses

import numpy as np
import PIL.Image

from attn.report.analyse import numbers
from attn.report.analyse.table import Row
from attn.report.draw import maps, pictures
from attn.report.draw.maps import Attention, Strip
from attn.report.draw.style import Drawn, Style
from attn.report.read.results import Point
from attn.report.sections import budget as budgets
from attn.report.sections.budget import Budget, Picture

FILE = "attention.npz"
TEMPLATE = "attention.html"
BYTES = 3_000_000
EXAMPLES, MOST_ROWS = 8, 12


@dataclasses.dataclass(frozen=True)
class Example:
    """An example: its picture if it has one, and what is written under it."""

    picture: Picture | None
    caption: str
    wrong: bool


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of pictures, one an example, or of a sampling grid two.

    Attributes:
        path: where in the network the maps were recorded.
        what: what they are.
        form: how they are drawn.
        scale: the values at the ends of the colours, None without a scale.
        pictures: of the examples.
    """

    path: str
    what: str
    form: str
    scale: tuple[str, str] | None
    pictures: tuple[Picture, ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """The maps of one row, of the first of its points that has some."""

    row: Row
    style: Style
    point: Point | None
    examples: tuple[Example, ...]
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Section:
    """The blocks that are shown, and labels of rows that are not, or not finished."""

    blocks: tuple[Block, ...]
    others: tuple[str, ...]
    unfinished: tuple[str, ...]


def section(drawn: Drawn, budget: Budget, most: int = MOST_ROWS) -> Section | None:
    """The maps of rows with a finished point; None if no point has the file.

    Rows that record no attention are shown only where none does.
    """
    done = [(row, row_style) for row, row_style in drawn if row.done]
    if not any((p.directory / FILE).is_file() for row, _ in done for p in row.done):
        return None
    chosen = budgets.few([pair for pair in done if _tells(pair[0])] or done, most)
    blocks = budgets.until_used(chosen, lambda *pair: _block(*pair, budget), budget)
    shown = {block.row.label for block in blocks}
    return Section(
        blocks=tuple(blocks),
        others=tuple(row.label for row, _ in done if row.label not in shown),
        unfinished=tuple(row.label for row, _ in drawn if not row.done),
    )


def _tells(row: Row) -> bool:
    """Whether a row has maps, or a file that cannot be read."""
    _, attention, _ = _first(row, 1)
    return attention is None or bool(attention.maps)


def _first(row: Row, most: int) -> tuple[Point | None, Attention | None, list[str]]:
    """The first finished point of a row whose maps can be read, its maps, problems."""
    problems = []
    for point in row.done:
        attention, problem = maps.load(point.directory / FILE, most)
        if attention is not None:
            return point, attention, problems
        problems.append(f"{point.name}: {problem}")
    return None, None, problems


def _block(row: Row, row_style: Style, budget: Budget) -> Block:
    point, attention, remarks = _first(row, EXAMPLES)
    if attention is None:
        return Block(row, row_style, None, (), (), tuple(remarks))
    strips, more = maps.strips(attention)
    remarks = [*remarks, *more]
    if not attention.maps:
        remarks.append("it records no attention")
    examples = tuple(
        _example(attention, i, budget) for i in range(len(attention.images))
    )
    drawn = tuple(line for strip in strips for line in lines(strip, attention, budget))
    return Block(row, row_style, point, examples, drawn, tuple(remarks))


def _example(attention: Attention, i: int, budget: Budget) -> Example:
    picture = None
    if attention.pictured:
        picture = budget.picture(pictures.plain(attention.images[i]))
    caption, wrong = attention.captions[i]
    return Example(picture, caption, wrong)


def lines(strip: Strip, attention: Attention, budget: Budget) -> list[Line]:
    """A line of pictures; a sampling grid has a second one, of what it reads."""
    low, high = pictures.scale(strip)
    drawn = budget.pictures(pictures.draw(strip, attention.images))
    scaled = strip.form != "grid" and low < high
    what = strip.what
    if strip.form == "heat" and low == high:
        what += f", {numbers.span(low, high)[0]} everywhere"
    scale = numbers.span(low, high) if scaled else None
    line = Line(strip.path, what, strip.form, scale, drawn)
    if strip.form != "grid":
        return [line]
    warped = budget.pictures(warps(attention.images, strip.values))
    reads = dataclasses.replace(line, what="what the grid reads", pictures=warped)
    return [line, reads]


def warps(images: np.ndarray, grids: np.ndarray) -> list[PIL.Image.Image]:
    """Images [n, H, W, 3] as grids [n, H, W, 2] read them."""
    return [pictures.warp(*pair) for pair in zip(images, grids, strict=True)]
