"""One run in its work directory: what it resumes from, what it writes.

Runs that share a program have files of their own, the same as if each were alone.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from attn.data import Dataset
from attn.tasks import Mean, Metric, divide
from attn.train import partition, probes
from attn.train.evaluation import Evaluation
from attn.train.probes import attention
from attn.train.program import Program
from attn.train.state import State
from attn.train.store import trained
from attn.train.store.checkpoint import Checkpoints
from attn.train.store.tracking import End, Tracking
from attn.train.store.writers import Writer
from attn.workdir import files, machine
from attn.workdir.leases import Lost


class Failed(Exception):
    """The training cannot go on; the message says why, in one sentence."""


class Diverged(Failed):
    """A figure is no longer finite; other trainings may go on."""


@dataclasses.dataclass
class Run:
    """A point of a sweep, its directory, and how far its training has got.

    Attributes:
        config: of the point.
        directory: where its files go.
        axes: what distinguishes it from the other points, for the record.
        dataset: its data.
        fence: called before what others see is written; it raises where this process
            may not write it any more.
        tracking: the services that are told of it.
        diverged: why it takes no further part, once it does not.
        result: as written, once it is done.
    """

    config: Mapping[str, Any]
    directory: pathlib.Path
    axes: Mapping[str, Any]
    dataset: Dataset
    fence: Callable[[], None] = lambda: None
    tracking: Tracking = dataclasses.field(default_factory=Tracking)
    diverged: Diverged | None = None
    result: dict[str, Any] | None = None
    _seconds: float = 0.0  # spent before this process began
    _first: bool = dataclasses.field(default_factory=lambda: jax.process_index() == 0)
    _files: "_Files | None" = None

    @contextlib.contextmanager
    def open(self, headline: Metric) -> Iterator[None]:
        """Opens its directory for as long as the context lasts.

        Args:
            headline: the metric by which checkpoints are compared.
        """
        if self._first:
            files.make(self.directory)
        place = self.directory / "checkpoints"
        self._files = _Files(headline, Checkpoints(place, better=headline.better))
        try:
            yield
        finally:
            try:
                if self.result:
                    self._files.writer.final(self._figures(self.result))
                self._files.writer.close(self._end, lost=self._lost())
            finally:
                self._files.checkpoints.close()
                self._files = None

    @staticmethod
    def _figures(result: Mapping[str, Any]) -> dict[str, float]:
        costs = {n: v for n, v in result.items() if isinstance(v, int | float)}
        return {**result["test"], **costs}

    @property
    def _end(self) -> End:
        if self.diverged:
            return "diverged"
        return "done" if self.result else "stopped"

    def _lost(self) -> bool:
        """Whether others write its files now."""
        try:
            self.fence()
        except Lost:
            return True
        return False

    @property
    def _opened(self) -> "_Files":
        assert self._files is not None, "used outside `open`"
        return self._files

    def begin(self, program: Program) -> tuple[State, list[str]]:
        """The state to go on from, not yet on the devices, and messages about it.

        It is the last sound checkpoint's, or a fresh one.

        Raises:
            settings.Invalid: a checkpoint does not fit the config, none is sound, or
                the words of the data are no longer those of the run.
        """
        like, checkpoints = program.abstract_state(), self._opened.checkpoints
        found = checkpoints.restore(like) if self._first else None
        if self._first:
            if found is not None:
                trained.check_files(self.directory, self.dataset.files)
            files.write_json(self.directory / "config.json", self.config)
            for name, content in self.dataset.files.items():
                files.write_bytes(self.directory / name, content)
            machine.note_start(self.directory, int(found[0].step) if found else 0)
        if not partition.broadcast(np.asarray(found is not None)):
            return program.init_state(self.config["seed"]), program.weights.notes()
        if found is None:  # another machine has it
            return partition.broadcast(program.zero_state()), []
        state, notes, damaged = found
        step = int(state.step)
        self._seconds = notes["seconds"]
        said = [f"{line}; going back to step {step}" for line in damaged]
        return partition.broadcast(state), [*said, f"resumes at step {step}"]

    def back(self, program: Program, step: int) -> State | None:
        """An earlier state than that of `begin`; None where it is not kept.

        What was saved later is dropped: it comes again.
        """
        checkpoints = self._opened.checkpoints
        if step == 0:
            state, self._seconds = program.init_state(self.config["seed"]), 0.0
        elif step in checkpoints.steps():
            try:
                found = checkpoints.restore(program.abstract_state(), step)
            except ValueError:  # damaged
                return None
            assert found is not None
            state, self._seconds = found[0], found[1]["seconds"]
        else:
            return None
        checkpoints.drop_after(step)
        return state

    def best(self, program: Program) -> State | None:
        """The state of the best checkpoint; None where none has a figure."""
        checkpoints = self._opened.checkpoints
        self.wait()
        step = checkpoints.best()
        known = self._first and step is not None
        if not partition.broadcast(np.asarray(known)):
            return None
        if not known:
            return partition.broadcast(program.zero_state())
        found = checkpoints.restore(program.abstract_state(), step)
        assert found is not None
        return partition.broadcast(found[0])

    def go_on(self, step: int) -> None:
        """Opens the metrics to go on after `step`, without later lines."""
        self.fence()
        if self._first:
            about = {**self.config, "axes": dict(self.axes)}
            tracked = self.tracking.run(self.directory, about)
            self._opened.writer = Writer(self.directory, step=step, tracked=tracked)

    @contextlib.contextmanager
    def surviving(self) -> Iterator[None]:
        """Lets the loop go on where this run turns out to have diverged."""
        try:
            yield
        except Diverged as reason:
            self.diverged = reason

    def log(self, step: int, totals: Mapping[str, Mean]) -> float:
        """Writes the means since the last line, and returns that of the loss.

        Raises:
            Diverged: it is not finite.
        """
        self.fence()
        means = divide(totals)
        counted = {name: mean for name, mean in means.items() if totals[name].weight}
        _must_be_finite(means["loss"], "the loss", step)
        self._opened.writer.metrics(step, "train", counted)
        return means["loss"]

    def speed(self, step: int, values: Mapping[str, float]) -> None:
        """Writes how fast it went."""
        self._opened.writer.speed(step, values)

    def evaluated(self, step: int, split: str, evaluation: Evaluation) -> None:
        """Writes an evaluation."""
        self.fence()
        self._opened.writer.metrics(step, split, evaluation.values)

    def snapshot(self, step: int, program: Program, variables: Any) -> None:
        """Writes a snapshot of the attention maps after `step`."""
        if self._first:
            attention.snapshot(self.directory, step, program, variables, self.dataset)

    def save(self, state: State, selection: Evaluation | None, seconds: float) -> None:
        """Begins to save a state, `seconds` after the loop began.

        Args:
            state: NumPy arrays.
            selection: its evaluation on the validation split, if there is one.
            seconds: see above.

        Raises:
            Diverged: it is not finite.
        """
        step = int(state.step)
        for leaf in jax.tree.leaves((state.params, state.extras, state.totals)):
            total = float(np.sum(leaf, dtype=np.float64))
            _must_be_finite(total, "a parameter", step)
        self.fence()
        self._opened.writer.sync()  # a checkpoint must not outlive the lines before it
        notes = {"seconds": self._seconds + seconds}
        name = self._opened.headline.name
        figure = selection.values.get(name) if selection else None
        if figure is not None and not math.isfinite(figure):
            figure = None  # to be better or worse than it means nothing
        self._opened.checkpoints.save(state, notes=notes, figure=figure)

    def wait(self) -> None:
        """Waits until what was saved is on disk."""
        self._opened.checkpoints.wait()

    def end(
        self,
        program: Program,
        state: State,
        test: Evaluation,
        validation: Evaluation | None,
        *,
        seconds: float,
        together: int,
    ) -> None:
        """Writes the outcomes, what the probes make of the model, and the result.

        Args:
            program: that trained it.
            state: the tested one, NumPy arrays.
            test, validation: its evaluations.
            seconds: that the training took in this process.
            together: runs that were trained in one program with it, itself included.

        Raises:
            Diverged: a figure of the test is not finite; no result is written.
        """
        for name, value in test.values.items():
            _must_be_finite(value, f"the test's {name}", int(state.step))
        self.result = {
            "axes": dict(self.axes),
            "steps": program.train.steps,
            "metrics": [dataclasses.asdict(m) for m in program.task.metrics],
            "test": test.values,
            **({"validation": validation.values} if validation else {}),
            **program.costs,
            "seconds": round(self._seconds + seconds, 2),
            "together": together,
        }
        if not self._first:
            return
        arrays = {"index": test.index}
        for name, mean in test.outcomes.items():
            arrays |= {f"{name}.total": mean.total, f"{name}.weight": mean.weight}
        files.write_npz(self.directory / "outcomes.npz", **arrays)
        measures = []
        for name in program.task.probes:
            probe = probes.find(name)
            variables = state.variables()
            measures += probe(self.directory, program, variables, self.dataset)
        self.result |= {"measures": measures, **self._speeds()}
        self.fence()
        files.write_json(self.directory / "result.json", self.result)

    def _speeds(self) -> dict[str, float]:
        """Medians over the whole training, in whichever process it took place."""
        lines = (self.directory / "speed.jsonl").read_text().splitlines()
        laps = [json.loads(line) for line in lines]
        names = ("ms_per_step", "examples_per_s")
        if not laps:
            return {}
        return {n: round(statistics.median(lap[n] for lap in laps), 3) for n in names}


class NoWriter:
    """The writer of every machine but the first: it writes nothing."""

    def metrics(self, step: int, split: str, values: Mapping[str, float]) -> None: ...
    def speed(self, step: int, values: Mapping[str, float]) -> None: ...
    def sync(self) -> None: ...
    def final(self, values: Mapping[str, float]) -> None: ...
    def close(self, end: End, *, lost: bool = False) -> None: ...


@dataclasses.dataclass
class _Files:
    """What a run holds open: its checkpoints and its metrics."""

    headline: Metric
    checkpoints: Checkpoints
    writer: Writer | NoWriter = dataclasses.field(default_factory=NoWriter)


def _must_be_finite(value: float, what: str, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"{what} is no longer finite at step {step}; the checkpoints before it"
            " are kept; try a lower config.schedule.peak, config.optimizer.clip=1, or"
            " float32"
        )
