"""Several digits of a split make one example, drawn on the fly.

    addition  the task of Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial
              Transformer Networks", 2015, https://arxiv.org/abs/1506.02025, table 4
              of the appendix: two digits in the two channels of a 42x42 image, each
              distorted by an rts of its own (`attn.data.digits.distortions`); the
              label is their sum
    number    a stand-in for that paper's house numbers (section 4.2, with 11 classes
              in each of five places as in Goodfellow et al., 2014,
              https://arxiv.org/abs/1312.6082): one to five digits in a row, turned by
              U(-10, 10) degrees, 0.8 to 1 times as large as they fit and at most
              twice as large as MNIST on a canvas of 64x64, at a random place of it
    odd_one_out  three digits of one class and one of another, the label;
              `attn.data.digits.odd_one_out` says more
    scene     three to five digits on a coloured texture; `attn.data.digits.scene` says
              more

Every function maps (pool, rows, draws, side) to the arrays of a batch: `pool` is the
whole split, from which the other digits are chosen, `rows` int [B] the examples' own
digits, `draws` [B, draws] numbers in [0, 1), `side` that of the canvas. "image" is
float32 [B, side, side, C] in 0..255; "objects", bool [B, side, side], where the ink of
the digits is, in scenes that of the largest. The result of an example depends on its
own row and draws only.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from attn import settings
from attn.data.digits import distortions, ink, warp
from attn.data.digits import odd_one_out as odd
from attn.data.digits import scene as scenes
from attn.data.digits.pool import Pool
from attn.data.draws import integers, named, other_rows, uniform
from attn.data.images import normalise
from attn.data.source import Statistics

PLACES = 5  # of a number
NONE = 10  # class of a place without a digit
STRAIGHT = np.deg2rad(10)  # up to which a number is turned
GAPS = (1, 4)  # pixels between digits, before they are scaled
LEAST = 32  # side of a canvas, below which digits cannot be told

# What the random numbers of an example are for.
NUMBER = {"count": 1, "others": 4, "gaps": 4, "angle": 1, "scale": 1, "place": 2}

Arrays = dict[str, np.ndarray]


def addition(pool: Pool, rows: np.ndarray, draws: np.ndarray, side: int = 42) -> Arrays:
    """label int32 [B], 0 to 18. Draws: rts of one digit, rts of the other, which."""
    del side  # settled by the distortion
    rts = distortions.DISTORTIONS["rts"]
    other = other_rows(draws[:, -1:], rows, pool.size)[:, 0]
    both = [
        rts.apply(pool.pixels, rows, draws[:, : rts.draws]),
        rts.apply(pool.pixels, other, draws[:, rts.draws : -1]),
    ]
    image = np.concatenate(both, axis=-1)
    return {
        "image": image,
        "label": pool.labels[rows] + pool.labels[other],
        "objects": image.max(axis=-1) >= ink.INK,
    }


def number(pool: Pool, rows: np.ndarray, draws: np.ndarray, side: int = 64) -> Arrays:
    """label int32 [B, 5], digits from the left, then 10 for none.

    The row's own digit is the first. Draws: `NUMBER`.
    """
    drawn = named(draws, NUMBER)
    chosen = other_rows(drawn["others"], rows, pool.size)
    chosen = np.concatenate([rows[:, None], chosen], axis=1)
    there = np.arange(PLACES) <= integers(drawn["count"], PLACES)
    gaps = GAPS[0] + integers(drawn["gaps"], GAPS[1] - GAPS[0] + 1)
    strips, size, centre = _strips(pool, chosen, there, gaps)

    angle = uniform(drawn["angle"][:, 0], -STRAIGHT, STRAIGHT)
    cosine, sine = np.cos(angle), np.abs(np.sin(angle))
    # Sides of the upright frame that holds the turned strip, with the pixel around it
    # over which the ink fades out.
    width, height = (size + 2).T
    upright = np.stack([width * cosine + height * sine, width * sine + height * cosine])
    scale = np.minimum(side / upright.max(axis=0), 2 * side / 64)
    scale = scale * uniform(drawn["scale"][:, 0], 0.8, 1.0)
    room = (side - scale * upright).T / 2
    origin = (side - 1) / 2 + uniform(drawn["place"], -room, room)
    matrix = warp.similar(angle, scale, origin, centre)
    image = warp.warped(strips, lambda part: warp.affine(matrix[part], side), side)
    label = np.where(there, pool.labels[chosen], NONE).astype(np.int32)
    return {"image": image[..., None], "label": label, "objects": image >= ink.INK}


def _strips(
    pool: Pool, chosen: np.ndarray, there: np.ndarray, gaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits in a row, as far apart as their ink and the gaps tell.

    Args:
        pool: the split.
        chosen: rows [B, 5].
        there: [B, 5], which of them are to be seen.
        gaps: [B, 4], pixels.

    Returns:
        The strips, uint8 [B, H, W]; width and height of their ink [B, 2]; its centre
        (x, y) [B, 2].
    """
    batch, side = len(chosen), distortions.SIDE
    images = pool.pixels[chosen, :, :, 0]
    left, top, width, height = np.moveaxis(pool.frames[chosen], -1, 0)
    steps = np.cumsum(width[:, :-1] + gaps, axis=1)
    start = np.concatenate([np.zeros((batch, 1), steps.dtype), steps], axis=1)

    # A margin of a digit, as its frame begins before its ink.
    length = (PLACES + 1) * side + (PLACES - 1) * GAPS[1]
    strips = np.zeros((batch, side, length), np.uint8)
    rows, columns = np.arange(side)[:, None], np.arange(side)
    first = np.arange(batch)[:, None, None] * (side * length)
    for k in range(PLACES):
        shown = np.flatnonzero(there[:, k])
        at = (side + start[:, k] - left[:, k])[shown, None, None]
        at = first[shown] + rows * length + columns + at
        strips.reshape(-1)[at] = np.maximum(strips.reshape(-1)[at], images[shown, k])

    last = there.sum(axis=1) - 1
    end = np.take_along_axis(start + width, last[:, None], axis=1)[:, 0]
    upper = np.where(there, top, side).min(axis=1)
    lower = np.where(there, top + height, 0).max(axis=1)
    size = np.stack([end, lower - upper], axis=1)
    centre = np.stack([side + (end - 1) / 2, (upper + lower - 1) / 2], axis=1)
    return strips, size, centre


class Composition(NamedTuple):
    """A composition, and what the pipeline must know of it.

    apply: (pool, rows, draws, side) -> arrays of a batch.
    side: of the canvas, pixels.
    free: whether the canvas may have another side.
    channels: of the image.
    draws: random numbers that an example takes.
    class_names: by label; None where they are those of the digits.
    statistics: by which images are normalised; None for those of the digits.
    facts: about the examples beside their classes.
    """

    apply: Callable[..., Arrays]
    side: int
    free: bool
    channels: int
    draws: int
    class_names: tuple[str, ...] | None
    statistics: Statistics | None
    facts: Mapping[str, Any] = MappingProxyType({})


SUMS = tuple(map(str, range(19)))
PLACE_NAMES = (*map(str, range(10)), "none")

COMPOSITIONS = {
    "addition": Composition(addition, 42, False, 2, 9, SUMS, None),
    "number": Composition(number, 64, True, 1, sum(NUMBER.values()), PLACE_NAMES, None),
    "odd_one_out": Composition(
        odd.odd_one_out, 36, True, 1, sum(odd.DRAWS.values()), None, None
    ),
    "scene": Composition(
        scenes.scene,
        64,
        True,
        3,
        sum(scenes.DRAWS.values()),
        None,
        normalise.STATISTICS["digits_scene"],
        scenes.FACTS,
    ),
}


def create(name: str, canvas: int | None = None) -> Composition:
    """The composition `name` on a canvas of `canvas` pixels; None for its usual one.

    Raises:
        Invalid: no such composition, or a canvas that it cannot have.
    """
    if name not in COMPOSITIONS:
        raise settings.unknown("composition", name, ["none", *COMPOSITIONS])
    entry = COMPOSITIONS[name]
    if canvas is None:
        return entry
    if not entry.free:
        raise settings.Invalid(
            f"the canvas of composition {name!r} has {entry.side} pixels: leave canvas"
            f" None, got {canvas}"
        )
    if canvas < LEAST:
        raise settings.Invalid(f"canvas must be {LEAST} pixels or more, got {canvas}")
    apply = functools.partial(entry.apply, side=canvas)
    return entry._replace(apply=apply, side=canvas)
