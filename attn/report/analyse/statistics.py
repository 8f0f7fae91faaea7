"""Means over seeds with their intervals, and differences of a row paired by seed.

The intervals are Student's: mean +- t(n - 1) s / sqrt(n), with s the standard
deviation of the n values. How two rows differ is in `comparison`; here a row is held
against an earlier record of itself, seed by seed, because the same seed trains the same
model on the same data unless something has changed.

All seeds are tested on the same examples, so that more seeds do not make up for few of
them. A difference of k examples means at least k on which two models disagree, and a
standard deviation of at least sqrt(k) examples (McNemar 1947): no interval of a
difference of shares is narrower than that leaves it, however alike the seeds are.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from scipy import special

CONFIDENCE = 0.95
Verdict = Literal["better", "worse", "not distinguishable", "one seed"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the half width of its interval, None when there is one value."""

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        """Lower end; the mean itself without an interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Upper end; the mean itself without an interval."""
        return self.mean + (self.half or 0.0)


def interval(
    values: Iterable[float], confidence: float = CONFIDENCE
) -> Interval | None:
    """The mean of some values and its interval; None if there are no values."""
    values = np.asarray(list(values), np.float64)
    if not len(values):
        return None
    if len(values) == 1:
        return Interval(float(values[0]), None, 1)
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    quantile = special.stdtrit(len(values) - 1, 0.5 + confidence / 2)
    return Interval(float(np.mean(values)), float(quantile * spread), len(values))


def paired(
    values: Mapping[Any, float],
    baseline: Mapping[Any, float],
    confidence: float = CONFIDENCE,
    *,
    examples: int | None = None,
) -> Interval | None:
    """The mean difference to a baseline over the seeds that both have.

    Args:
        values, baseline: numbers by seed; with `examples` shares in percent.
        confidence: probability that the interval covers the true difference.
        examples: how many test examples they are shares of, the same for both.

    Returns:
        The interval of value - baseline; None if no seed is in both.
    """
    seeds = [seed for seed in values if seed in baseline]
    found = interval([values[seed] - baseline[seed] for seed in seeds], confidence)
    if found is None or found.half is None or not examples:
        return found
    changed = abs(found.mean) * examples / 100
    least = special.ndtri(0.5 + confidence / 2) * math.sqrt(changed) * 100 / examples
    return dataclasses.replace(found, half=max(found.half, float(least)))


def verdict(difference: Interval, better: str = "lower") -> Verdict:
    """Verdict of a difference: none, if its interval includes zero.

    Args:
        difference: an interval.
        better: "lower" or "higher", the direction of the metric.
    """
    if difference.half is None:
        return "one seed"
    if difference.low <= 0 <= difference.high:
        return "not distinguishable"
    return "better" if (difference.low > 0) == (better == "higher") else "worse"
