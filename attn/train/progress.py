"""Listeners to the progress of trainings and sweeps."""

import contextlib
from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    """How a training goes."""

    def update(
        self,
        *,
        step: int,
        steps: int,
        loss: float,
        examples_per_s: float,
        seconds_left: float,
    ) -> None:
        """Metrics were logged."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class SweepProgress(Progress, Protocol):
    """How a sweep goes."""

    def point(self, k: int, n: int, name: str, others: Sequence[int] = ()) -> None:
        """Point k of n begins, and with it those of the numbers `others`."""

    def point_done(self, summary: str) -> None:
        """It is done; of several the next in their order."""


class Silence(contextlib.AbstractContextManager):
    """A listener that says nothing: that of every machine but the first."""

    def point(self, k: int, n: int, name: str, others: Sequence[int] = ()) -> None: ...
    def point_done(self, summary: str) -> None: ...
    def update(self, **values: float) -> None: ...
    def note(self, text: str) -> None: ...
    def __exit__(self, *error: object) -> None: ...
