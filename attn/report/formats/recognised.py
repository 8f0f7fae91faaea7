"""What a model found in pictures, as one HTML page that needs nothing but itself."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from attn.report.draw import maps, pictures
from attn.report.formats import page
from attn.report.sections import attention
from attn.report.sections.attention import Line
from attn.report.sections.budget import Budget, Picture
from attn.workdir import files

SHOWN = 48  # pictures on a page
SIDE = 480  # of the longer side of a picture, at most, pixels
DRAWN = 0.5  # probability from which on a box is drawn
BYTES = 4_000_000  # of attention maps


@dataclasses.dataclass(frozen=True)
class Found:
    """A finding: its name, its probability as a text, and whether its box is drawn."""

    name: str
    share: str
    drawn: bool


@dataclasses.dataclass(frozen=True)
class Seen:
    """A picture: the name of the file, what is drawn, and what was found.

    Attributes:
        lines: of attention maps, each with one picture.
    """

    name: str
    picture: Picture
    found: tuple[Found, ...]
    lines: tuple[Line, ...]


def write(output: pathlib.Path) -> pathlib.Path:
    """Writes the page `output` of the .json and .npz that lie beside it.

    `attn.train.recognition` says what these hold. The files of pictures are read again.
    """
    record = files.read_json(output.with_suffix(".json"))
    entries = record["pictures"]
    lines = _attention(output.with_suffix(".npz"), min(SHOWN, len(entries)))
    shown = [
        _seen(entry, tuple(own)) for entry, own in zip(entries, lines, strict=False)
    ]
    text = (
        page.environment()
        .get_template("recognised.html")
        .render(
            title=f"{len(entries)} pictures" if len(entries) > 1 else shown[0].name,
            record=record,
            shown=shown,
            others=len(entries) - len(shown),
            boxes=any("box" in found for entry in entries for found in entry["found"]),
            least=f"{DRAWN:.0%}".replace("%", " %"),
            colour_scale=pictures.colour_scale(),
        )
    )
    files.write_bytes(output, text.encode())
    return output


def _seen(entry: dict[str, Any], lines: tuple[Line, ...]) -> Seen:
    path = files.local(entry["file"])
    with PIL.Image.open(path) as file:
        image = PIL.ImageOps.exif_transpose(file)  # as boxes were found in it
        if image.mode.startswith("I"):  # grey of 16 bits, which Pillow would cut off
            image = PIL.Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
        image = image.convert("RGB")
    full = image.size
    larger = SIDE // max(full)
    if larger > 1:
        size = (full[0] * larger, full[1] * larger)
        image = image.resize(size, PIL.Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    scale = np.tile(np.divide(image.size, full), 2)
    drawn = [f for f in entry["found"] if "box" in f and f["probability"] >= DRAWN]
    names = list(dict.fromkeys(found["name"] for found in entry["found"]))
    pictures.draw_boxes(
        image,
        np.reshape([found["box"] for found in drawn], (-1, 4)) * scale,
        [f"{found['name']} {_share(found)}" for found in drawn],
        [names.index(found["name"]) for found in drawn],
    )
    return Seen(
        name=path.name,
        picture=Picture(pictures.encode_photo(image), *image.size),
        found=tuple(Found(f["name"], _share(f), f in drawn) for f in entry["found"]),
        lines=lines,
    )


def _share(found: dict[str, Any]) -> str:
    return f"{100 * found['probability']:.0f} %"


def _attention(path: pathlib.Path, count: int) -> list[list[Line]]:
    """The lines of each of some pictures, of one picture each."""
    found, _ = maps.load(path, count)
    if found is None:
        return [[] for _ in range(count)]
    strips, _ = maps.strips(found)
    budget = Budget(BYTES)
    lines = [line for strip in strips for line in attention.lines(strip, found, budget)]
    return [
        [dataclasses.replace(line, pictures=line.pictures[i : i + 1]) for line in lines]
        if i < len(found.images)
        else []
        for i in range(count)
    ]
