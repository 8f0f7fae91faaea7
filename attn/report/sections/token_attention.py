"""What words read of each other: alignments, heads, and how spread out they are.

The artefact has n examples with "captions", and "index", which tells by JSON the
"words" of each side by name, a list for each example, and under "maps" of each
attention its "path", its two "sides", those that ask and those that are read, the
"entropy" of each head in nats, and the keys of two arrays: "mean" [n, T, S], over
heads, and "heads" [N, T, S] of the example in the middle.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn.report.analyse.table import Row
from attn.report.draw import pictures, words
from attn.report.draw.style import Drawn, Style
from attn.report.read.damages import DAMAGES
from attn.report.read.results import Point
from attn.report.sections import budget as budgets
from attn.report.sections.budget import Budget, Picture, Shown

FILE = "token_attention.npz"
TEMPLATE = "token_attention.html"
BYTES = 1_000_000
MOST_ROWS, MOST_WORDS, MOST_LAYERS, MOST_HEADS = 4, 32, 6, 8
ALIGNED = 3  # examples with an alignment


@dataclasses.dataclass(frozen=True)
class Attention:
    """One attention of a model, with arrays as the artefact has them."""

    path: str
    sides: tuple[str, str]
    entropy: tuple[float, ...]
    mean: np.ndarray
    heads: np.ndarray

    @property
    def group(self) -> str:
        """The path without the number of the layer."""
        return re.sub(r"\d+(?=/)", "", self.path)


@dataclasses.dataclass(frozen=True)
class Read:
    """The artefact of a point: words by side, and attentions from the input on."""

    captions: tuple[str, ...]
    words: Mapping[str, Sequence[Sequence[str]]]
    attentions: tuple[Attention, ...]

    def part(self, matrix: np.ndarray, sides: tuple[str, str], i: int) -> np.ndarray:
        """The matrix [T, S] of an example without padding, of its first words."""
        asks, reads = (len(self.words[side][i]) for side in sides)
        return matrix[: min(asks, MOST_WORDS), : min(reads, MOST_WORDS)]


@dataclasses.dataclass(frozen=True)
class Line:
    """A layer of which each head is a picture."""

    path: str
    pictures: tuple[Picture, ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """What is shown of a row: the first of its points that has the artefact.

    Attributes:
        row, style, point: whose it is.
        entropy: the plot of entropies.
        alignments: captions and plots.
        aligned: path of the attention that these are of, "" without any.
        lines: layers of the encoder; `caption` says on which example.
        remarks: what is the matter, if something is.
    """

    row: Row
    style: Style
    point: Point
    entropy: str = ""
    alignments: tuple[tuple[str, str], ...] = ()
    aligned: str = ""
    lines: tuple[Line, ...] = ()
    caption: str = ""
    remarks: tuple[str, ...] = ()


def section(drawn: Drawn, budget: Budget, most: int = MOST_ROWS) -> Shown | None:
    """What words read, of rows with a finished point that tells, or None."""
    keeper = lambda row: budgets.first_with(row, FILE)
    make = lambda *of: _block(*of, budget)
    return budgets.shown(drawn, keeper, make, budget, most)


def read(path: Any) -> Read:
    """The artefact in a file."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        index = json.loads(str(archive["index"]))
        captions = tuple(str(caption) for caption in archive["captions"])
        found = tuple(
            Attention(
                path=str(entry["path"]),
                sides=(str(entry["sides"][0]), str(entry["sides"][1])),
                entropy=tuple(map(float, entry["entropy"])),
                mean=np.nan_to_num(archive[entry["mean"]].astype(np.float32)),
                heads=np.nan_to_num(archive[entry["heads"]].astype(np.float32)),
            )
            for entry in index["maps"]
        )
    for one in found:
        if one.mean.ndim != 3 or one.heads.ndim != 3 or not one.entropy:
            raise ValueError(f"{one.path} has other arrays")
    return Read(captions, index["words"], found)


def _block(row: Row, row_style: Style, point: Point, budget: Budget) -> Block:
    try:
        found = read(point.directory / FILE)
        aligned, alignments = _alignments(found, row.label)
        caption, lines = _lines(found, budget)
        groups: dict[str, list[Sequence[float]]] = {}
        for one in found.attentions:
            groups.setdefault(one.group, []).append(one.entropy)
        title = f"entropy of each head by layer, {row.label}"
        return Block(
            row=row,
            style=row_style,
            point=point,
            entropy=words.entropies(groups, title),
            alignments=tuple(alignments),
            aligned=aligned,
            lines=tuple(lines),
            caption=caption,
        )
    except DAMAGES as error:
        remark = f"its {FILE} cannot be read ({type(error).__name__})"
        return Block(row, row_style, point, remarks=(remark,))


def _alignments(found: Read, label: str) -> tuple[str, list[tuple[str, str]]]:
    """Alignments of the first, middle and last example, by the sharpest attention."""
    cross = [one for one in found.attentions if one.sides == ("target", "source")]
    if not cross:
        return "", []
    sharpest = min(cross, key=lambda one: np.mean(one.entropy))
    count = len(found.captions)
    made = []
    for i in sorted({int(i) for i in np.linspace(0, count - 1, ALIGNED).round()}):
        matrix = found.part(sharpest.mean[i], sharpest.sides, i)
        if not matrix.size:
            continue
        asks, reads = (found.words[side][i][:MOST_WORDS] for side in sharpest.sides)
        title = f"alignment of the sentence {found.captions[i]}, {label}"
        made.append((found.captions[i], words.alignment(matrix, asks, reads, title)))
    return sharpest.path, made


def _lines(found: Read, budget: Budget) -> tuple[str, list[Line]]:
    """The heads of the encoder on the example in the middle."""
    own = [one for one in found.attentions if one.sides == ("source", "source")]
    if not own:
        return "", []
    middle = len(found.captions) // 2
    places = np.linspace(0, len(own) - 1, min(len(own), MOST_LAYERS)).round()
    lines = []
    for one in (own[int(i)] for i in places):
        drawn = []
        for head in one.heads[:MOST_HEADS]:
            matrix = found.part(head, one.sides, middle)
            drawn.append(pictures.matrix(matrix / max(matrix.max(), 1e-9)))
        lines.append(Line(one.path, budget.pictures(drawn)))
    return found.captions[middle], lines
