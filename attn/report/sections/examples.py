"""Examples with what a model makes of them: images, pairs, boxes, poses, texts.

The artefact holds n examples, the same for all points of a sweep, as fields, each
a line of the section. "index" tells by JSON of each field its "name", its "kind" and
the "keys" of its arrays:

    image    [n, H, W, C] in [0, 1], C from 1 to 3
    pair     two such images, such as target and output: both, and their difference
    boxes    float [n, M, 4], (x0, y0, x1, y1) in pixels of the image field that "on"
             names, their names, str [n, M], and if they are known their classes, int
             [n, M], by which they have colours; boxes without area are left out
    path     places [n, T, 2], (x, y) in [-1, 1] of the image field that "on" names, one
             after another, and the sides (height, width) of what is seen there, [n, 2]
    pose     joints float [n, J, 2], (x, y) in pixels of the image field that "on"
             names, and limbs int [n, L, 2], pairs of joints; NaN are not drawn
    mosaic   images [n, R, T, h, w, C] in [0, 1], in R rows of T
    heat     float [n, h, w], where the model looks in the image field that "on" names,
             and whose attention it is, in pixels: a box [n, 4] or a place [n, 2]
    words    float [n, T, h, w], what each of T words read of the image field that "on"
             names, and these words, str [n, T], "" for none
    text     str [n]; where "expected" names another text field, those that differ
             from it are marked

To add a kind: a function in KINDS, and in LEGEND how to read it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from attn.report.analyse.table import Row
from attn.report.draw import maps, pictures
from attn.report.draw.style import Drawn, Style
from attn.report.read.damages import DAMAGES
from attn.report.read.results import Point
from attn.report.sections import budget as budgets
from attn.report.sections.budget import Budget, Picture, Shown

FILE = "examples.npz"
TEMPLATE = "examples.html"
BYTES = 1_500_000
EXAMPLES, MOST_ROWS = 6, 8


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the artefact; `on` and `expected` name other fields."""

    name: str
    kind: str
    arrays: tuple[np.ndarray, ...]
    on: str | None = None
    expected: str | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One example of a field: pictures, a text, and whether that is wrong.

    `titles` are what stands under the pictures, one each, or nothing.
    """

    pictures: tuple[Picture, ...] = ()
    titles: tuple[str, ...] = ()
    text: str = ""
    wrong: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """A field with a cell for each example."""

    name: str
    kind: str
    cells: tuple[Cell, ...]

    @property
    def titled(self) -> bool:
        """Whether its pictures have titles, and so a row of their own an example."""
        return any(cell.titles for cell in self.cells)


@dataclasses.dataclass(frozen=True)
class Block:
    """The examples of one row, of the first of its points that has some."""

    row: Row
    style: Style
    point: Point
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Section(Shown):
    """The blocks that are shown, and how to read them.

    Attributes:
        legend: a sentence for each kind of field that needs one.
        marked: whether a text is marked as not expected.
    """

    legend: tuple[str, ...]
    marked: bool


def section(drawn: Drawn, budget: Budget, most: int = MOST_ROWS) -> Section | None:
    """The examples of rows with a finished point that has some, or None."""
    keeper = lambda row: budgets.first_with(row, FILE)
    make = lambda *of: _block(*of, budget)
    found = budgets.shown(drawn, keeper, make, budget, most)
    if found is None:
        return None
    lines = [line for block in found.blocks for line in block.lines]
    kinds = {line.kind for line in lines}
    legend = tuple(text for kind, text in LEGEND.items() if kind in kinds)
    marked = any(cell.wrong for line in lines for cell in line.cells)
    return Section(found.blocks, found.others, legend, marked)


def _block(row: Row, row_style: Style, point: Point, budget: Budget) -> Block:
    lines, remarks = [], []
    try:
        fields = read(point.directory / FILE)
    except DAMAGES as error:
        fields = {}
        remarks.append(f"its {FILE} cannot be read ({type(error).__name__})")
    for field in fields.values():
        try:
            lines.append(Line(field.name, field.kind, _cells(field, fields, budget)))
        except (ValueError, LookupError, TypeError) as error:
            remarks.append(f"{field.name} is not shown: {error}")
    return Block(row, row_style, point, tuple(lines), tuple(remarks))


def read(path: Any) -> dict[str, Field]:
    """The fields of a file by name, of its first examples."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        index = json.loads(str(archive["index"]))
        return {
            entry["name"]: Field(
                name=str(entry["name"]),
                kind=str(entry["kind"]),
                arrays=tuple(archive[key][:EXAMPLES] for key in entry["keys"]),
                on=entry.get("on"),
                expected=entry.get("expected"),
            )
            for entry in index
        }


def _cells(
    field: Field, fields: Mapping[str, Field], budget: Budget
) -> tuple[Cell, ...]:
    if field.kind not in KINDS:
        raise ValueError(f"no picture of the kind {field.kind!r}")
    return tuple(KINDS[field.kind](field, fields, budget))


def _image(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    shown = maps.as_colours(field.arrays[0])
    return [Cell((budget.picture(pictures.plain(image)),)) for image in shown]


def _pair(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    """Both images and their difference, twice as strong, in all of their colours."""
    first, second = map(maps.as_colours, field.arrays)
    apart = np.clip(2 * np.abs(first - second), 0.0, 1.0)
    return [
        Cell(tuple(budget.picture(pictures.plain(one), exact=True) for one in images))
        for images in zip(first, second, apart, strict=True)
    ]


def _boxes(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    images = maps.as_colours(fields[field.on].arrays[0])
    return [
        Cell((budget.picture(pictures.boxes(image, *_with_area(*found))),))
        for image, *found in zip(images, *field.arrays, strict=True)
    ]


def _path(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    images = maps.as_colours(fields[field.on].arrays[0])
    return [
        Cell((budget.picture(pictures.path(image, *found)),))
        for image, *found in zip(images, *field.arrays, strict=True)
    ]


def _pose(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    images = maps.as_colours(fields[field.on].arrays[0])
    return [  # with few colours those of limbs would be lost
        Cell((budget.picture(pictures.pose(image, *found), exact=True),))
        for image, *found in zip(images, *field.arrays, strict=True)
    ]


def _mosaic(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    images = field.arrays[0]
    shown = maps.as_colours(images.reshape(-1, *images.shape[3:]))
    shown = shown.reshape(*images.shape[:-1], 3)
    return [Cell((budget.picture(pictures.mosaic(tiles)),)) for tiles in shown]


def _heat(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    """Heat over the image, from the lowest to the highest value of each."""
    values, marks = field.arrays
    images = maps.as_colours(fields[field.on].arrays[0])
    return [
        Cell((budget.picture(pictures.marked_heat(image, _share(value), mark)),))
        for image, value, mark in zip(images, values, marks, strict=True)
    ]


def _words(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    """Heat over the image for each word, from the lowest to the highest value of it."""
    images = maps.as_colours(fields[field.on].arrays[0])
    cells = []
    for image, values, words in zip(images, *field.arrays, strict=True):
        said = [place for place, word in enumerate(words) if word]
        shown = [pictures.heat(image, _share(values[place])) for place in said]
        titles = tuple(str(words[place]) for place in said)
        cells.append(Cell(tuple(map(budget.picture, shown)), titles))
    return cells


def _share(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values.astype(np.float32))
    span = values.max() - values.min()
    return (values - values.min()) / (span or 1.0)


def _with_area(boxes: np.ndarray, *about: np.ndarray) -> list[Any]:
    """Boxes that have some, and what there is about each of them."""
    keep = np.all(boxes[:, 2:] > boxes[:, :2], axis=-1)
    return [boxes[keep], *(one[keep].tolist() for one in about)]


def _text(field: Field, fields: Mapping[str, Field], budget: Budget) -> list[Cell]:
    texts = [str(text) for text in field.arrays[0]]
    expected = texts
    if field.expected is not None:
        expected = [str(text) for text in fields[field.expected].arrays[0]]
    return [
        Cell(text=text, wrong=text != wanted)
        for text, wanted in zip(texts, expected, strict=True)
    ]


KINDS: dict[str, Callable[[Field, Mapping[str, Field], Budget], list[Cell]]] = {
    "boxes": _boxes,
    "heat": _heat,
    "image": _image,
    "mosaic": _mosaic,
    "pair": _pair,
    "path": _path,
    "pose": _pose,
    "text": _text,
    "words": _words,
}

# How to read the kinds that do not speak for themselves.
LEGEND = {
    "pair": "Of a pair of images there are three pictures: both, and their difference,"
    " twice as strong.",
    "boxes": "Beside the name of a box stands its score in percent, if it has one.",
    "heat": "Heat runs from the lowest to the highest value of each picture; the box or"
    " the ring is what reads.",
    "words": "What a word read before it was written stands above it, from the lowest"
    " to the highest value of each picture.",
    "path": "A path begins at the ring and ends at the full dot; its squares are what"
    " is seen sharpest.",
    "pose": "A limb of a pose has the same colour in all pictures.",
}
