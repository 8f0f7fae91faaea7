"""Rounds of a benchmark on a machine that others may use too, and the machine's peak.

What others use is the processor time of all processes (/proc/stat, time stolen by
other virtual machines included) less that of this process, its living descendants and
those that have ended. Linux counts in ticks of 10 ms, so that rounds are judged by
stretches of SPAN seconds. Elsewhere it is unknown, and the line says so.
"""

import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import numpy as np

LIMIT = 0.10  # share of the machine that others may use
DRIFT = 0.1  # of the peak, from which shares of it are not to be trusted
REPEATS = 3  # disturbed stretches that are measured again, for each measurement
SPAN = 0.5  # seconds
T = TypeVar("T")


class Moment(NamedTuple):
    """Seconds: of the clock, of our processes, and of all (None: unknown)."""

    wall: float
    own: float
    all: float | None

    @classmethod
    def now(cls) -> "Moment":
        """Reads /proc, where there is one."""
        wall, proc = time.perf_counter(), pathlib.Path("/proc")
        try:
            everything = all_ticks((proc / "stat").read_text())
        except (OSError, ValueError):
            return cls(wall, sum(os.times()[:4]), None)
        second = os.sysconf("SC_CLK_TCK")
        own = own_ticks(_stats(proc), os.getpid())
        return cls(wall, own / second, everything / second)


def _stats(proc: pathlib.Path) -> Iterable[str]:
    for path in proc.glob("[0-9]*/stat"):
        try:
            yield path.read_text()
        except OSError:  # it has ended
            continue


def all_ticks(text: str) -> int:
    """Ticks of /proc/stat that are neither idle nor waiting: guests are in `user`."""
    name, *ticks = text.splitlines()[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
    if name != "cpu":
        raise ValueError(f"unknown form of /proc/stat: {name}")
    return user + nice + system + irq + softirq + steal


def own_ticks(stats: Iterable[str], root: int) -> int:
    """Ticks of a process and its descendants, from texts of /proc/PID/stat.

    Each has those of its children that have ended, so that none is lost by an end.
    """
    parent, ticks = {}, {}
    for text in stats:
        pid = int(text.split(maxsplit=1)[0])
        fields = text.rpartition(")")[2].split()  # a name may hold spaces and brackets
        parent[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))
    ours, before = {root}, 0
    while len(ours) > before:
        before = len(ours)
        ours |= {pid for pid, above in parent.items() if above in ours}
    return sum(ticks.get(pid, 0) for pid in ours)


class Load(NamedTuple):
    """Processors that we used, and the share of the machine that others did."""

    own: float
    others: float | None

    @classmethod
    def between(cls, before: Moment, after: Moment, cores: int) -> "Load":
        wall, own = after.wall - before.wall, after.own - before.own
        if before.all is None or after.all is None:
            return cls(own / wall, None)
        return cls(own / wall, max(0.0, after.all - before.all - own) / (wall * cores))

    @property
    def disturbed(self) -> bool:
        """Whether others used more than they may."""
        return self.others is not None and self.others > LIMIT


class Watch:
    """Looks at the load while a benchmark runs; as a context, before it too.

    As a context it prints the load before and the peak, and in the end one line on the
    load of the rounds and one on the peak, which is measured again.

    Attributes:
        peak: GFLOP/s of the machine's matrix product.
    """

    def __init__(
        self,
        dtype: str | None = "float32",
        look: Callable[[], Moment] = Moment.now,
        cores: int | None = None,
    ):
        """`dtype` is that of the peak, by JAX on its device; None: float32 by NumPy,
        for a benchmark whose device belongs to processes that it starts."""
        self._dtype, self._look = dtype, look
        self._cores = cores or os.cpu_count() or 1
        self._loads: list[Load] = []
        self._disturbed: list[bool] = []
        self._repeated = 0
        self.peak = float("nan")

    def __enter__(self) -> "Watch":
        began = self._look()
        time.sleep(1)
        load = Load.between(began, self._look(), self._cores)
        self.peak = matrix_peak(self._dtype)
        print(
            f"before: others use {_share(load.others)} of the machine, load average"
            f" {os.getloadavg()[0]:.1f}; matrix peak {self.peak:,.0f} GFLOP/s"
            f" ({self._dtype or 'float32, NumPy'})",
            flush=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        if self._loads:
            print(self.line(), flush=True)
            print(self.last(matrix_peak(self._dtype)), flush=True)

    def rounds(
        self, count: int, run: Callable[[], T], repeats: int = REPEATS
    ) -> tuple[list[T], str]:
        """What `run()` returned in `count` rounds, and a mark: "" or " (disturbed)".

        Short rounds go on until they fill SPAN seconds. A stretch of rounds in which
        others used more than LIMIT is measured again, `repeats` times in all.
        """
        kept, disturbed = [], False
        while len(kept) < count:
            stretch, began = [], self._look()
            now = began
            while not stretch or now.wall - began.wall < SPAN:
                stretch.append(run())
                now = self._look()
            load = Load.between(began, now, self._cores)
            if load.disturbed and repeats:
                repeats, self._repeated = repeats - 1, self._repeated + 1
                print(f"  again: others used {_share(load.others)}", file=sys.stderr)
                continue
            disturbed |= load.disturbed
            self._loads.append(load)
            kept += stretch
        self._disturbed.append(disturbed)
        return kept, " (disturbed)" if disturbed else ""

    def share(self, flops: float, seconds: float) -> str:
        """Percent of the peak."""
        return f"{100 * flops / seconds / 1e9 / self.peak:.0f} %"

    def line(self) -> str:
        """What was seen in the rounds that count."""
        others = [load.others for load in self._loads if load.others is not None]
        middle = _share(statistics.median(others) if others else None)
        most = f" (at most {_share(max(others))})" if others else ""
        own = statistics.median(load.own for load in self._loads)
        return (
            f"during: others used {middle}{most} of the machine, we {own:.2f} of"
            f" {self._cores} processors; measured again: {self._repeated}; disturbed:"
            f" {sum(self._disturbed)} of {len(self._disturbed)} measurements"
        )

    def last(self, peak: float) -> str:
        """What the peak in the end says of the one before."""
        line = f"after: matrix peak {peak:,.0f} GFLOP/s"
        if abs(peak - self.peak) <= DRIFT * self.peak:
            return line
        return (
            f"{line}, {peak / self.peak:.2f} times that before: shares of it are vague"
        )


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.0f} %"


def matrix_peak(dtype: str | None) -> float:
    """GFLOP/s of products of square matrices, the best of some sizes and runs."""
    sizes, product = (512, 1024, 2048), np.matmul
    if dtype is not None:
        import jax

        if jax.default_backend() != "cpu":
            sizes = (4096, 8192)
        product = jax.jit(jax.numpy.matmul)
    best = 0.0
    for size in sizes:
        a = np.ones((size, size), np.float32)
        if dtype is not None:
            a = jax.numpy.asarray(a, dtype)
        for _ in range(7):  # the first one compiles
            began = time.perf_counter()
            y = product(a, a)
            if dtype is not None:
                y.block_until_ready()
            best = max(best, 2 * size**3 / (time.perf_counter() - began) / 1e9)
    return best
