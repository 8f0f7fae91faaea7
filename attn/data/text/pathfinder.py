"""pathfinder: whether two dots are the ends of one dashed path, as grey levels.

The task of the Long Range Arena (Tay et al. 2021, arXiv:2011.04006, section 2.2.5) and
of Linsley, Kim, Veerabadran, Windolf and Serre 2018, arXiv:1805.08315. Two long paths
of dashes wind through an image, among short ones. A dot is at an end of one path, and
another at its other end or at an end of the other path: to tell which is to follow a
path from dash to dash.

What differs: the images are drawn by rules of our own, after the description, and so
error rates cannot be compared with published ones, only with each other.
"""

import dataclasses
import functools
import io
import itertools
import math
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from attn import settings
from attn.data import cache, order, splits
from attn.data.source import Batch, Source
from attn.data.text.symbols import CLS, FIRST, PAD

SEED = 0  # of the images, the same in every run
BLOCK = 1 << 14
CLASSES = ("apart", "joined")
DASH, GAP, WIDE = 2.2, 1.3, 1.0  # pixels: of a dash, between two, and across
APART = 2.6  # pixels between two paths, or two parts of one, at least
TURN = 0.45  # radians that a path turns at a dash, at most
EDGE = 1.5  # pixels to the edge of the image, at least
DOT = 1.4  # radius of a dot
FINE = 4  # pixels that are drawn for one, to each side
TRIES = 6  # turns at a dash, before a path is begun anew
TRIES_OF_ALL = 100  # of all paths of an image

Point = tuple[float, float]
Path = list[tuple[Point, Point]]  # its dashes


@dataclasses.dataclass(frozen=True)
class Pathfinder:
    """pathfinder: whether two dots are the ends of one dashed path.

    Fields "tokens" ([CLS] and the pixels, row by row), "tokens_mask" and "segments"
    (0), [1 + side^2], and "label". Facts: vocab_size, max_length, pad, cls,
    num_classes, class_names. Splits "train", "validation" and "test", which are drawn
    once, some milliseconds an image (`attn.data.cache`).

    Attributes:
        side: of the images, pixels; 32 in the Long Range Arena.
        dashes: of each long path; the more, the harder.
        others: short paths, of a third as many dashes.
        train_size: examples of "train".
        eval_size: examples of "validation" and of "test".
    """

    side: settings.Positive = 32
    dashes: settings.Positive = 6
    others: settings.Count = 5
    train_size: settings.Positive = 8_000
    eval_size: settings.Positive = 1_000

    def __post_init__(self) -> None:
        if self.side < 16 or self.dashes < 2:
            raise settings.Invalid(
                "pathfinder needs a side of at least 16 and at least 2 dashes, got"
                f" {self.side} and {self.dashes}"
            )

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        sizes = dict.fromkeys(order.PURPOSES, self.eval_size)
        sizes["train"] = self.train_size
        name, part = splits.part(split, sizes, "pathfinder")
        pixels, labels = _opened(self, name)

        def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
            del draws
            chosen = rows + part.start
            tokens = np.full((len(rows), 1 + self.side**2), CLS, np.int32)
            tokens[:, 1:] = FIRST + pixels[chosen].astype(np.int32)
            return {
                "tokens": tokens,
                "tokens_mask": np.ones(tokens.shape, bool),
                "segments": np.zeros_like(tokens),
                "label": labels[chosen].astype(np.int32),
            }

        facts = {
            "num_classes": len(CLASSES),
            "class_names": CLASSES,
            "vocab_size": FIRST + 256,
            "max_length": 1 + self.side**2,
            "pad": PAD,
            "cls": CLS,
        }
        return Source(len(part), read, facts)


@functools.lru_cache(maxsize=4)
def _opened(config: Pathfinder, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [n, side^2] and labels [n] of a split, from disk if drawn before."""
    size = config.train_size if split == "train" else config.eval_size
    code = pathlib.Path(__file__).read_bytes()
    shape = (config.side, config.dashes, config.others)
    key = [code, repr(shape), split, str(size)]
    content = cache.kept("pathfinder", key, lambda: _written(config, split, size))
    with np.load(io.BytesIO(content)) as arrays:
        return arrays["pixels"], arrays["labels"]


def _written(config: Pathfinder, split: str, size: int) -> bytes:
    """A split as the bytes of an .npz."""
    print(f"drawing {size} images of pathfinder, {split} (once)", file=sys.stderr)
    draws = order.endless(SEED, order.PURPOSES[split], BLOCK, "pathfinder")
    found = [drawn(draws, config) for _ in range(size)]
    pixels = np.stack([np.asarray(image).ravel() for image, _ in found])
    file = io.BytesIO()
    np.savez_compressed(file, pixels=pixels, labels=np.array([l for _, l in found]))
    return file.getvalue()


def drawn(draws: Iterator[float], config: Pathfinder) -> tuple[Image.Image, int]:
    """An image, and whether its dots are joined; `scene` says of what it is."""
    paths, dots, joined = scene(draws, config)
    image = Image.new("L", (config.side * FINE,) * 2)
    canvas = ImageDraw.Draw(image)
    for path in paths:
        for dash in path:
            ends = [FINE * value for point in dash for value in point]
            canvas.line(ends, fill=255, width=round(FINE * WIDE))
    for x, y in dots:
        box = [FINE * (value + sign * DOT) for sign in (-1, 1) for value in (x, y)]
        canvas.ellipse(box, fill=255)
    return image.resize((config.side,) * 2, Image.Resampling.BOX), joined


def scene(
    draws: Iterator[float], config: Pathfinder
) -> tuple[list[Path], tuple[Point, Point], int]:
    """The paths of an image, the places of its dots, and whether they are joined.

    Dots that are not joined are at the ends of the two paths whose distance is nearest
    to that of joined ones, so that distance tells little.

    Args:
        draws: random numbers, as many as it takes.
        config: side, dashes and others.

    Raises:
        Invalid: there is no room for such paths.
    """
    for _ in range(TRIES_OF_ALL):
        paths = _paths(draws, config)
        if paths is not None:
            break
    else:
        raise settings.Invalid(
            f"there is no room for two paths of {config.dashes} dashes and"
            f" {config.others} others in {config.side} pixels to each side"
        )
    one, two = ((path[0][0], path[-1][1]) for path in paths[:2])
    if next(draws) < 0.5:
        return paths, one, 1
    pairs = itertools.product(one, two)
    apart = min(pairs, key=lambda dots: abs(math.dist(*dots) - math.dist(*one)))
    return paths, apart, 0


def _paths(draws: Iterator[float], config: Pathfinder) -> list[Path] | None:
    """Two long paths and the short ones, apart from each other; None without room."""
    taken: list[Point] = []
    found = []
    short = max(1, config.dashes // 3)
    for dashes in (config.dashes, config.dashes, *[short] * config.others):
        for _ in range(20):
            path = _path(draws, config.side, dashes, taken)
            if path is not None:
                break
        else:
            return None
        found.append(path)
        taken += [point for dash in path for point in _along(*dash)]
    return found


def _path(
    draws: Iterator[float], side: int, dashes: int, taken: list[Point]
) -> Path | None:
    """A path of dashes that keeps away from what is taken, or None."""
    inner = side - 2 * EDGE
    at = (EDGE + inner * next(draws), EDGE + inner * next(draws))
    heading, path, own = 2 * math.pi * next(draws), [], []
    for _ in range(dashes):
        for _ in range(TRIES):
            new = heading + TURN * (2 * next(draws) - 1)
            end = (at[0] + DASH * math.cos(new), at[1] + DASH * math.sin(new))
            points = list(_along(at, end))
            # the dashes just before are near by their nature
            if _free(points, side, taken) and _free(points, side, own[:-6]):
                break
        else:
            return None
        path.append((at, end))
        own += points
        heading = new
        at = (end[0] + GAP * math.cos(new), end[1] + GAP * math.sin(new))
    return path


def _along(start: Point, end: Point) -> Iterator[Point]:
    """Three points of a dash."""
    for share in (0.0, 0.5, 1.0):
        yield tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))


def _free(points: list[Point], side: int, taken: list[Point]) -> bool:
    """Whether points are inside the image, and away from others."""
    return all(
        EDGE <= x <= side - EDGE
        and EDGE <= y <= side - EDGE
        and all((x - a) ** 2 + (y - b) ** 2 >= APART**2 for a, b in taken)
        for x, y in points
    )
