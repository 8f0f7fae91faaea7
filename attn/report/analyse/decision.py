"""Decisions from the differences of a table to its baseline, and what is open.

A row is better or worse where the interval of its difference leaves zero out, and
equivalent where the interval lies within a region of practical equivalence: whatever
the difference is, it is too small to matter. The second is said if both hold.

Each of these is right in 95 of 100 cases by itself. Over the rows of a table the
p-values are corrected (Holm 1979), so that with 95 % probability not one row is called
better or worse that is not, and likewise not one equivalent.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special

from attn.report.analyse.comparison import CONFIDENCE, Difference

Better = Literal["lower", "higher"]
Verdict = Literal["better", "worse", "equivalent", "not distinguishable", "one seed"]
OPEN: Verdict = "not distinguishable"
LEVEL = 1 - CONFIDENCE
MOST = 100  # seeds beyond which nobody goes


@dataclasses.dataclass(frozen=True)
class Needed:
    """Seeds or examples that would decide an open difference, if its mean stays.

    Attributes:
        seeds: more of them for row and baseline; None if no number of seeds does.
        examples: so many test examples at least, where seeds alone do not help; None
            where they do, or where nothing helps.
    """

    seeds: int | None = None
    examples: int | None = None


@dataclasses.dataclass(frozen=True)
class Decision:
    """Verdict on one row.

    Attributes:
        verdict: after correction for the number of rows.
        uncorrected: by the row's own interval at 95 %.
        p_value: of no difference, corrected; None with one seed.
        needed: what would decide it where `verdict` leaves it open, else None.
    """

    verdict: Verdict
    uncorrected: Verdict
    p_value: float | None
    needed: Needed | None


def decide(
    differences: Sequence[Difference],
    better: Better,
    *,
    rope: float | None = None,
) -> list[Decision]:
    """Decisions on the rows of one table.

    Args:
        differences: of each row to its baseline.
        better: whether lower or higher values of the metric are.
        rope: the largest difference that does not matter, in units of the metric.
    """
    differs = [one.p_value for one in differences]
    same = [one.equivalence(rope) for one in differences]
    corrected = holm(differs)
    each = zip(differences, differs, same, strict=True)
    alone = [verdict(*one, better) for one in each]
    each = zip(differences, corrected, holm(same), strict=True)
    verdicts = [verdict(*one, better) for one in each]
    # what the next row to be decided has to reach
    confidence = 1 - LEVEL / max(1, verdicts.count(OPEN))
    return [
        Decision(
            verdicts[i],
            alone[i],
            corrected[i],
            needed(one, rope=rope, confidence=confidence)
            if verdicts[i] == OPEN
            else None,
        )
        for i, one in enumerate(differences)
    ]


def verdict(
    difference: Difference, differs: float | None, same: float | None, better: Better
) -> Verdict:
    """Verdict by the p-values of no difference and of one that matters."""
    if differs is None:
        return "one seed"
    if same is not None and same < LEVEL:
        return "equivalent"
    if differs >= LEVEL:
        return OPEN
    return "better" if (difference.mean < 0) == (better == "lower") else "worse"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm 1979); None stays and does not count.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is
    smaller than those before it, none larger than 1.
    """
    known = [i for i, p in enumerate(p_values) if p is not None]
    order = sorted(known, key=lambda i: p_values[i])
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def needed(
    difference: Difference,
    *,
    rope: float | None = None,
    confidence: float = CONFIDENCE,
) -> Needed:
    """Number of seeds, or else of test examples, that would decide a difference.

    It is the smallest number for which the interval, of the same mean and parts of the
    variance, leaves zero out or lies within the region of practical equivalence.
    """
    margin = max(abs(difference.mean), (rope or 0.0) - abs(difference.mean))
    now = max(difference.row, difference.baseline)
    if margin <= 0 or not difference.parts:
        return Needed()
    seeds = np.arange(now + 1, MOST + 1)
    enough = _halves(difference, seeds, confidence) < margin
    if enough.any():
        return Needed(seeds=int(seeds[enough.argmax()]) - now)
    kept = _kept(difference)
    limit = float(special.ndtri(0.5 + confidence / 2)) * kept / margin
    if difference.count and limit >= 1:
        return Needed(examples=math.ceil(difference.count * limit**2))
    return Needed()


def _halves(difference: Difference, seeds: np.ndarray, confidence: float) -> np.ndarray:
    """Half widths that the interval would have with these numbers of seeds."""
    sides = zip(difference.parts, (difference.row, difference.baseline), strict=True)
    parts = [(part.variance * have / seeds, seeds - 1) for part, have in sides]
    if difference.examples is not None:
        parts.append(difference.examples)
    whole = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts)
    df = np.divide(whole**2, spread, out=seeds - 1.0, where=spread > 0)
    tail = 0.5 + confidence / 2
    student = special.stdtrit(np.maximum(df, seeds - 1), tail) * np.sqrt(whole)
    least = difference.least
    if difference.examples is not None:
        least = least * np.sqrt(max(difference.row, difference.baseline) / seeds)
    return np.maximum(student, special.ndtri(tail) * least)


def _kept(difference: Difference) -> float:
    """The standard error that is left with any number of seeds."""
    if difference.examples is None:
        return difference.least
    return math.sqrt(difference.examples.variance)
