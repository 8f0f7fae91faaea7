"""How the cost of every token attention grows with the number of tokens.

    python -m benchmarks.token_attention        # prints, writes docs/cost.md and .png
    python -m benchmarks.token_attention --rounds=5 --only=linear,multi_head

Each attention of the table that takes tokens stands on square grids of 14 to 112, one
example of 64 channels in float32. Time: the median of calls, taken in turn, so that a
noisy machine meets all of them. Memory: XLA's own sum of arguments, results and
temporaries. Growth: the exponent p of T^p, fitted to the three largest sizes that ran.
"""

import ctypes
import dataclasses
import functools
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
from absl import app, flags

import attn
from attn.models import cost
from benchmarks.watch import Watch

ROOT = pathlib.Path(__file__).parents[1]
GRIDS = (14, 28, 56, 112)
CHANNELS = 64
EXACT = "multi_head"
# A call shorter than this is repeated and divided.
SHORTEST = 0.01
# Above this exponent a growth is not linear.
LINEAR = 1.15
# Sizes through which a growth is fitted. Between two of them alone it is also that of
# the caches: tensors of T = 3136 fit into those of a core, those of 12544 do not.
FITTED = 3
PASSES = ("forward", "both")

flags.DEFINE_integer("rounds", 7, "Calls of each size; the median counts.")
flags.DEFINE_list("only", None, "Names of attentions, instead of all.")
flags.DEFINE_float("gigabytes", 2.0, "What needs more memory is not run.")
flags.DEFINE_float("seconds", 8.0, "What is expected to take longer is not run.")
FLAGS = flags.FLAGS


@dataclasses.dataclass
class Subject:
    """One attention at one size.

    Attributes:
        calls: for each pass, the compiled program with its arguments.
        times: for each pass, seconds of each call.
        peak: for each pass, bytes.
    """

    calls: dict[str, Callable[[], object]]
    peak: dict[str, int]
    repeats: dict[str, int] = dataclasses.field(default_factory=dict)
    times: dict[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    def seconds(self, which: str) -> float:
        """The time of one more call of a pass."""
        count = self.repeats.get(which, 1)
        began = time.perf_counter()
        for _ in range(count):
            jax.block_until_ready(self.calls[which]())
        return (time.perf_counter() - began) / count

    def warm(self) -> None:
        """Runs each pass until it is short, and decides how often to repeat it."""
        for which in PASSES:
            seconds = min(self.seconds(which), self.seconds(which))
            self.repeats[which] = max(1, math.ceil(SHORTEST / seconds))

    def median(self, which: str) -> float:
        return statistics.median(self.times[which])


def keep_memory() -> None:
    """Asks glibc to keep what is freed, as it does with buffers below 32 MB anyway.

    Larger ones it would hand back after each call, and every call would first fault in
    each of its pages: a step of the allocator in a curve that is about attention.
    """
    mmap_max, trim_threshold, arena_max = -4, -1, -8
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(arena_max, 1)
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def build(name: str, side: int) -> tuple[dict[str, Callable], tuple]:
    """The functions of each pass, and their arguments."""
    module = attn.create(name)
    x = jax.random.normal(jax.random.key(0), (1, side * side, CHANNELS))
    on_grid = {"grid": (side, side)} if "grid" in module.card.supports else {}
    init = functools.partial(module.init, train=False, **on_grid)
    variables = jax.jit(init)(jax.random.key(1), x)

    def forward(variables, x):
        return module.apply(variables, x, train=False, **on_grid)

    def loss(variables, x):
        return jnp.sum(jnp.sin(forward(variables, x)))

    both = jax.grad(loss, argnums=(0, 1))
    return {"forward": forward, "both": both}, (variables, x)


def prepare(name: str, side: int, limit: float) -> Subject | str:
    """Compiles an attention at a size, or tells why it is not to be run."""
    functions, arguments = build(name, side)
    calls, peak = {}, {}
    for which, function in functions.items():
        compiled = jax.jit(function).lower(*arguments).compile()
        peak[which] = cost.peak_bytes(compiled) or 0
        if peak[which] > limit:
            return f"needs {peak[which] / 1e9:.1f} GB"
        calls[which] = functools.partial(compiled, *arguments)
    subject = Subject(calls, peak)
    subject.warm()
    return subject


def claimed(name: str) -> int:
    """The exponent that the card's multiply-adds have in the number of tokens."""
    return 2 if "T S" in attn.card(name).complexity else 1


def measure(names: list[str], watch: Watch) -> dict[str, dict[int, Subject | str]]:
    """Each attention at each size, or why it did not run."""
    found: dict[str, dict[int, Subject | str]] = {name: {} for name in names}
    for before, side in zip((None, *GRIDS), GRIDS, strict=False):
        for name in names:
            found[name][side] = admit(name, side, found[name].get(before))
        running = [found[name][side] for name in names]
        running = [subject for subject in running if isinstance(subject, Subject)]
        turns, mark = watch.rounds(
            FLAGS.rounds,
            lambda every=running: [[s.seconds(p) for p in PASSES] for s in every],
        )
        for subject, *taken in zip(running, *turns, strict=True):
            subject.times = dict(zip(PASSES, zip(*taken, strict=True), strict=True))
            subject.calls.clear()
        print(f"{side} x {side}: {len(running)} of {len(names)}{mark}", flush=True)
    return found


def admit(name: str, side: int, before: Subject | str | None) -> Subject | str:
    """Prepares a size unless the one before tells that it is out of reach."""
    if isinstance(before, str):
        return before if before.startswith("more") else "more than at the size before"
    if before is not None:
        expected = before.median("both") * 4 ** claimed(name)
        if expected > FLAGS.seconds:
            return f"some {expected:.0f} s"
    return prepare(name, side, FLAGS.gigabytes * 1e9)


def exponent(values: dict[int, float]) -> float | None:
    """p of value ~ T^p, by least squares over the FITTED largest of {side: value}."""
    sides = sorted(values)[-FITTED:]
    if len(sides) < 2:
        return None
    return statistics.linear_regression(
        [2 * math.log(side) for side in sides],
        [math.log(values[side]) for side in sides],
    ).slope


def overtakes(own: dict[int, float], exact: dict[int, float]) -> str:
    """The T from which `own` is smaller than `exact`, between sizes on a log scale."""
    sides = sorted(own.keys() & exact.keys())
    ahead = [math.log(own[side] / exact[side]) for side in sides]
    if not ahead or ahead[-1] >= 0:
        return f"not up to {sides[-1] ** 2}" if sides else ""
    last = max((i for i, value in enumerate(ahead) if value >= 0), default=None)
    if last is None:
        return f"< {sides[0] ** 2}"
    share = ahead[last] / (ahead[last] - ahead[last + 1])
    place = 2 * (
        math.log(sides[last]) * (1 - share) + math.log(sides[last + 1]) * share
    )
    return f"{float(f'{math.exp(place):.2g}'):.0f}"


def values(
    sizes: dict[int, Subject | str], read: Callable[[Subject], float]
) -> dict[int, float]:
    """{side: value} of the sizes that ran."""
    return {
        side: read(subject)
        for side, subject in sizes.items()
        if isinstance(subject, Subject)
    }


def table(found: dict[str, dict[int, Subject | str]]) -> Iterable[str]:
    """The rows of the table, as markdown."""
    sizes = " | ".join(f"T = {side**2}" for side in GRIDS)
    yield (
        f"| attention | claim | {sizes} | exponent (forward, both, memory)"
        " | faster than exact from T |"
    )
    yield "|---|---|" + "---|" * len(GRIDS) + "---|---|"
    exact = values(found.get(EXACT, {}), lambda s: s.median("both"))
    for name, sizes in found.items():
        cells = [cell(sizes[side]) for side in GRIDS]
        growths = [
            exponent(values(sizes, read))
            for read in (
                lambda s: s.median("forward"),
                lambda s: s.median("both"),
                lambda s: s.peak["both"],
            )
        ]
        both = values(sizes, lambda s: s.median("both"))
        from_ = "" if name == EXACT else overtakes(both, exact)
        shown = ", ".join("?" if p is None else f"{p:.2f}" for p in growths)
        claim = "T" if claimed(name) == 1 else "T^2"
        yield f"| `{name}` | {claim} | {' | '.join(cells)} | {shown} | {from_} |"


def cell(subject: Subject | str) -> str:
    if isinstance(subject, str):
        return subject
    forward, both = (1e3 * subject.median(which) for which in PASSES)
    return f"{forward:.3g} / {both:.3g} ms, {subject.peak['both'] / 1e6:.3g} MB"


def broken(found: dict[str, dict[int, Subject | str]]) -> list[str]:
    """The attentions that claim linear growth and do not show it."""
    wrong = []
    for name, sizes in found.items():
        for which in PASSES:
            growth = exponent(values(sizes, lambda s, w=which: s.median(w)))
            if claimed(name) == 1 and growth is not None and growth > LINEAR:
                wrong.append(f"{name}: {which} grows as T^{growth:.2f}")
    return wrong


def plot(found: dict[str, dict[int, Subject | str]], path: pathlib.Path) -> None:
    """Time and memory of both passes over T, on logarithmic scales."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    reads = (lambda s: 1e3 * s.median("both"), lambda s: s.peak["both"] / 1e6)
    labels = ("forward and backward, ms", "peak memory, MB")
    for axis, read, label in zip(axes, reads, labels, strict=True):
        for index, (name, sizes) in enumerate(found.items()):
            curve = values(sizes, read)
            dashed = claimed(name) == 2
            axis.plot(
                [side**2 for side in curve],
                list(curve.values()),
                color=pyplot.get_cmap("tab20")(index % 20),
                linestyle="--" if dashed else "-",
                marker="o",
                markersize=3,
                label=name,
            )
        axis.set(xscale="log", yscale="log", xlabel="tokens T", ylabel=label)
        axis.set_xticks([side**2 for side in GRIDS], [side**2 for side in GRIDS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.savefig(path, dpi=110)


def page(found: dict[str, dict[int, Subject | str]]) -> str:
    """docs/cost.md."""
    wrong = broken(found)
    lines = [
        "# What token attentions cost",
        "",
        f"Written by `python -m benchmarks.token_attention --rounds={FLAGS.rounds}`."
        " Each cell: time of the forward pass / of forward and backward, and peak"
        " memory of the latter, for"
        f" one example of {CHANNELS} channels in float32 with default settings, on"
        f" {os.cpu_count()} CPU cores with jax {jax.__version__}, median of"
        f" {FLAGS.rounds} calls taken in turn, with an allocator that keeps its pages."
        f" What would need more than {FLAGS.gigabytes:g} GB or about"
        f" {FLAGS.seconds:g} s was not run, and the cell says so. Exponents p of T^p"
        f" are fitted to the {FITTED} largest sizes that ran, on logarithmic scales."
        " The last column compares times of both passes. `cross_attention` reads from"
        " as many tokens as it has. Dashed: those whose cards claim T^2.",
        "",
        *table(found),
        "",
        "![Time and memory over the number of tokens](cost.png)",
        "",
        "Every attention that claims linear growth shows an exponent of at most"
        f" {LINEAR}."
        if not wrong
        else f"Above an exponent of {LINEAR}, though linear: {'; '.join(wrong)}.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    keep_memory()
    names = FLAGS.only or attn.names(contract="token")
    with Watch() as watch:
        found = measure(list(names), watch)
    text = page(found)
    print(text)
    if FLAGS.only is None:
        (ROOT / "docs" / "cost.md").write_text(text)
        plot(found, ROOT / "docs" / "cost.png")


if __name__ == "__main__":
    app.run(main)
