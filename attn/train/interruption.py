"""Asks a training to stop in good order: SIGTERM, Ctrl-C, or a scheduler's notice."""

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Interruption:
    """Whether somebody wants the training to stop."""

    def __init__(self):
        self._asked = threading.Event()

    def ask(self) -> None:
        """Asks; the training saves and stops after the step at hand."""
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Whether somebody asks within so many seconds, or has asked."""
        return self._asked.wait(seconds)

    def at(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer on every machine."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked.is_set()


@contextlib.contextmanager
def watch() -> Iterator[Interruption]:
    """Turns SIGTERM and the first Ctrl-C into a request; the second Ctrl-C kills.

    On several machines JAX's own service takes SIGTERM, on any of them, and tells all.
    """
    interruption = Interruption()
    before = {}

    def answer(number: int, frame: object) -> None:
        del frame
        interruption.ask()
        signal.signal(number, before[number])

    if jax.process_count() == 1:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, answer)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
