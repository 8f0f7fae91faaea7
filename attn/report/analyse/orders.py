"""Agreement of two orders of the same rows: ours and the paper's.

They are compared pair by pair, where a pair of ours counts only if the interval of its
difference leaves zero out, without correction for the number of pairs; and by Kendall's
tau-b (Kendall 1945) over the means, from FEWEST rows on.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from scipy import stats

from attn.report.analyse import decision, table
from attn.report.analyse.table import Row
from attn.report.read.metrics import Metric

# Of three rows one order in six is the paper's by chance.
FEWEST = 4
COUNTS = ("same", "other", "open", "single", "tied", "count")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row with our mean and the paper's value of it."""

    row: Row
    ours: float
    theirs: float


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of two orders.

    Attributes:
        same, other: pairs of rows that both order, alike or the other way round.
        open: pairs that the paper orders and ours cannot tell apart.
        single: pairs that the paper orders and of which a row has one seed, so that
            nothing can be said.
        tied: pairs to which the paper gives the same value.
        tau: Kendall's tau-b over the means, None below FEWEST rows or where an order
            has no two values.
        count: number of rows or cells that both have.
    """

    same: int
    other: int
    open: int
    single: int
    tied: int
    tau: float | None
    count: int

    @property
    def ordered(self) -> int:
        """Pairs that the paper orders."""
        return self.same + self.other + self.open + self.single


def agreement(entries: Sequence[Entry], metric: Metric) -> Agreement:
    """Agreement over the rows of one column."""
    counts = dict.fromkeys(COUNTS, 0)
    for first, second in itertools.combinations(entries, 2):
        counts[_order(first, second, metric)] += 1
    return Agreement(**{**counts, "count": len(entries)}, tau=_tau(entries))


def overall(each: Sequence[Agreement]) -> Agreement:
    """Agreement over some columns; its tau is the mean of theirs."""
    counts = {name: sum(getattr(one, name) for one in each) for name in COUNTS}
    # columns may be of quite different values, as some data is harder than other
    taus = [one.tau for one in each if one.tau is not None]
    return Agreement(**counts, tau=sum(taus) / len(taus) if taus else None)


def _order(first: Entry, second: Entry, metric: Metric) -> str:
    """Name of the count to which a pair of entries belongs."""
    if first.theirs == second.theirs:
        return "tied"
    difference = table.between(first.row, second.row, metric)
    if difference is None or difference.p_value is None:
        return "single"
    if difference.p_value >= decision.LEVEL:
        return "open"
    above = first.theirs > second.theirs
    return "same" if (difference.mean > 0) == above else "other"


def _tau(entries: Sequence[Entry]) -> float | None:
    pairs = [(entry.theirs, entry.ours) for entry in entries]
    if len(pairs) < FEWEST:
        return None
    if any(len({pair[side] for pair in pairs}) < 2 for side in (0, 1)):
        return None
    return float(stats.kendalltau(*zip(*pairs, strict=True)).statistic)
