"""Asks a training to stop in good order: Ctrl-C, or the notice of a scheduler."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import jax
from jax.experimental import multihost_utils

from attn import settings

# What schedulers send before they kill, see docs/launch.md.
SIGNALS = ("TERM", "INT", "USR1", "USR2")


class Stopped(Exception):
    """The training was asked to stop; it has saved its state."""


class Interruption:
    """Whether somebody wants the training to stop."""

    def __init__(self):
        self._asked = threading.Event()
        self._questions = 0  # as many on every machine

    def ask(self) -> None:
        """Asks; the training saves and stops after the step at hand."""
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Whether somebody asks within so many seconds, or has asked.

        The same answer on every machine.
        """
        if jax.process_count() == 1:
            return self._asked.wait(seconds)
        time.sleep(seconds)
        return self._agreed()

    def at(self, step: int) -> bool:
        """Whether to stop after `step`: the same answer on every machine."""
        del step  # which of a point after another may be the same
        return self._asked.is_set() if jax.process_count() == 1 else self._agreed()

    def _agreed(self) -> bool:
        self._questions += 1
        if multihost_utils.reached_preemption_sync_point(self._questions):
            self._asked.set()
        return self._asked.is_set()


@contextlib.contextmanager
def watch(signals: Sequence[str] = SIGNALS) -> Iterator[Interruption]:
    """Turns the first of each of these signals into a request; the next is as before.

    A signal that came before, while it was held back, is heard now. On several machines
    JAX's own service takes SIGTERM, on any of them, and tells all; the other signals
    become a SIGTERM there.

    Args:
        signals: their names, without "SIG".

    Raises:
        Invalid: there is no such signal, or it cannot be heard.
    """
    interruption = Interruption()
    several = jax.process_count() > 1
    before = {}

    def answer(number: int, frame: object) -> None:
        del frame
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            interruption.ask()
        signal.signal(number, before[number])

    try:
        for number in map(signal_of, signals):
            if not (several and number == signal.SIGTERM):
                before[number] = signal.signal(number, answer)
        # those that were held back until somebody listens
        signal.pthread_sigmask(signal.SIG_UNBLOCK, before)
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def signal_of(name: str) -> signal.Signals:
    """The signal of a name without "SIG".

    Raises:
        Invalid: there is none, or it cannot be heard.
    """
    found = getattr(signal, f"SIG{name}", None)
    if not isinstance(found, signal.Signals) or found in (
        signal.SIGKILL,
        signal.SIGSTOP,
    ):
        raise settings.Invalid(
            f"--stop_on must be names of signals, such as {','.join(SIGNALS)}; got"
            f" {name!r}"
        )
    return found
