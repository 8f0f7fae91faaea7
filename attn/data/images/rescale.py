"""Images resized by their shorter side, which leaves them of unlike size.

    resize_shorter  the shorter side to one length, the longer one at most to another
    multi_scale     that of detectors: the shorter side to one of several lengths, with
                    a probability after a random crop; in evaluation to one length

N. Carion, F. Massa, G. Synnaeve, N. Usunier, A. Kirillov, S. Zagoruyko, "End-to-End
Object Detection with Transformers", ECCV 2020, https://arxiv.org/abs/2005.12872,
section 4 and appendix A.4, and `datasets/coco.py` of the code published with it, whose
rounding is kept. Mirrored images are left to the transform flip, which comes before
both there. Images are resized by Pillow's bilinear filter, as there.

Boxes and masks of objects move along (`attn.data.images.geometry`): boxes are cut off
at the edge, and those of which nothing is left are left out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import numpy as np

from attn import settings
from attn.data.draws import integers
from attn.data.images import geometry
from attn.data.source import Batch, Field
from attn.data.transforms import Transform

Share = Annotated[float, settings.Range("a number in [0, 1]", 0, 1)]


@dataclasses.dataclass(frozen=True)
class ResizeShorter(Transform):
    """resize_shorter: as the head of this file says; of field "image".

    Attributes:
        splits: "all".
        shorter: length of the shorter side, pixels.
        longest: which the longer side must not exceed; the shorter one is then less.
    """

    splits: Literal["train", "all"] = "all"
    shorter: settings.Positive = 800
    longest: settings.Positive = 1333

    def __post_init__(self) -> None:
        _check_splits(self.splits, "all")
        _check_longest((self.shorter,), self.longest)

    def sizes(self, sizes: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Those of the resized images."""
        del draws
        return resized(sizes, np.array(self.shorter), self.longest)

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Images of unlike size."""
        del draws
        batch, sizes = _listed(batch)
        return _resize(batch, sizes, self.sizes(sizes, None))


class Plan(NamedTuple):
    """What becomes of images, int [B, 2] each, height or row first.

    size: to which they are resized first, or their own.
    corner: of the part that is cut out of them.
    part: size of that part.
    final: to which it is resized.
    """

    size: np.ndarray
    corner: np.ndarray
    part: np.ndarray
    final: np.ndarray


@dataclasses.dataclass(frozen=True)
class MultiScale(Transform):
    """multi_scale: as the head of this file says; of field "image".

    A part is cut out with a probability: the shorter side is made one of `before`, and
    width and height of the part are drawn from a range, each at most that of the image.
    The image, or the part, is then resized so that its shorter side is one of `sides`.

    Attributes:
        splits: "train".
        sides: lengths of the shorter side, pixels.
        longest: which the longer side must not exceed; the shorter one is then less.
        crop: probability of a part.
        before: lengths of the shorter side before a part is cut out.
        parts: least and greatest width and height of a part, pixels.
        shorter: length of the shorter side in evaluation.
    """

    sides: tuple[settings.Positive, ...] = tuple(range(480, 801, 32))
    longest: settings.Positive = 1333
    crop: Share = 0.5
    before: tuple[settings.Positive, ...] = (400, 500, 600)
    parts: tuple[settings.Positive, settings.Positive] = (384, 600)
    shorter: settings.Positive = 800

    def __post_init__(self) -> None:
        _check_splits(self.splits, "train")
        for name in ("sides", "before"):
            if not getattr(self, name):
                raise settings.Invalid(f"{name} needs at least one length, got ()")
        _check_longest((*self.sides, self.shorter), self.longest)
        if self.parts[0] > self.parts[1]:
            low, high = self.parts
            raise settings.Invalid(f"parts is not a range: {low} to {high}")

    def draws(self, example: Mapping[str, Field]) -> int:
        """Whether a part, two lengths, width and height of a part, its row, column."""
        del example
        return 7

    def plan(self, sizes: np.ndarray, draws: np.ndarray) -> Plan:
        """What becomes of images of some sizes, int [B, 2]."""
        sides, before = np.array(self.sides), np.array(self.before)
        cut = (draws[:, 0] < self.crop)[:, None]
        first = before[integers(draws[:, 2], len(before))]
        size = np.where(cut, resized(sizes, first), sizes)
        low, high = np.minimum(self.parts[0], size), np.minimum(self.parts[1], size)
        part = low + integers(draws[:, [4, 3]], high - low + 1)
        part = np.where(cut, part, size)
        corner = integers(draws[:, 5:7], size - part + 1)
        side = sides[integers(draws[:, 1], len(sides))]
        return Plan(size, corner, part, resized(part, side, self.longest))

    def sizes(self, sizes: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Those of the resized images or parts."""
        if draws is None:
            return resized(sizes, np.array(self.shorter), self.longest)
        return self.plan(sizes, draws).final

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Images of unlike size."""
        batch, sizes = _listed(batch)
        plan = self.plan(sizes, draws)
        batch = _resize(batch, sizes, plan.size)
        batch = _cut(batch, plan.corner, plan.part)
        return _resize(batch, plan.part, plan.final)

    def otherwise(self, batch: Batch) -> Batch:
        """Images whose shorter side is `shorter`."""
        batch, sizes = _listed(batch)
        return _resize(batch, sizes, self.sizes(sizes, None))


def resized(
    sizes: np.ndarray, side: np.ndarray, longest: int | None = None
) -> np.ndarray:
    """Height and width of images whose shorter side is made `side`: int [B, 2].

    The published code rounds the shorter side to the nearest where the longer one
    would exceed `longest`, and the longer side down.

    Args:
        sizes: of the images, int [B, 2].
        side: int, [] or [B].
        longest: length of the longer side; None for any.
    """
    low, high = sizes.min(axis=1), sizes.max(axis=1)
    side = np.broadcast_to(side, low.shape)
    if longest is not None:
        beyond = high / low * side > longest
        side = np.where(beyond, np.rint(longest * low / high), side).astype(np.int64)
        side = np.maximum(side, 1)
    other = np.maximum(side * high // low, 1)
    upright = sizes[:, 0] > sizes[:, 1]
    return np.where(
        upright[:, None],
        np.stack([other, side], axis=1),
        np.stack([side, other], axis=1),
    )


def _resize(batch: Batch, sizes: np.ndarray, new: np.ndarray) -> Batch:
    """Images of some sizes resized to others."""
    found = {**batch}
    for name in ("image", "objects"):
        if name in batch:
            targets = map(tuple, new.tolist())
            pairs = zip(batch[name], targets, strict=True)
            found[name] = [geometry.resize(image, size) for image, size in pairs]
    scale = new[:, ::-1] / sizes[:, ::-1]
    return found | geometry.moved_boxes(batch, scale, np.zeros_like(scale), new)


def _cut(batch: Batch, corner: np.ndarray, part: np.ndarray) -> Batch:
    """Parts of images."""
    ends = corner + part
    found = {**batch}
    for name in ("image", "objects"):
        if name in batch:
            places = zip(batch[name], corner.tolist(), ends.tolist(), strict=True)
            found[name] = [
                image[top:bottom, left:right]
                for image, (top, left), (bottom, right) in places
            ]
    return found | geometry.moved_boxes(batch, 1.0, -corner[:, ::-1], part)


def _listed(batch: Batch) -> tuple[Batch, np.ndarray]:
    """The batch with its images as a list, and their height and width: int [B, 2]."""
    geometry.present(batch, ("image",))
    images = list(batch["image"])
    return {**batch, "image": images}, np.array([i.shape[:2] for i in images], np.int64)


def _check_splits(splits: str, only: str) -> None:
    if splits != only:
        raise settings.Invalid(
            f"splits must be {only!r}, got {splits!r}: images are resized in all"
            " splits, by chance in training only"
        )


def _check_longest(sides: tuple[int, ...], longest: int) -> None:
    if longest < max(sides):
        raise settings.Invalid(
            f"longest must be at least the shorter side {max(sides)}, got {longest}"
        )
