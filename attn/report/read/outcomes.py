"""Outcomes of the test examples over the seeds of a row, for differences between rows.

A finished point has `outcomes.npz`: for each metric that is a mean over examples
NAME.total and NAME.weight [n], and `index`, which example of the split each is. A file
of results keeps what differences need of them, which is small: the values of the seeds,
a mean square, and the covariance over the examples of the rows' means.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn.report.read.damages import DAMAGES

FILE = "outcomes.npz"
DIGITS = 6  # significant, of what a file of results keeps
CLOSE = 1e-3  # by which totals over weights may differ from a metric, relative


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Outcomes of the test examples over the seeds of a row.

    Attributes:
        values: of each seed, [S].
        means: contribution of each example to the value, mean over seeds, less that
            of all examples, [n]; or coordinates of such vectors, see `unpack`.
        interaction: mean square of seed x example; 0 where there is one seed.
        index: which examples these are, [n].
    """

    values: np.ndarray
    means: np.ndarray
    interaction: float
    index: np.ndarray

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.index)

    def comparable(self, other: "Outcomes") -> bool:
        """Whether the other row was tested on the same examples."""
        return np.array_equal(self.index, other.index)


def of(
    totals: np.ndarray, weights: np.ndarray, index: np.ndarray | None = None
) -> Outcomes:
    """Outcomes from the totals and weights [S, n] of each seed and example.

    The value of a seed is sum(totals) / sum(weights). An example contributes
    value + n (total - value * weight) / sum(weights), which is total / weight where
    the weights are equal.
    """
    totals, weights = np.asarray(totals, np.float64), np.asarray(weights, np.float64)
    seeds, count = totals.shape
    whole = weights.sum(1, keepdims=True)
    values = totals.sum(1, keepdims=True) / whole
    each = count * (totals - values * weights) / whole
    means = each.mean(0)
    freedom = (seeds - 1) * (count - 1)
    interaction = float(((each - means) ** 2).sum() / freedom) if freedom else 0.0
    index = np.arange(count) if index is None else index
    return Outcomes(values[:, 0], means, interaction, index)


def read(
    directories: Sequence[pathlib.Path], metric: str, values: Sequence[float]
) -> Outcomes | None:
    """Outcomes in the directories of a row's finished points.

    Args:
        directories: of the points.
        metric: its name.
        values: of the metric as recorded, by point.

    Returns:
        The outcomes; None unless all points have them, of the same examples, two at
        least, finite and with the recorded values as their means.
    """
    found = [_read(directory / FILE, metric) for directory in directories]
    if not found or any(each is None for each in found):
        return None
    totals, weights, index = zip(*found, strict=True)
    if not all(np.array_equal(each, index[0]) for each in index):
        return None
    if len(index[0]) < 2:  # one example does not tell how examples vary
        return None
    made = of(np.stack(totals), np.stack(weights), index[0])
    return made if np.allclose(made.values, values, CLOSE, CLOSE) else None


def _read(path: pathlib.Path, metric: str) -> tuple[np.ndarray, ...] | None:
    """Totals, weights and index of a point, by index; None if they are of no use.

    An example that was tested several times, with other random numbers, counts once,
    with the sums of its totals and weights: its tests are not independent.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            total, weight = arrays[f"{metric}.total"], arrays[f"{metric}.weight"]
            index = arrays["index"]
    except DAMAGES:
        return None
    usable = total.shape == weight.shape == index.shape and total.ndim == 1
    if not usable or not np.isfinite([total, weight]).all() or weight.sum() <= 0:
        return None
    examples, place = np.unique(index, return_inverse=True)
    sums = (np.bincount(place, values) for values in (total, weight))
    return (*sums, examples)


def pack(rows: Mapping[int, Outcomes]) -> list[dict[str, Any]]:
    """Outcomes of some rows as plain data, rows of the same examples together."""
    groups: list[dict[int, Outcomes]] = []
    for number, row in rows.items():
        for group in groups:
            if row.comparable(next(iter(group.values()))):
                group[number] = row
                break
        else:
            groups.append({number: row})
    return [_pack(group) for group in groups]


def _pack(rows: Mapping[int, Outcomes]) -> dict[str, Any]:
    means = np.stack([row.means for row in rows.values()])
    count = next(iter(rows.values())).count
    covariance = means @ means.T / (count - 1)
    return {
        "rows": list(rows),
        "examples": count,
        "interaction": [_rounded(row.interaction) for row in rows.values()],
        # of each row with those up to itself
        "covariance": [
            [_rounded(value) for value in line[: i + 1]]
            for i, line in enumerate(covariance)
        ],
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def unpack(
    groups: Sequence[Mapping[str, Any]], values: Mapping[int, Sequence[float]]
) -> dict[int, Outcomes]:
    """Outcomes from what `pack` returned and the values of the seeds by row.

    The examples' means come back as vectors of the same scalar products, that is
    in other coordinates and without those that no row uses.
    """
    found = {}
    for place, group in enumerate(groups):
        lines, count = group["covariance"], int(group["examples"])
        covariance = np.zeros((len(lines), len(lines)))
        for i, line in enumerate(lines):
            covariance[i, : i + 1] = covariance[: i + 1, i] = line
        sizes, axes = np.linalg.eigh(covariance * (count - 1))
        vectors = axes * np.sqrt(np.maximum(sizes, 0))
        for i, number in enumerate(group["rows"]):
            found[number] = Outcomes(
                np.asarray(values[number], np.float64),
                vectors[i],
                float(group["interaction"][i]),
                np.arange(count) + place * 2**40,  # other groups have other examples
            )
    return found
