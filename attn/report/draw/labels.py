"""Placement of labels beside points, where they cover neither points nor each other."""

import math
from collections.abc import Sequence

import numpy as np

DIRECTIONS = 16
DISTANCES = (7.0, 14.0, 24.0, 38.0, 56.0, 80.0)
ROUNDS = 4


def place(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[tuple[float, float, float, float]],
    bounds: tuple[float, float, float, float],
) -> list[tuple[float, float]]:
    """The centres of labels, one beside each anchor; y grows upwards.

    Each label takes in turn the cheapest of some places around its anchor, given
    the others, for a few rounds. Near is cheap, overlaps and leaving the bounds are
    expensive: labels move further away before they overlap.

    Args:
        anchors: points (x, y) that the labels name.
        sizes: width and height of each label.
        obstacles: boxes (left, bottom, right, top) to keep clear of, such as the
            marks at the anchors and their error bars.
        bounds: the box in which labels must lie.
    """
    anchors, sizes = np.reshape(anchors, (-1, 2)), np.reshape(sizes, (-1, 2))
    blocked = np.reshape(np.asarray(obstacles, np.float64), (-1, 4))
    centres = anchors + sizes * [0.5, 0.0] + [DISTANCES[0], 0.0]
    for _ in range(ROUNDS):
        for i, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
            others = np.delete(np.arange(len(anchors)), i)
            taken = np.concatenate(
                [blocked, _boxes(centres[others], sizes[others])], axis=0
            )
            options, distances = _options(anchor, size)
            boxes = _boxes(options, np.broadcast_to(size, options.shape))
            costs = distances + 20 * _overlap(boxes, taken) + 50 * _out(boxes, bounds)
            centres[i] = options[np.argmin(costs)]
    return [(float(x), float(y)) for x, y in centres]


def _options(anchor: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [n, 2] around an anchor and how far each keeps the label away [n]."""
    angles = np.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    found = [anchor + ways * (size / 2 + distance) for distance in DISTANCES]
    return np.concatenate(found), np.repeat(DISTANCES, DIRECTIONS)


def _boxes(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)


def _overlap(boxes: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """The area that each box [n, 4] shares with the boxes that are taken [m, 4]."""
    low = np.maximum(boxes[:, None, :2], taken[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], taken[None, :, 2:])
    return np.prod(np.maximum(high - low, 0.0), axis=-1).sum(axis=-1)


def _out(boxes: np.ndarray, bounds: tuple[float, float, float, float]) -> np.ndarray:
    """Lengths by which each box reaches out of the bounds."""
    left, bottom, right, top = bounds
    low = np.maximum([[left, bottom]] - boxes[:, :2], 0.0)
    high = np.maximum(boxes[:, 2:] - [[right, top]], 0.0)
    return (low + high).sum(axis=-1)
