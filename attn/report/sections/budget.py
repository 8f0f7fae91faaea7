"""Pictures of a section within its budget of bytes, and the rows that are shown.

Pictures are most of a page, so each section of a sweep has a budget for them: rows are
shown, spread over kinds and columns, until it is used up; the others are named.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import PIL.Image

from attn.report.analyse.table import Row
from attn.report.draw import pictures
from attn.report.draw.style import Drawn, Style
from attn.report.read.results import Point

Block = TypeVar("Block")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as a page takes it: a data URI and the size in pixels."""

    source: str
    width: int
    height: int


@dataclasses.dataclass
class Budget:
    """Bytes of pictures that a section may still take."""

    left: int

    def picture(self, picture: PIL.Image.Image, *, exact: bool = False) -> Picture:
        """A picture, encoded, with few colours unless exact; its bytes are counted."""
        source = pictures.encode(picture, exact=exact)
        self.left -= len(source)
        return Picture(source, *picture.size)

    def pictures(self, some: Sequence[PIL.Image.Image]) -> tuple[Picture, ...]:
        """Some pictures."""
        return tuple(map(self.picture, some))


@dataclasses.dataclass(frozen=True)
class Shown:
    """The blocks that are shown, and the labels of rows that are not."""

    blocks: tuple[Any, ...]
    others: tuple[str, ...]


def shown(
    drawn: Drawn,
    keeper: Callable[[Row], Point | None],
    make: Callable[[Row, Style, Point], Any],
    budget: Budget,
    most: int,
) -> Shown | None:
    """A block for each of some rows that keep an artefact; None if no row does.

    Args:
        drawn: the rows.
        keeper: the point of a row whose artefact is shown, or None.
        make: a block, which has a field `row`.
        budget: of the section.
        most: rows at most.
    """
    points = {row.label: keeper(row) for row, _ in drawn}
    kept = [pair for pair in drawn if points[pair[0].label] is not None]
    if not kept:
        return None

    def block(row: Row, row_style: Style) -> Any:
        point = points[row.label]
        assert point is not None
        return make(row, row_style, point)

    blocks = until_used(few(kept, most), block, budget)
    labels = {one.row.label for one in blocks}
    others = tuple(row.label for row, _ in kept if row.label not in labels)
    return Shown(tuple(blocks), others)


def first_with(row: Row, file: str) -> Point | None:
    """The first finished point of a row that has a file."""
    return next((p for p in row.done if (p.directory / file).is_file()), None)


def until_used(
    drawn: Drawn, make: Callable[[Row, Style], Block], budget: Budget
) -> list[Block]:
    """A block for each of some rows, for as long as the budget lasts."""
    found = []
    for row, row_style in drawn:
        if budget.left <= 0:
            break
        found.append(make(row, row_style))
    return found


def few(drawn: Drawn, most: int) -> Drawn:
    """At most some rows, of each kind in turn another column, in the order of all."""
    kinds = list(dict.fromkeys(row.kind for row, _ in drawn))
    columns = list(dict.fromkeys(row.column for row, _ in drawn))

    def turn(row: Row) -> tuple[int, int]:
        kind, column = kinds.index(row.kind), columns.index(row.column)
        return (column - kind) % len(columns), kind

    first = sorted((row for row, _ in drawn), key=turn)[:most]
    labels = {row.label for row in first}
    return [(row, row_style) for row, row_style in drawn if row.label in labels]
