"""Batches of images of unlike size, padded to a few sizes.

A program is compiled once for each size of a canvas, so that a canvas is one of a few:
both of its sides are among some lengths between which about as many sides of images
lie, multiples of what a backbone shrinks by.

In evaluation the images of a batch share the smallest canvas that holds them. In
training every image has a new size each time it comes. So GROUP batches are made of as
many consecutive positions of the stream, in which their images are sorted by canvas;
they come in random order. Every image still comes once an epoch, and batch k is still
a function of (seed, k), alike on all shards.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from attn.data import buckets, order
from attn.data.buckets import Buckets, Rows

SIDES = 4  # lengths of a side of a canvas; canvases are pairs of them
MULTIPLE = 32  # of which every side is one, as backbones shrink by as much
GROUP = 16  # batches that are sorted together
SAMPLE = 4096  # positions of the training stream by which the sides are chosen
TURNS = "canvases"  # the stream of the order of the batches of a group

Size = tuple[int, int]  # height and width
# (seed, rows [n], first position) -> height and width in training, int [n, 2]
Sizes = Callable[[int, np.ndarray, int], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Canvases:
    """A plan of batches, as `Buckets` are one, whose lengths are sizes of canvases.

    Attributes:
        size: images of the split.
        sizes: of images in training.
        evaluated: the split by the canvases of its evaluation.
    """

    size: int
    sizes: Sizes
    evaluated: Buckets

    def count(self, batch_size: int, passes: int = 1) -> int:
        """As of `Buckets`."""
        return self.evaluated.count(batch_size, passes)

    def evaluation(
        self, number: int, batch_size: int, shard: tuple[int, int], passes: int = 1
    ) -> Rows:
        """As of `Buckets`."""
        return self.evaluated.evaluation(number, batch_size, shard, passes)

    def training(
        self, seed: int, number: int, batch_size: int, shard: tuple[int, int]
    ) -> Rows:
        """As of `Buckets`."""
        group, turn = divmod(number, GROUP)
        first, count = group * GROUP * batch_size, GROUP * batch_size
        rows = order.rows(seed, first, count, self.size)
        canvas = fitting(self.sizes(seed, rows, first), self.sides)
        taken = int(order.permutation(seed, group, GROUP, TURNS)[turn])
        batch = _sorted(canvas)[taken * batch_size : (taken + 1) * batch_size]
        height, width = canvas[batch].max(axis=0).tolist()
        local = batch_size // shard[1]
        batch = batch[shard[0] * local : (shard[0] + 1) * local]
        weight = np.ones(local, np.float32)
        return Rows(rows[batch], first + batch, "", (height, width), weight)

    @functools.cached_property
    def sides(self) -> tuple[int, ...]:
        """Of canvases in training, ascending, by a sample of its images.

        One with a longer side, of which the sample had none, has a canvas of its own.
        """
        rows = order.rows(0, 0, SAMPLE, self.size)
        return _sides(self.sizes(0, rows, 0))

    @property
    def largest(self) -> Size:
        """The canvas of most pixels in evaluation."""
        return max(self.evaluated.lengths, key=lambda size: size[0] * size[1])

    def holding(self, size: np.ndarray) -> Size:
        """The smallest canvas of the evaluation that holds an image, or a larger one.

        Args:
            size: height and width of the image, int [2].
        """
        known = [one for one in self.evaluated.lengths if (size <= one).all()]
        if known:
            return min(known, key=lambda one: one[0] * one[1])
        height, width = (-(-size // MULTIPLE) * MULTIPLE).tolist()
        return height, width


def plan(size: int, sizes: Sizes, evaluated: np.ndarray) -> Canvases:
    """The plan of a split.

    Args:
        size: images of it.
        sizes: of images in training.
        evaluated: height and width of each image in evaluation, int [size, 2].
    """
    canvas = fitting(evaluated, _sides(evaluated))
    kinds, which = np.unique(canvas, axis=0, return_inverse=True)
    members = tuple(np.flatnonzero(which.ravel() == k) for k in range(len(kinds)))
    lengths = tuple((height, width) for height, width in kinds.tolist())
    split = Buckets(members, lengths, (1,) * len(kinds))
    return Canvases(size, sizes, split)


def fitting(sizes: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    """The smallest canvas that holds each image: int [n, 2], as `sizes`.

    A side that is longer than the last of `sides` is rounded up to a MULTIPLE.
    """
    place = np.searchsorted(sides, sizes)
    known = np.array(sides)[np.minimum(place, len(sides) - 1)]
    return np.where(place < len(sides), known, -(-sizes // MULTIPLE) * MULTIPLE)


def _sides(sizes: np.ndarray) -> tuple[int, ...]:
    return buckets.boundaries(sizes.ravel(), SIDES, multiple=MULTIPLE)


def _sorted(canvas: np.ndarray) -> np.ndarray:
    """The order of images from upright to level canvases, of each shape by its area."""
    height, width = canvas.T
    return np.lexsort((height * width, width - height))
