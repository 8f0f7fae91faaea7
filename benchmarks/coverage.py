"""How often intervals of a difference cover the true one, by simulation.

    python -m benchmarks.coverage                        # the table of docs/metrics.md
    python -m benchmarks.coverage --replications=200
    python -m benchmarks.coverage --records              # what rows of a seed share

Two rows are trained with S seeds each and tested on the same n examples, which are
drawn anew in each replication, as the seeds are. Whether a network gets example i wrong
is decided by

    level + seed + hard[i] + own[i] + noise > 0

with normal terms: `hard` is common to both rows, `own` differs between the rows,
`seed` between networks, `noise` is of each network and example. The seeds' standard
deviation is given in units of sqrt(p (1 - p) / n), that of the examples' own part in
units of the noise. Beside shares of examples, which are 0 or 100 each, there are skewed
continuous values and means weighted by example, as of tokens.

Intervals at 95 %:

    ours       attn.report.analyse.comparison, over seeds and examples
    t          Student's over the differences seed by seed, not below McNemar's floor
    bootstrap  seeds and examples drawn with replacement, percentiles; it is slow, and
               has a quarter of the replications

The interval takes the seeds of two rows as independent. With --records that is looked
at in the files of experiments/results: the mean square of a seed over the rows, which
is that of the rest (F = 1) where rows of the same seed have nothing in common.
"""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
from absl import app, flags
from scipy import special

from attn.report.analyse import comparison, statistics
from attn.report.analyse import table as tables
from attn.report.analyse.comparison import Sample
from attn.report.read import outcomes, saved

HARD = 1.5
RESAMPLES = 200
SEEDS = (3, 5, 10)
METHODS = ("ours", "t", "bootstrap")

flags.DEFINE_integer("replications", 2000, "Simulated comparisons for each figure.")
flags.DEFINE_bool("records", False, "Look at the seeds of the results instead.")
FLAGS = flags.FLAGS
RESULTS = pathlib.Path(__file__).parents[1] / "experiments" / "results"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is simulated.

    Attributes:
        seeds, count: of each row.
        error: share of examples that the baseline gets wrong, percent.
        seed: standard deviation of the seeds, in units of sqrt(p (1 - p) / n).
        own: standard deviation of what differs between the rows in an example.
        gap: true difference of the rows, percent.
        kind: "share", "mean" (skewed values) or "weighted" (means over tokens).
    """

    seeds: int = 3
    count: int = 1000
    error: float = 10.0
    seed: float = 0.0
    own: float = 0.0
    gap: float = 0.0
    kind: str = "share"

    @property
    def truth(self) -> float:
        """The difference that an interval should cover."""
        return self.gap if self.kind == "share" else 0.0


def draw(
    case: Case, rng: np.random.Generator
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Totals and weights [S, n] of row and baseline in one replication."""
    p = case.error / 100
    slope = math.exp(-(special.ndtri(p) ** 2) / 2) / math.sqrt(2 * math.pi)
    seed = case.seed * math.sqrt(p * (1 - p) / case.count) / slope
    rest = math.sqrt(1 + HARD**2 + case.own**2)
    whole = rest * math.sqrt(1 + seed**2)
    hard = HARD * rng.standard_normal(case.count)
    length = 1 + rng.poisson(20 * np.exp(hard / 4))  # longer sentences are harder
    sides = []
    for gap in (case.gap / 100, 0.0):
        latent = special.ndtri(p + gap) * whole + hard
        latent = latent + case.own * rng.standard_normal(case.count)
        latent = latent + rest * seed * rng.standard_normal((case.seeds, 1))
        noise = rng.standard_normal((case.seeds, case.count))
        weights = np.ones((case.seeds, case.count))
        if case.kind == "share":
            totals = 100.0 * (latent + noise > 0)
        elif case.kind == "mean":
            totals = np.exp((latent + noise) / 2)
        else:
            weights *= length
            totals = 100.0 * rng.binomial(length, special.ndtr(latent + noise / 2))
        sides.append((totals, weights))
    return sides[0], sides[1]


def halves(case: Case, rng: np.random.Generator, methods=METHODS) -> dict[str, tuple]:
    """Of one replication: the ends of each method's interval."""
    sides = draw(case, rng)
    row, base = (outcomes.of(*side) for side in sides)
    count = case.count if case.kind == "share" else None
    found = {}
    if "ours" in methods:
        samples = (Sample(tuple(m.values), case.count, m) for m in (row, base))
        one = comparison.difference(*samples, share=count is not None)
        found["ours"] = one.mean - one.half(), one.mean + one.half()
    if "t" in methods:
        values, others = (dict(enumerate(side.values)) for side in (row, base))
        one = statistics.paired(values, others, examples=count)
        found["t"] = one.low, one.high
    if "bootstrap" in methods:
        found["bootstrap"] = bootstrap(sides, rng)
    return found


def bootstrap(sides, rng: np.random.Generator) -> tuple[float, float]:
    """Percentiles of the difference with seeds and examples drawn anew."""
    count = sides[0][0].shape[1]
    examples = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    values = []
    for totals, weights in sides:
        seeds = len(totals)
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
        each = (examples @ totals.T) / (examples @ weights.T)
        values.append((drawn * each).sum(1))
    low, high = np.quantile(values[0] - values[1], [0.025, 0.975])
    return float(low), float(high)


def coverage(
    case: Case, replications: int, methods=METHODS, random: int = 0
) -> dict[str, float]:
    """The share of replications in which each interval covers the truth, percent."""
    hits = dict.fromkeys(methods, 0)
    for number in range(replications):
        rng = np.random.default_rng([random, number])
        for name, (low, high) in halves(case, rng, methods).items():
            # a share's difference of zero is hit exactly, up to rounding
            hits[name] += low - 1e-9 <= case.truth <= high + 1e-9
    return {name: 100 * hit / replications for name, hit in hits.items()}


def table() -> Iterator[tuple[str, Case]]:
    """The rows of the printed table, for three seeds."""
    sizes = [(2.0, 250), (2.0, 1000), (10.0, 1000), (30.0, 2000)]
    for (error, count), own in itertools.product(sizes, (0.0, 0.5, 1.5)):
        for seed in (0.0, 1.0, 2.0):
            case = Case(error=error, count=count, own=own, seed=seed)
            yield f"{error:g} % of {count:,} wrong", case
    for error, count, gap in ((2.0, 1000, 2.0), (10.0, 1000, 3.0), (30.0, 250, -8.0)):
        for seed in (0.0, 1.0):
            case = Case(error=error, count=count, own=0.5, seed=seed, gap=gap)
            yield f"{error:g} % of {count:,}, truly {gap:+g}", case
    for kind, own, seed in itertools.product(
        ("mean", "weighted"), (0.0, 1.5), (0.0, 1.0)
    ):
        label = {"mean": "skewed values", "weighted": "tokens of sentences"}[kind]
        yield f"{label}, 500", Case(kind=kind, count=500, own=own, seed=seed)


def line(label: str, case: Case, found: Mapping[int, Mapping[str, float]]) -> str:
    """A row of the table in Markdown."""
    cells = [f"{found[s][name]:.1f}" for name in METHODS for s in SEEDS]
    return f"| {label} | {case.own:g} | {case.seed:g} | {' | '.join(cells)} |"


def _each(case: Case) -> dict[str, float]:
    most = FLAGS.replications
    fast = coverage(case, most, ("ours", "t"))
    return fast | coverage(case, most // 4, ("bootstrap",))


def shared_by_seeds(values: np.ndarray) -> tuple[float, float]:
    """Mean squares of the seeds and of the rest in values [rows, S]."""
    rows, seeds = values.shape
    rest = values - values.mean(1, keepdims=True)
    common = rest.mean(0)
    square = rows * (common**2).sum() / (seeds - 1)
    return square, ((rest - common) ** 2).sum() / ((rows - 1) * (seeds - 1))


def print_records() -> None:
    """Prints F of each file of results, and of all of them together."""
    print("| results | rows | seeds | F |\n|---|---|---|---|")
    squares, weights = [], []
    for path in sorted(RESULTS.glob("*.json")):
        rows = tables.rows(saved.read(path))
        metric = rows[0].metric
        by_seed = [tables.values(row.points, metric) for row in rows]
        seeds = [s for s in by_seed[0] if all(s in one for one in by_seed)]
        values = np.array([[one[seed] for seed in seeds] for one in by_seed])
        if min(values.shape) > 1:
            squares.append(shared_by_seeds(values))
            weights.append(len(seeds) - 1)
            shown = f"{squares[-1][0] / squares[-1][1]:.2f}"
            print(f"| {path.stem} | {len(rows)} | {len(seeds)} | {shown} |")
    ratios = [seed / rest for seed, rest in squares]
    print(f"| mean | | | {np.average(ratios, weights=weights):.2f} |")


def main(argv) -> None:
    """Prints the table and the range of each column."""
    del argv
    if FLAGS.records:
        print_records()
        return
    heads = [f"{name}, {s} seeds" for name in METHODS for s in SEEDS]
    print(f"| test set | own | seed | {' | '.join(heads)} |")
    print("|---" * (3 + len(heads)) + "|")
    all_found = []
    for label, case in table():
        found = {s: _each(dataclasses.replace(case, seeds=s)) for s in SEEDS}
        all_found.append(found)
        print(line(label, case, found), flush=True)
    spans = []
    for name, seeds in itertools.product(METHODS, SEEDS):
        values = [found[seeds][name] for found in all_found]
        spans.append(f"{min(values):.1f} to {max(values):.1f}")
    print(f"| lowest to highest | | | {' | '.join(spans)} |")


if __name__ == "__main__":
    app.run(main)
