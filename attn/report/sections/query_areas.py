"""Areas that the object queries of a detector serve: a dot for each of their boxes.

As in Figure 7 of Carion et al., "End-to-End Object Detection with Transformers", ECCV
2020, https://arxiv.org/abs/2005.12872: dots are the centres of boxes, green for small
ones, red for large wide ones and blue for large upright ones.
"""

import dataclasses

import numpy as np

from attn.report.analyse.table import Row
from attn.report.draw import pictures, style
from attn.report.draw.style import Drawn, Style
from attn.report.read.damages import DAMAGES
from attn.report.read.results import Point
from attn.report.sections import budget as budgets
from attn.report.sections.budget import Budget, Picture, Shown

FILE = "query_areas.npz"
TEMPLATE = "query_areas.html"
BYTES = 1_000_000
MOST_ROWS, QUERIES = 4, 20
DOTS = 600  # boxes that are drawn of a query
SMALL = 1 / 4  # of the side of an image, up to which the root of an area is small
LIKELY = 0.5  # probability from which on a query has found something
COLOURS = {
    "small": style.OKABE_ITO[2],
    "wide": style.OKABE_ITO[3],
    "upright": style.OKABE_ITO[0],
}


@dataclasses.dataclass(frozen=True)
class Query:
    """A query: its number, its picture, and how often it finds something."""

    number: int
    picture: Picture
    share: str


@dataclasses.dataclass(frozen=True)
class Block:
    """The queries of one row, of the first of its points that has some."""

    row: Row
    style: Style
    point: Point
    queries: tuple[Query, ...]
    remarks: tuple[str, ...]

    @property
    def colours(self) -> dict[str, str]:
        """By kind of box."""
        return COLOURS


def section(drawn: Drawn, budget: Budget, most: int = MOST_ROWS) -> Shown | None:
    """The queries of rows with a finished point that has the file, or None."""
    keeper = lambda row: budgets.first_with(row, FILE)
    make = lambda *of: _block(*of, budget)
    return budgets.shown(drawn, keeper, make, budget, most)


def _block(row: Row, row_style: Style, point: Point, budget: Budget) -> Block:
    queries, remarks = [], []
    try:
        path = point.directory / FILE
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            boxes, scores = archive["boxes"], archive["scores"]
        queries = _queries(boxes.astype(np.float32), scores, budget)
        if scores.shape[1] > len(queries):
            remarks.append(
                f"{len(queries)} of {scores.shape[1]} queries, those that find most"
            )
    except DAMAGES as error:
        remarks.append(f"its {FILE} cannot be read ({type(error).__name__})")
    return Block(row, row_style, point, tuple(queries), tuple(remarks))


def _queries(boxes: np.ndarray, scores: np.ndarray, budget: Budget) -> list[Query]:
    """The queries that find something most often, by their numbers.

    Args:
        boxes: [n, Q, 4], (cx, cy, w, h) in [0, 1].
        scores: [n, Q].
    """
    often = (scores >= LIKELY).mean(axis=0)
    chosen = sorted(np.argsort(-often, kind="stable")[:QUERIES].tolist())
    return [
        Query(
            number,
            budget.picture(_picture(boxes[:DOTS, number])),
            f"{100 * often[number]:.0f} %",
        )
        for number in chosen
    ]


def _picture(boxes: np.ndarray):
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    return pictures.query_area(boxes[:, :2], [COLOURS[kind] for kind in kinds(boxes)])


def kinds(boxes: np.ndarray) -> list[str]:
    """Of boxes [n, 4], whether they are small, wide or upright."""
    width, height = boxes[:, 2], boxes[:, 3]
    names = np.where(width >= height, "wide", "upright")
    return np.where(width * height <= SMALL**2, "small", names).tolist()
