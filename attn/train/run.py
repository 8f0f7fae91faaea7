"""One point of a training in its work directory: what it resumes from, what it writes.

Points that train together are members of one loop; each has files of its own, the
same as if it trained alone.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from attn.data import Dataset
from attn.train import partition
from attn.train.probes import attention, class_gates
from attn.train.program import Program
from attn.train.state import State
from attn.train.store.checkpoint import Checkpoints
from attn.train.store.writers import Writer
from attn.workdir import files, machine


class Failed(Exception):
    """The training cannot go on; the message says why, in one sentence."""


class Diverged(Failed):
    """The loss or a parameter is no longer finite; other trainings may go on."""


@dataclasses.dataclass
class Member:
    """A point, its directory, and how far it has got.

    Attributes:
        config: of the point.
        directory: where its files go.
        axes: what distinguishes it from the other points, for the record.
        dataset: its data.
        diverged: why it takes no further part, once it does not.
        result: as written, once it is done.
    """

    config: Mapping[str, Any]
    directory: pathlib.Path
    axes: Mapping[str, Any]
    dataset: Dataset
    diverged: Diverged | None = None
    result: dict[str, Any] | None = None
    _seconds: float = 0.0  # spent before this process began

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Opens its directory for as long as the context lasts."""
        self._first = jax.process_index() == 0
        self._writer: Writer | Silent = Silent()
        if self._first:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._checkpoints = Checkpoints(self.directory / "checkpoints")
        try:
            yield
        finally:
            try:
                self._writer.close()
            finally:
                self._checkpoints.close()

    def begin(self, program: Program) -> tuple[State, list[str]]:
        """The state to go on from, not yet on the devices, and what to say about it.

        It is the last sound checkpoint's, or a fresh one.

        Raises:
            Invalid: a checkpoint does not fit the config, or none is sound.
        """
        like = program.like()
        found = self._checkpoints.restore(like) if self._first else None
        if self._first:
            files.write_json(self.directory / "config.json", self.config)
            machine.note_start(self.directory, int(found[0].step) if found else 0)
        if not partition.agree(np.asarray(found is not None)):
            return program.fresh(self.config["seed"]), []
        if found is None:  # another host has it
            state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
            return partition.agree(state), []
        state, notes, damaged = found
        step = int(state.step)
        self._seconds = notes["seconds"]
        said = [f"{line}; going back to step {step}" for line in damaged]
        return partition.agree(state), [*said, f"resumes at step {step}"]

    def back(self, program: Program, step: int) -> State | None:
        """An earlier state than that of `begin`; None where it is not kept.

        What was saved later is dropped: it comes again.
        """
        if step == 0:
            state, self._seconds = program.fresh(self.config["seed"]), 0.0
        elif step in self._checkpoints.steps():
            try:
                found = self._checkpoints.restore(program.like(), step)
            except ValueError:  # damaged
                return None
            assert found is not None
            state, self._seconds = found[0], found[1]["seconds"]
        else:
            return None
        self._checkpoints.drop_after(step)
        return state

    def go_on(self, step: int) -> None:
        """Opens the metrics to go on after `step`."""
        if self._first:
            self._writer = Writer(self.directory, step=step)

    @contextlib.contextmanager
    def surviving(self) -> Iterator[None]:
        """Lets the loop go on where this member turns out to have diverged."""
        try:
            yield
        except Diverged as reason:
            self.diverged = reason

    def log(self, step: int, totals: Mapping[str, Any]) -> float:
        """Writes the means since the last line, and returns that of the loss.

        Raises:
            Diverged: it is not finite.
        """
        values = {name: float(value) for name, value in totals.items()}
        count = values.pop("steps")
        means = {name: value / count for name, value in values.items()}
        _must_be_finite(means["loss"], step)
        self._writer.metrics(step, "train", means)
        return means["loss"]

    def pace(self, step: int, values: Mapping[str, float]) -> None:
        """Writes how fast it went."""
        self._writer.speed(step, values)

    def tested(self, step: int, test: Mapping[str, float]) -> None:
        """Writes an evaluation."""
        self._writer.metrics(step, "test", test)

    def look(self, step: int, program: Program, variables: Any) -> None:
        """Writes what it looks at after `step`."""
        if self._first:
            folder = self.directory / "looks"
            folder.mkdir(exist_ok=True)
            path = folder / f"{step}.npz"
            attention.write(path, program, variables, self.dataset, small=True)

    def save(self, state: State, test: Mapping[str, float], seconds: float) -> None:
        """Begins to save a state of the host, `seconds` after the loop began.

        Raises:
            Diverged: it is not finite.
        """
        for leaf in jax.tree.leaves((state.params, state.extras, state.totals)):
            _must_be_finite(float(np.sum(leaf, dtype=np.float64)), int(state.step))
        self._writer.sync()  # a checkpoint must not outlive the lines before it
        notes = {"seconds": self._seconds + seconds}
        self._checkpoints.save(state, notes=notes, error=test.get("error"))

    def wait(self) -> None:
        """Waits until what was saved is on disk."""
        self._checkpoints.wait()

    def end(
        self,
        program: Program,
        variables: Any,
        test: Mapping[str, float],
        *,
        seconds: float,
        together: int,
    ) -> None:
        """Writes the pictures, the gates, and last the result."""
        self.result = {
            "axes": dict(self.axes),
            "steps": program.train.steps,
            "test": dict(test),
            **program.costs,
            "seconds": round(self._seconds + seconds, 2),
            "together": together,
        }
        if self._first:
            self.result |= self._paces()
            path = self.directory / "attention.npz"
            attention.write(path, program, variables, self.dataset)
            path = self.directory / "gates.npz"
            class_gates.write(path, program, variables, self.dataset)
            files.write_json(self.directory / "result.json", self.result)

    def _paces(self) -> dict[str, float]:
        """Medians over the whole training, in whichever process it took place."""
        lines = (self.directory / "speed.jsonl").read_text().splitlines()
        laps = [json.loads(line) for line in lines]
        names = ("ms_per_step", "images_per_s")
        if not laps:
            return {}
        return {n: round(statistics.median(lap[n] for lap in laps), 3) for n in names}


class Silent:
    """The writer of every host but the first."""

    def metrics(self, step: int, split: str, values: Mapping[str, float]) -> None: ...
    def speed(self, step: int, values: Mapping[str, float]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


def _must_be_finite(value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"the loss or a parameter is no longer finite at step {step}; the"
            " checkpoints before it are kept; try a lower config.schedule.peak,"
            " config.optimizer.clip=1, or float32"
        )
