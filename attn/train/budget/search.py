"""Search for the widths at which a network costs what it should.

A network has width settings: integers, or tuples of them, that grow with its width.
One factor scales them all, each rounded to its own step, so that proportions
stay; where rounding misses the budget, single numbers move by a step or two.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from attn.models.scaling import Width

Settings = dict[str, Any]
Vector = tuple[int, ...]

LARGEST = 64.0  # factor to which widths grow
CLOSE = 1e-6  # two factors nearer than this, relatively, count as one
REACH = 0.5  # share, or one step, by which single numbers may leave proportion
PROBES = 300  # settings tried at most


class Fit(NamedTuple):
    """Settings, what they cost, and whether that is within tolerance of the budget."""

    settings: Settings
    cost: float
    within_tolerance: bool


def fit(
    widths: Mapping[str, Width],
    cost: Callable[[Settings], float],
    budget: float,
    *,
    tolerance: float,
    first_fit: bool = False,
    probes: int = PROBES,
) -> Fit:
    """The settings of `widths` whose cost is nearest to the budget.

    Widths that are within tolerance stay as they are. Otherwise the two neighbouring
    factors around the budget are found, and the nearer one is taken; if neither is
    within tolerance, single numbers are changed from there, by up to half of
    themselves. The same costs give the same fit.

    Args:
        widths: `model.width_settings()`: by name, what has a `value` and a `step`.
        cost: of settings; it should not fall when they grow. Called once for each.
        budget: what the cost should be, positive.
        tolerance: largest relative difference from the budget.
        first_fit: takes the first settings within tolerance, for costs that are
            measured: each takes a compilation.
        probes: most calls of `cost`.

    Raises:
        Invalid: what `cost` raises for settings in proportion.
    """
    search = _Search(widths, cost, budget, tolerance, first_fit, probes)
    for trial in (search.try_current, search.scale_together, search.local_search):
        try:
            trial()
        except _Done:
            break
    return search.best()


class _Done(Exception):
    """Ends a search: it has what it needs, or has used its calls."""


class _Search:
    def __init__(
        self,
        widths: Mapping[str, Width],
        cost: Callable[[Settings], float],
        budget: float,
        tolerance: float,
        first_fit: bool,
        probes: int,
    ):
        self._widths, self._cost, self._budget = widths, cost, budget
        self._tolerance, self._first_fit, self._probes = tolerance, first_fit, probes
        self._values: list[int] = []
        self._steps: list[int] = []
        for width in widths.values():
            values = _numbers(width.value)
            self._values += values
            self._steps += [width.step] * len(values)
        self._found: dict[Vector, float] = {}
        self._neighbours: list[Vector] = []

    def best(self) -> Fit:
        """The nearest settings so far; of equals the first."""
        vector = min(self._found, key=lambda v: self._gap(self._found[v]))
        cost = self._found[vector]
        return Fit(self._settings(vector), cost, self._gap(cost) <= self._tolerance)

    def try_current(self) -> None:
        """Tries the widths that the model has."""
        if self._gap(self._cost_of(tuple(self._values))) <= self._tolerance:
            raise _Done

    def scale_together(self) -> None:
        """Narrows the factor down to two neighbours around the budget."""
        low, high = self._bracket()
        self._neighbours = [self._scaled(f) for f in (low, high) if f is not None]
        if low is None or high is None:
            raise _Done  # the smallest costs too much, or the largest too little
        for turn in itertools.count():
            if high / low < 1 + CLOSE:
                break
            middle = self._between(low, high, secant=turn % 2 == 0)
            if self._cost_of(self._scaled(middle)) <= self._budget:
                low = middle
            else:
                high = middle
        self._neighbours = [self._scaled(low), self._scaled(high)]
        gaps = [self._gap(self._cost_of(end)) for end in self._neighbours]
        if min(gaps) <= self._tolerance:
            raise _Done

    def local_search(self) -> None:
        """Moves one number, then two, from either neighbour while that helps."""
        for start in sorted(self._neighbours, key=lambda v: self._gap(self._found[v])):
            here = start
            while self._gap(self._found[here]) > self._tolerance:
                better = self._nearer(here)
                if better is None:
                    break
                here = better
            else:
                raise _Done

    def _cost_of(self, vector: Vector) -> float:
        if vector not in self._found:
            if len(self._found) >= self._probes:
                raise _Done
            self._found[vector] = self._cost(self._settings(vector))
            near = self._gap(self._found[vector]) <= self._tolerance
            if near and self._first_fit:
                raise _Done
        return self._found[vector]

    def _gap(self, cost: float) -> float:
        return abs(cost - self._budget) / self._budget

    def _scaled(self, factor: float) -> Vector:
        """All widths times a factor, each rounded to its step, and at least one."""
        return tuple(
            step * max(1, math.floor(value * factor / step + 0.5))
            for value, step in zip(self._values, self._steps, strict=True)
        )

    def _bracket(self) -> tuple[float | None, float | None]:
        """A factor that costs too little, and one too much; None where none does."""
        low = high = None
        factor = 1.0
        while low is None or high is None:
            cost = self._cost_of(self._scaled(factor))
            if cost <= self._budget:
                low, end = factor, factor > LARGEST
            else:
                high, end = factor, self._scaled(factor) == tuple(self._steps)
            if end:
                break
            if low is None or high is None:  # costs grow by a power of 1 to 2
                ratio = self._budget / max(cost, 1e-9)
                leap = max(ratio, 1 / ratio) ** 0.6 * 1.1
                factor *= min(leap, 4.0) if high is None else 1 / min(leap, 4.0)
        return low, high

    def _between(self, low: float, high: float, *, secant: bool) -> float:
        """A factor between two: where the budget should lie, or in the middle."""
        share = 0.5
        below = self._cost_of(self._scaled(low))
        above = self._cost_of(self._scaled(high))
        if secant and 0 < below < above:
            share = math.log(self._budget / below) / math.log(above / below)
        return low * (high / low) ** min(max(share, 0.1), 0.9)

    def _nearer(self, here: Vector) -> Vector | None:
        """The best single move, or the first double one, that comes nearer."""
        gap = self._gap(self._found[here])
        single = [(self._try(v), v) for v in self._moved(here)]
        best = min(single, default=(math.inf, here))
        if best[0] < gap:
            return best[1]
        for once in self._moved(here):
            for twice in self._moved(once):
                if self._try(twice) < gap:
                    return twice
        return None

    def _try(self, vector: Vector) -> float:
        """The gap of settings off the proportions, which need not be possible."""
        try:
            return self._gap(self._cost_of(vector))
        except ValueError:
            return math.inf

    def _moved(self, here: Vector) -> Iterator[Vector]:
        """One number 1, 2, 4... steps up or down, not far from proportion."""
        for index, step in enumerate(self._steps):
            low, high = (
                min(e[index] for e in self._neighbours),
                max(e[index] for e in self._neighbours),
            )
            low, high = low - max(step, REACH * low), high + max(step, REACH * high)
            move = step
            while move <= high - low:
                for value in (here[index] - move, here[index] + move):
                    if max(low, step) <= value <= high:
                        yield (*here[:index], value, *here[index + 1 :])
                move *= 2

    def _settings(self, vector: Vector) -> Settings:
        """The numbers as the settings that they are."""
        numbers = iter(vector)
        return {
            name: next(numbers)
            if isinstance(width.value, int)
            else [next(numbers) for _ in width.value]
            for name, width in self._widths.items()
        }


def _numbers(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)
