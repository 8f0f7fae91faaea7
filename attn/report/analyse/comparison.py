r"""Difference of a row to its baseline, over training seeds and test examples at once.

The question is what would be found with other seeds and other test examples drawn like
these. Let y[s, i] be what a row got on example i after training with seed s. Row and
baseline are each taken as

    y[s, i] = value + seed[s] + example[i] + rest[s, i]

with independent terms of mean zero (crossed random effects, Searle, Casella and
McCulloch 1992, chapter 4). Training is repeated for each row, so that seed[s] and
rest[s, i] of two rows are independent; the test examples are the same, so that
example[i] is not: an example that is hard for one row is hard for the other. The mean
difference of S seeds each over n examples then has the variance

    (var seed_row + var rest_row / n) / S + the same of the baseline
        + var(example_row - example_baseline) / n

The last part stays, however many seeds there are. It is what an interval over seeds
leaves out, and what an interval over the examples of one network does not tell from
noise of training. The parts are estimated without bias from mean squares:

    v = variance of the S seeds' values, over S                   S - 1 degrees each
    c = (variance over examples of the difference of the rows' means over seeds
         - interaction_row / S - interaction_baseline / S) / n, at least 0

where the interaction is the mean square of what is left of y[s, i] after the means
over s and over i. The interval is Student's,

    difference +- t(d) sqrt(v_row + v_baseline + c),
    d = (v_row + v_baseline + c)^2 / (v_row^2 / (S - 1) + v_baseline^2 / (S - 1) + ...)

with the degrees of freedom of Satterthwaite (1946), one term for each mean square; for
c = 0 it is Welch's (1947). `python -m benchmarks.coverage` holds it by simulation. A
bootstrap over seeds and examples (Owen 2007) comes to the same variance with many
seeds; with three it is too narrow, as it knows no degrees of freedom.

Means weighted by example, such as an error of a token, enter by their linear terms
(the delta method); a value that is no mean over examples by its seeds alone.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import special

from attn import settings
from attn.report.read.outcomes import Outcomes

CONFIDENCE = 0.95


class Part(NamedTuple):
    """A part of the variance of a difference, and its degrees of freedom."""

    variance: float
    df: float


def shared(row: Outcomes, baseline: Outcomes) -> Part:
    """The part c of a variance: that of the test examples, which seeds do not reduce.

    Raises:
        Invalid: the rows were not tested on the same examples.
    """
    if not row.comparable(baseline):
        raise settings.Invalid(
            f"rows are compared on the same examples, not on {row.count} and"
            f" {baseline.count} that differ"
        )
    spread = float(((row.means - baseline.means) ** 2).sum()) / (row.count - 1)
    sides = [(side.interaction, len(side.values)) for side in (row, baseline)]
    return example_part(spread, row.count, sides)


def example_part(
    variance: float, count: int, interactions: Iterable[tuple[float, int]]
) -> Part:
    """The part c of a variance from its mean squares.

    Args:
        variance: over the examples, of the difference of the rows' means over seeds.
        count: number of examples.
        interactions: mean square of seed x example of each row, and its seeds.
    """
    terms = [Part(variance / count, count - 1)]
    terms += [
        Part(-square / seeds / count, (seeds - 1) * (count - 1))
        for square, seeds in interactions
        if seeds > 1
    ]
    left = sum(term.variance for term in terms)
    if left <= 0:
        return Part(0.0, math.inf)
    return Part(left, left**2 / sum(t.variance**2 / t.df for t in terms))


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference and how uncertain it is.

    Attributes:
        mean: row minus baseline.
        row, baseline: number of seeds of each.
        parts: of the variance: of the row's seeds, of the baseline's; none where one
            of them has a single seed.
        examples: the part that more seeds do not remove; None if it is not known.
        least: a standard deviation below which that of a share cannot be.
        count: number of test examples, None if it is not known.
    """

    mean: float
    row: int
    baseline: int
    parts: tuple[Part, ...] = ()
    examples: Part | None = None
    least: float = 0.0
    count: int | None = None

    @property
    def error(self) -> float | None:
        """Standard error; None with a single seed."""
        if not self.parts:
            return None
        return math.sqrt(sum(part.variance for part in self._all))

    @property
    def df(self) -> float:
        """Degrees of freedom, at least those of the fewer seeds."""
        fewest = min(self.row, self.baseline) - 1
        spread = sum(part.variance**2 / part.df for part in self._all)
        whole = sum(part.variance for part in self._all)
        return max(fewest, whole**2 / spread) if spread else fewest

    @property
    def _all(self) -> tuple[Part, ...]:
        return self.parts if self.examples is None else (*self.parts, self.examples)

    def half(self, confidence: float = CONFIDENCE) -> float | None:
        """Half the width of the interval; None with a single seed."""
        if self.error is None:
            return None
        tail = 0.5 + confidence / 2
        student = float(special.stdtrit(self.df, tail)) * self.error
        return max(student, float(special.ndtri(tail)) * self.least)

    def tail(self, beyond: float) -> float:
        """Probability that chance alone brings the mean further than this up."""
        by_seeds = _above(beyond, self.error, lambda x: special.stdtr(self.df, -x))
        return max(by_seeds, _above(beyond, self.least, lambda x: special.ndtr(-x)))

    @property
    def p_value(self) -> float | None:
        """Of no difference, two-sided: below 1 - c where the interval leaves out 0."""
        return None if self.error is None else min(1.0, 2 * self.tail(abs(self.mean)))

    def equivalence(self, rope: float | None) -> float | None:
        """P-value of a difference beyond +-rope: small where it is surely smaller.

        Two one-sided tests (Schuirmann 1987), each at half the level, so that it is
        below 1 - c just where the interval at confidence c lies inside +-rope.
        """
        if self.error is None or rope is None:
            return None
        return min(1.0, 2 * self.tail(rope - abs(self.mean)))


def _above(distance: float, error: float | None, tail) -> float:
    """Probability `tail` of a distance in standard errors, also where these are 0."""
    if not error:
        return 0.0 if distance > 0 else 0.5
    return float(tail(distance / error))


@dataclasses.dataclass(frozen=True)
class Sample:
    """Values of a metric of a row.

    Attributes:
        values: of each seed.
        examples: number of test examples, None if it is not known.
        outcomes: of the examples; None where the metric is no mean over them, or where
            they are not recorded.
    """

    values: tuple[float, ...]
    examples: int | None = None
    outcomes: Outcomes | None = None


def difference(row: Sample, baseline: Sample, *, share: bool) -> Difference | None:
    """The difference of two rows, which need not have the same seeds.

    Without the outcomes of the same examples on both sides the interval is over seeds
    alone: it holds for these test examples.

    A share of few examples is not normal. Of k more examples that are wrong, in each of
    S seeds, at least S k pairs of networks disagree, all one way, and by chance alone
    that sum has a standard deviation of at least sqrt(S k) (McNemar 1947). The standard
    error is never below that, over S. Where it is not known which examples are wrong,
    it may be the same ones with every seed: then sqrt(k).

    Args:
        row, baseline: what is compared.
        share: whether the values are percentages of the examples.

    Returns:
        The difference; None if one of both has no value.
    """
    sides = row.values, baseline.values
    if not all(sides):
        return None
    seeds = [len(side) for side in sides]
    mean = float(np.mean(row.values) - np.mean(baseline.values))
    parts, examples = (), _shared(row.outcomes, baseline.outcomes)
    if min(seeds) > 1:
        parts = tuple(
            Part(float(np.var(side, ddof=1)) / len(side), len(side) - 1)
            for side in sides
        )
    counts = [side.examples for side in (row, baseline) if side.examples]
    count = min(counts, default=None)
    if row.outcomes is not None and examples is not None:
        count = row.outcomes.count
    least = 0.0
    if share and count:
        wrong = abs(mean) * count / 100
        least = math.sqrt(wrong / (1 if examples is None else max(seeds))) * 100 / count
    return Difference(mean, *seeds, parts, examples, least, count)


def _shared(row: Outcomes | None, baseline: Outcomes | None) -> Part | None:
    if row is None or baseline is None or not row.comparable(baseline):
        return None
    return shared(row, baseline)
