"""The pictures of a page: what each attention looked at, and how it came to do so.

Pictures are most of a page, so each sweep has a share of bytes for them: rows are
shown, spread over kinds and columns, until the share is used up; the others are named.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from attn.report.analyse import numbers
from attn.report.analyse.table import Row
from attn.report.draw import maps, pictures
from attn.report.draw.maps import Attention, Strip
from attn.report.draw.style import Style
from attn.report.read.results import Point

IMAGES, MOST_ROWS = 8, 12
# Of pictures over training: images, steps, kinds of maps, rows.
FEW_IMAGES, STEPS, KINDS, FEW_ROWS = 4, 6, 2, 8
Block = dict[str, Any]


@dataclasses.dataclass
class Share:
    """How many bytes of pictures a page may still take."""

    left: int

    def picture(self, picture: PIL.Image.Image) -> Mapping[str, Any]:
        """A picture as the template takes it; its bytes are counted."""
        width, height = picture.size
        source = pictures.encode(picture)
        self.left -= len(source)
        return {"source": source, "width": width, "height": height}


def blocks(
    drawn: Sequence[tuple[Row, Style]], share: Share, most: int = MOST_ROWS
) -> tuple[list[Block], list[str]]:
    """What the rows with a finished point looked at, and the labels of those left out.

    Of more rows than `most`, those that record attention come first.
    """
    done = [(row, look) for row, look in drawn if row.done]
    if len(done) > most:
        seen = [pair for pair in done if _records(pair[0])]
        done = _few(seen, most) if seen else done[:most]
    found = _until_used(done, lambda row, look: _looked(row, look, share), share)
    shown = {block["row"].label for block in found}
    return found, [row.label for row, _ in drawn if row.label not in shown and row.done]


def over_training(
    drawn: Sequence[tuple[Row, Style]], share: Share, most: int = FEW_ROWS
) -> tuple[list[Block], list[str]]:
    """What rows looked at as they were trained, and the labels of those left out.

    Only rows with a point that kept such pictures count, finished or not.
    """
    kept = [(row, look) for row, look in drawn if _keeper(row) is not None]
    chosen = _few(kept, most)
    found = _until_used(chosen, lambda row, look: _timeline(row, look, share), share)
    shown = {block["row"].label for block in found}
    return found, [row.label for row, _ in kept if row.label not in shown]


def _until_used(
    drawn: Sequence[tuple[Row, Style]],
    make: Callable[[Row, Style], Block],
    share: Share,
) -> list[Block]:
    found = []
    for row, look in drawn:
        if share.left <= 0:
            break
        found.append(make(row, look))
    return found


def _few(drawn: Sequence[tuple[Row, Style]], most: int) -> list[tuple[Row, Style]]:
    """At most some rows, of each kind in turn another column, in the order of all."""
    kinds = list(dict.fromkeys(row.kind for row, _ in drawn))
    columns = list(dict.fromkeys(row.column for row, _ in drawn))

    def turn(row: Row) -> tuple[int, int]:
        kind, column = kinds.index(row.kind), columns.index(row.column)
        return (column - kind) % len(columns), kind

    first = sorted((row for row, _ in drawn), key=turn)[:most]
    labels = {row.label for row in first}
    return [(row, look) for row, look in drawn if row.label in labels]


def _records(row: Row) -> bool:
    found, _ = _first(row, 1)
    return found is not None and bool(found[1].maps)


def _first(row: Row, most: int) -> tuple[tuple[Point, Attention] | None, list[str]]:
    """The first finished point of a row whose attention can be read, and problems."""
    problems = []
    for point in row.done:
        attention, problem = maps.read(point, most)
        if attention is not None:
            return (point, attention), problems
        problems.append(f"{point.name}: {problem}")
    return None, problems


def _looked(row: Row, look: Style, share: Share) -> Block:
    """The strips of the first finished point of a row that has some."""
    found, remarks = _first(row, IMAGES)
    block: Block = {"row": row, "style": look, "images": [], "strips": []}
    block["remarks"] = remarks
    if found is None:
        return block
    block["point"], attention = found
    block["images"] = _images(attention, share)
    strips, more = maps.strips(attention)
    remarks += more
    for strip in strips:
        block["strips"].extend(_strip(strip, attention, share))
    if not attention.maps:
        remarks.append("it records no attention")
    return block


def _images(attention: Attention, share: Share) -> list[Mapping[str, Any]]:
    shown = map(pictures.plain, attention.images)
    told = zip(shown, attention.labels, attention.predictions, strict=True)
    return [
        {"picture": share.picture(image), "label": label, "said": said}
        for image, label, said in told
    ]


def _strip(strip: Strip, attention: Attention, share: Share) -> list[Block]:
    """A line of pictures; a sampling grid has a second one, of what it read."""
    low, high = pictures.scale(strip)
    drawn = pictures.draw(strip, attention.images)
    scaled = strip.form != "grid" and low < high
    same = strip.form == "heat" and low == high
    line = {
        "path": strip.path,
        "what": f"{strip.what}, {numbers.span(low, high)[0]} everywhere"
        if same
        else strip.what,
        "form": strip.form,
        "scale": numbers.span(low, high) if scaled else None,
        "pictures": [share.picture(picture) for picture in drawn],
    }
    if strip.form != "grid":
        return [line]
    pairs = zip(attention.images, strip.values, strict=True)
    warped = [share.picture(pictures.warp(*pair)) for pair in pairs]
    return [line, {**line, "what": "what the grid reads", "pictures": warped}]


def _keeper(row: Row) -> Point | None:
    """The first point of a row that kept pictures, a finished one if there is one."""
    rest = [point for point in row.points if point.result is None]
    return next((point for point in (*row.done, *rest) if _kept(point)), None)


def _kept(point: Point) -> list[tuple[int, pathlib.Path]]:
    """The steps at which a point kept pictures, with their files."""
    files = (point.directory / "looks").glob("*.npz")
    return sorted((int(path.stem), path) for path in files if path.stem.isdigit())


def _timeline(row: Row, look: Style, share: Share) -> Block:
    """A line of pictures for each of some steps of one point of a row."""
    point = _keeper(row)
    assert point is not None
    block: Block = {"row": row, "style": look, "point": point, "remarks": []}
    block["strips"], block["images"] = [], []
    by_step: list[tuple[int, Attention, list[Strip]]] = []
    for step, path in spaced(_kept(point), STEPS):
        attention, problem = maps.load(path, FEW_IMAGES)
        if attention is None:
            block["remarks"].append(problem)
        else:
            by_step.append((step, attention, maps.strips(attention)[0]))
    if not by_step:
        return block
    for place in _kinds(by_step[-1][2]):
        lines = [
            (step, attention, strip)
            for step, attention, strips in by_step
            for strip in strips
            if (strip.path, strip.form, strip.query) == place
        ]
        block["strips"].append(_evolution(lines, share))
    if any(strip["form"] != "grid" for strip in block["strips"]):
        images = by_step[-1][1].images
        block["images"] = [share.picture(pictures.plain(image)) for image in images]
    if not block["strips"]:
        block["remarks"].append("its pictures show no attention")
    return block


def _kinds(strips: Sequence[Strip]) -> list[tuple[Any, ...]]:
    """Which strips are followed over the steps: grids, else of the last places."""
    grids = [strip for strip in strips if strip.form == "grid"]
    chosen = grids[:KINDS] or strips[-KINDS:]
    return list(dict.fromkeys((s.path, s.form, s.query) for s in chosen))


def _evolution(lines: Sequence[tuple[int, Attention, Strip]], share: Share) -> Block:
    """One place in the network over the steps, on one scale of colours."""
    _, _, last = lines[-1]
    alike = [line for line in lines if line[2].values.shape == last.values.shape]
    images = np.concatenate([attention.images for _, attention, _ in alike])
    values = np.concatenate([strip.values for _, _, strip in alike])
    whole = dataclasses.replace(last, values=values)
    low, high = pictures.scale(whole)
    drawn = pictures.draw(whole, images)
    if last.form == "grid":
        warped = [pictures.warp(*pair) for pair in zip(images, values, strict=True)]
        drawn = [p for pair in zip(drawn, warped, strict=True) for p in pair]
    each = len(drawn) // len(alike)
    scaled = last.form != "grid" and low < high
    return {
        "path": last.path,
        "what": last.what,
        "form": last.form,
        "scale": numbers.span(low, high) if scaled else None,
        "steps": [
            {
                "step": f"step {step:,}",
                "pictures": [
                    share.picture(p) for p in drawn[i * each : (i + 1) * each]
                ],
            }
            for i, (step, _, _) in enumerate(alike)
        ],
    }


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
