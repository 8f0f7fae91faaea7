"""Crops of the boxes of a detector, which errs, and where points are in them.

A tight box is made wider or higher to the shape of the crop, enlarged by `margin`, and
then moved and scaled as a detector errs: by up to `shift` of its sides each way, and by
up to 1 + `scale` times as large or small. Fang, Xie, Tai, Lu, "RMPE", ICCV 2017,
https://arxiv.org/abs/1612.00137, enlarge by 0.3.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

DRAWS = 3  # random numbers that a crop takes: two for its place, one for its size
# Area of a person over that of the box, where nobody has outlined them, as xtcocotools
# has it (`computeOks` of xtcocotools/cocoeval.py, with use_area=False,
# https://github.com/jin-s13/xtcocoapi).
PERSON = 0.53


class Crops(NamedTuple):
    """Where crops lie.

    corner: float64 [B, 2], (x, y) of the upper left corner of each.
    pixel: float64 [B], the side of a pixel of each, by which lengths are divided.
    size: height and width of all, in their pixels.
    """

    corner: np.ndarray
    pixel: np.ndarray
    size: tuple[int, int]

    def places(self, points: np.ndarray) -> np.ndarray:
        """Points (x, y) in pixels of their crop: [B, n, 2] -> [B, n, 2]."""
        return (points - self.corner[:, None]) / self.pixel[:, None, None]

    def inside(self, places: np.ndarray) -> np.ndarray:
        """Which of `places` are inside of the crop: [B, n, 2] -> bool [B, n]."""
        height, width = self.size
        return ((places >= 0) & (places < (width, height))).all(axis=-1)

    def cut(self, number: int, picture: np.ndarray) -> np.ndarray:
        """One of them, cut out of its picture by Pillow's bilinear filter.

        Args:
            number: of the crop.
            picture: uint8 [h, w, 3]; black beyond its edges.

        Returns:
            uint8 [H, W, 3].
        """
        start, pixel = self.corner[number], self.pixel[number]
        end = start + pixel * np.array(self.size[::-1])
        reach = max(pixel, 1.0)  # of the filter, which averages when it shrinks
        low, high = np.floor(start - reach), np.ceil(end + reach)
        part = Image.fromarray(picture).crop((*low.astype(int), *high.astype(int)))
        box = (*(start - low).tolist(), *(end - low).tolist())
        found = part.resize(self.size[::-1], Image.Resampling.BILINEAR, box=box)
        return np.asarray(found)


def crops(
    low: np.ndarray,
    high: np.ndarray,
    size: tuple[int, int],
    *,
    margin: float,
    shift: float = 0.0,
    scale: float = 0.0,
    draws: np.ndarray | None = None,
) -> Crops:
    """The crops of boxes.

    Args:
        low, high: [B, 2], (x, y) of the corners of the tight boxes.
        size: height and width of the crops.
        margin: by what share of its sides a box is enlarged.
        shift: by what share of its sides it is moved at most, each way.
        scale: by what share it is too large at most, or too small.
        draws: [B, DRAWS] in [0, 1); None where the detector is right.
    """
    shape = np.array(size[::-1])
    pixel = ((high - low) / shape).max(axis=-1)
    centre = (low + high) / 2
    errs = 1.0
    if draws is not None:
        moved = shift * (2 * draws[:, :2] - 1)
        centre = centre + moved * pixel[:, None] * shape
        errs = np.exp((2 * draws[:, 2] - 1) * math.log1p(scale))
    pixel = pixel * (1 + margin) * errs
    return Crops(centre - pixel[:, None] * shape / 2, pixel, size)
