"""Distributions of random numbers in [0, 1): a range, integers, other rows, normals."""

import numpy as np


def uniform(draws: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Numbers from `low` to `high`, which broadcast against `draws`."""
    return low + (high - low) * draws


def integers(draws: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Integers 0 to `count` - 1; `count` broadcasts against `draws`."""
    return (draws * count).astype(np.intp)


def other_rows(draws: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Rows of a split of `size` that are not an example's own: int [B, n].

    Args:
        draws: [B, n].
        rows: int [B], the examples' own. It is given again where there is no other.
        size: rows of the split.
    """
    return (rows[:, None] + 1 + integers(draws, size - 1)) % size


def normal(draws: np.ndarray) -> np.ndarray:
    """Standard normals by Box and Muller, from pairs of draws: [B, n], n even."""
    radius = np.sqrt(-2 * np.log1p(-draws[:, 0::2]))
    angle = 2 * np.pi * draws[:, 1::2]
    pair = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pair.reshape(draws.shape)


def named(draws: np.ndarray, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Draws of an example by what they are for: [B, sum] -> {name: [B, count]}."""
    ends = np.cumsum(list(counts.values()))[:-1]
    return dict(zip(counts, np.split(draws, ends, axis=1), strict=True))
