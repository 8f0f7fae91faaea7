"""How sweeps stand, on the terminal: once, or anew each time while others train."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Self

import rich.console
import rich.live
import rich.table
import rich.text

from attn.report.analyse import numbers
from attn.report.formats.terminal import plain
from attn.report.live import QUIET_SECONDS
from attn.workdir.standing import Standing, Training

SHOWN = 20  # points of a kind that are named


def show(stands: Sequence[Standing]) -> None:
    """Prints how some sweeps stand."""
    console = rich.console.Console()
    console.print(_blocks(stands, console))


class Watch:
    """Sweeps while others train them; a context manager.

    On a terminal all is shown anew each time; elsewhere a line says it now and then,
    where something has changed.
    """

    def __init__(
        self,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Writes to `console`, or to stdout."""
        self._console = console or rich.console.Console()
        self._clock = clock
        self._live: rich.live.Live | None = None
        self._said, self._spoke = "", -math.inf

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = rich.live.Live(console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, stands: Sequence[Standing]) -> None:
        """Shows how they stand now."""
        if self._live is not None:
            self._live.update(_blocks(stands, self._console), refresh=True)
            return
        text = "; trials: ".join(counts(s) for s in reversed(stands))
        if text != self._said and self._clock() - self._spoke >= QUIET_SECONDS:
            self._said, self._spoke = text, self._clock()
            self.note(text)

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(
            plain(text, self._console), markup=False, highlight=False, soft_wrap=True
        )


def counts(standing: Standing) -> str:
    """The numbers of points that are done, in training and so on, in a sentence."""
    parts = [f"{len(standing.done)} of {standing.points} points done"]
    for name in ("failed", "training", "begun", "waiting"):
        count = len(getattr(standing, name))
        if count:
            parts.append(f"{count} {name}")
    text = ", ".join(parts)
    if standing.seconds_left:
        text += f"; about {numbers.duration(standing.seconds_left)} left"
    return text


def _blocks(
    stands: Sequence[Standing], console: rich.console.Console
) -> rich.console.RenderableType:
    return rich.console.Group(
        *(part for standing in stands for part in _block(standing, console))
    )


def _block(
    standing: Standing, console: rich.console.Console
) -> list[rich.console.RenderableType]:
    text = lambda words: rich.text.Text(plain(words, console))
    made = rich.table.Table.grid(padding=(0, 2))
    rows = [_training(training) for training in standing.training]
    rows += [("failed", name, why) for name, why in standing.failed.items()][:SHOWN]
    rows += [("begun", name, "nobody trains it") for name in standing.begun][:SHOWN]
    for row in rows:
        made.add_row(*map(text, row))
    title = rich.text.Text(plain(standing.title, console), style="bold")
    return [title, text(counts(standing)), *([made] if rows else [])]


def _training(training: Training) -> tuple[str, str, str]:
    facts = [training.worker]
    if training.step is not None:
        facts.append(f"step {training.step[0]} of {training.step[1]}")
    if training.silent is not None:
        facts.append(f"no sign of life for {numbers.duration(training.silent)}")
    elif training.seconds_left is not None and math.isfinite(training.seconds_left):
        facts.append(f"{numbers.duration(training.seconds_left)} left")
    return "training", training.name, ", ".join(facts)
