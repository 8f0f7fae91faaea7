"""Live progress on the terminal, plans and catalogues.

On a terminal progress is one line that is rewritten; elsewhere (a file, a pipe, a
cluster's log) it is a plain line now and then and one for each finished point. This
file and `attn.report.formats` alone know rich.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TextIO

import rich.console
import rich.live
import rich.markup
import rich.progress_bar
import rich.table
import rich.text

from attn.report.analyse import numbers
from attn.report.formats.terminal import empty, plain

QUIET_SECONDS = 10.0  # between plain lines
BAR_WIDTH = 20


def plan(title: str, rows: Sequence[Mapping[str, Any]], total: float) -> None:
    """Prints what a run would do.

    Args:
        title: of the experiment.
        rows: a mapping a point, with "point", "parameters", "macs", "ms_per_step"
            and "seconds"; and one for all trials of a row, with "trials" as well.
        total: seconds for all of them, compilation included.
    """
    console = rich.console.Console()
    factor, prefix = numbers.unit(row["macs"] for row in rows)
    made = empty(title, console)
    made.add_column("point", overflow="fold")
    for head in ("parameters", f"MACs, {prefix}", "ms/step", "time"):
        made.add_column(head.removesuffix(", "), justify="right", no_wrap=True)
    for row in rows:
        made.add_row(
            rich.text.Text(str(row["point"])),
            f"{row['parameters']:,}",
            f"{row['macs'] / factor:.2f}",
            f"{row['ms_per_step']:.1f}",
            numbers.duration(row["seconds"]),
        )
    console.print(made)
    tried = sum(row.get("trials", 0) for row in rows)
    count = sum("trials" not in row for row in rows)
    what = f"{count} point{'s' * (count != 1)}"
    what = f"{tried} trials and {what}" if tried else what
    console.print(f"{what}, about {numbers.duration(total)} in all")


def catalogue(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints the table of attention modules, of rows by `attn.report.catalogue`."""
    console = rich.console.Console()
    made = empty(f"{len(rows)} attention modules", console)
    for head in ("name", "family", "input", "formula", "paper"):
        made.add_column(head, overflow="fold", no_wrap=head in ("name", "input"))
    for row in rows:
        values = [row[column.header] for column in made.columns]
        made.add_row(*(rich.text.Text(plain(value, console)) for value in values))
    console.print(made)


def status(text: str) -> contextlib.AbstractContextManager[Any]:
    """Status line on a terminal for as long as the context lasts."""
    console = rich.console.Console()
    if not console.is_terminal:
        return contextlib.nullcontext()
    return console.status(rich.markup.escape(text))


class Progress:
    """Progress of a sweep while it runs; a context manager.

    Where the console is no terminal it prints a line at most every QUIET_SECONDS and
    one for each finished point. Leaving the context, also by Ctrl-C or an error,
    gives the terminal back as it was.
    """

    def __init__(
        self,
        console: rich.console.Console | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Writes to `console`, or makes one for `stream`, or for stdout."""
        self._console = console or rich.console.Console(file=stream or sys.stdout)
        self._clock = clock
        self._live: rich.live.Live | None = None
        self._k, self._n, self._name = 0, 0, ""
        self._others: list[int] = []  # that train with it, and are not done yet
        self._together = 1
        self._step: tuple[int, int] | None = None
        self._facts: list[str] = []
        self._began: float | None = None
        self._left: tuple[float, float] | None = None  # seconds, at what time
        self._durations: list[float] = []
        self._spoke = -math.inf

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = rich.live.Live(
                get_renderable=self._line,
                console=self._console,
                refresh_per_second=2,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def point(self, k: int, n: int, name: str, others: Sequence[int] = ()) -> None:
        """Point k of n, counted from 1, begins, and with it those of `others`."""
        self._k, self._n, self._name = k, n, name
        self._others, self._together = list(others), 1 + len(others)
        self._step, self._facts, self._left = None, [], None
        self._began = self._clock()

    def update(
        self,
        step: int,
        steps: int,
        loss: float,
        examples_per_s: float,
        seconds_left: float | None,
    ) -> None:
        """The point is at step `step` of `steps`; what is not known may be None."""
        self._step = (step, steps)
        self._facts = [f"loss {loss:.3f}"] if loss is not None else []
        if _known(examples_per_s):
            self._facts.append(f"{examples_per_s:,.0f} examples/s")
        now = self._clock()
        self._left = (seconds_left, now) if _known(seconds_left) else None
        if self._live is None and now - self._spoke >= QUIET_SECONDS:
            self._spoke = now
            times = self._times(self._began, self._left)
            self._say(", ".join([self._where(self._step), *self._facts, *times]))

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self._say(text)

    def point_done(self, summary: str) -> None:
        """The point is finished; prints `summary` on a line that stays.

        Of points that train together, the next in their order; each takes its share
        of the time.
        """
        took, k = "", self._k
        if self._began is not None:
            share = (self._clock() - self._began) / self._together
            self._durations.append(share)
            took = f" ({numbers.duration(share)})"
        if self._others:
            self._k = self._others.pop(0)
        else:
            # The live line is drawn again below what is said: empty it first.
            self._step, self._facts, self._left, self._began = None, [], None, None
        self._say(f"[{k}/{self._n}] {summary}{took}")

    def _say(self, text: str) -> None:
        self._console.print(
            plain(text, self._console), markup=False, highlight=False, soft_wrap=True
        )

    def _where(self, step: tuple[int, int] | None) -> str:
        numbers = "-".join(map(str, [self._k, *self._others[-1:]]))
        where = f"[{numbers}/{self._n}] {self._name}"
        return where if step is None else f"{where}, step {step[0]} of {step[1]}"

    def _times(
        self, began: float | None, left: tuple[float, float] | None
    ) -> list[str]:
        """Time left, for the point and, where more follow, for the sweep."""
        if left is None or began is None:
            return []
        now = self._clock()
        seconds = max(0.0, left[0] - (now - left[1]))
        found = [f"{numbers.duration(seconds)} left"]
        last = self._others[-1] if self._others else self._k
        if self._n > last:
            share = (now - began + seconds) / self._together
            durations = [*self._durations, *[share] * self._together]
            mean = sum(durations) / len(durations)
            rest = seconds + mean * (self._n - last)
            found.append(f"{numbers.duration(rest)} for all")
        return found

    def _line(self) -> rich.console.RenderableType:
        """The live line: what fits, never more than one line."""
        # Called from the thread that refreshes: read each field once.
        step, began, left, facts = self._step, self._began, self._left, self._facts
        if began is None:
            return rich.text.Text("")
        facts = [*facts, *self._times(began, left)]
        if step is None:
            facts = [f"starting, {numbers.duration(self._clock() - began)}"]
        text = plain("  ".join([self._where(step), *facts]), self._console)
        shown = rich.text.Text(text, no_wrap=True, overflow="ellipsis", end="")
        if step is None or self._console.width < len(text) + BAR_WIDTH + 3:
            return shown
        bar = rich.progress_bar.ProgressBar(
            total=max(step[1], 1), completed=step[0], width=BAR_WIDTH
        )
        grid = rich.table.Table.grid(padding=(0, 1))
        grid.add_row(bar, shown)
        return grid


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
