"""The training of one point: steps, metrics, evaluations, checkpoints, and the end.

Killed anywhere and started again, it ends with the same parameters and metrics as
if nothing had happened: the state is the last checkpoint's, the data and the
randomness follow from its step, and later lines of the metrics are dropped.
"""

import collections
import contextlib
import errno
import json
import math
import pathlib
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from attn.train import partition, pictures, workdir
from attn.train.checkpoint import Checkpoints
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.state import State
from attn.train.writers import Writer

# Steps that may be under way at once: enough to keep the devices busy.
AHEAD = 2


class Stopped(Exception):
    """The training was asked to stop; it has saved its state."""


class Failed(Exception):
    """The training cannot go on; the message says why, in one sentence."""


class Diverged(Failed):
    """The loss or a parameter is no longer finite; other trainings may go on."""


class Progress(Protocol):
    """Whoever wants to be told how a training goes."""

    def update(
        self,
        *,
        step: int,
        steps: int,
        loss: float,
        images_per_s: float,
        seconds_left: float,
    ) -> None:
        """Metrics were logged."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Loop:
    """One training in its work directory."""

    def __init__(
        self,
        program: Program,
        config: Mapping[str, Any],
        directory: pathlib.Path,
        *,
        progress: Progress,
        interruption: Interruption,
    ):
        self._program = program
        self._config = config
        self._directory = directory
        self._progress = progress
        self._interruption = interruption
        self._first = jax.process_index() == 0
        self._seconds = 0.0  # spent before this process began

    def run(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """Trains to the end, from the last checkpoint if there is one.

        Args:
            axes: what distinguishes this point from the others, for the record.

        Returns:
            The result, as it was written.

        Raises:
            Stopped: it was asked to, and has saved.
            Diverged: the loss or a parameter is no longer finite.
            Failed: the disk is full.
            ValueError: a checkpoint does not fit the config, or none is sound.
        """
        try:
            if self._first:
                self._directory.mkdir(parents=True, exist_ok=True)
            checkpoints = Checkpoints(self._directory / "checkpoints")
            try:
                return self._run(checkpoints, axes)
            finally:
                checkpoints.close()
        except Exception as error:
            if _disk_is_full(error):
                raise Failed(
                    f"the disk of {self._directory} is full; free some space and run"
                    " the same command again to go on from the last checkpoint"
                ) from error
            raise

    def _run(self, checkpoints: Checkpoints, axes: Mapping[str, Any]) -> dict[str, Any]:
        state = self._begin(checkpoints)
        began = time.perf_counter() - self._seconds
        step = int(state.step)
        writer = Writer(self._directory, step=step) if self._first else _Silent()
        try:
            if step < self._program.train.steps:
                state, test = self._steps(state, writer, checkpoints, began)
            else:  # killed between the last checkpoint and the result
                test = self._program.evaluate(state)
            checkpoints.wait()
            return self._end(state, axes, test, time.perf_counter() - began)
        finally:
            writer.close()

    def _begin(self, checkpoints: Checkpoints) -> State:
        """The state to go on from: the last sound checkpoint's, or a fresh one."""
        program, like = self._program, self._program.like()
        found = checkpoints.restore(like) if self._first else None
        if self._first:
            workdir.write_json(self._directory / "config.json", self._config)
            path = self._directory / "environment.json"
            workdir.write_json(path, workdir.environment())
        if not partition.agree(np.asarray(found is not None)):
            return program.start(self._config["seed"])
        if found is None:  # another host has it
            state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), like)
            return program.partition.place(partition.agree(state))
        state, notes, damaged = found
        for line in damaged:
            self._progress.note(f"{line}; going back to step {int(state.step)}")
        self._seconds = notes["seconds"]
        self._progress.note(f"resumes at step {int(state.step)}")
        return program.partition.place(partition.agree(state))

    def _steps(
        self,
        state: State,
        writer: "Writer | _Silent",
        checkpoints: Checkpoints,
        began: float,
    ) -> tuple[State, dict[str, float]]:
        """Takes the steps that are left; returns the state and its evaluation."""
        train = self._program.train
        under_way = collections.deque()
        clock, test = None, {}
        start = int(state.step)
        with self._batches(start) as batches:
            for step in range(start + 1, train.steps + 1):
                batch = self._program.partition.split(next(batches))
                state, loss = self._program.update(state, batch)
                under_way.append(loss)
                if len(under_way) > AHEAD or clock is None:
                    under_way.popleft().block_until_ready()
                clock = clock or _Clock(step, train.batch_size)  # the first compiles
                last = step == train.steps
                stop = self._interruption.at(step) and not last
                if step % train.log_every == 0 or last:
                    state = self._log(state, step, writer, clock)
                with clock.paused():
                    test = {}
                    if step % train.eval_every == 0 or last:
                        test = self._program.evaluate(state)
                        writer.metrics(step, "test", test)
                    if step % train.save_every == 0 or last or stop:
                        seconds = time.perf_counter() - began
                        self._save(state, writer, checkpoints, test, seconds)
                if stop:
                    checkpoints.wait()
                    raise Stopped(f"saved at step {step} of {train.steps}")
        return state, test

    @contextlib.contextmanager
    def _batches(self, start: int) -> Iterator[Iterator[dict[str, np.ndarray]]]:
        """What a step takes of each batch, from number `start` on."""
        with self._program.dataset.train(
            self._program.train.batch_size,
            seed=self._config["seed"],
            start=start,
            shard=self._program.partition.shard,
        ) as batches:
            yield ({name: b[name] for name in ("image", "label")} for b in batches)

    def _log(
        self, state: State, step: int, writer: "Writer | _Silent", clock: "_Clock"
    ) -> State:
        """Writes the means since the last line, and begins new sums."""
        totals = {name: float(value) for name, value in state.totals.items()}
        count = totals.pop("steps")
        means = {name: value / count for name, value in totals.items()}
        self._must_be_finite(means["loss"], step)
        writer.metrics(step, "train", means)
        pace = clock.lap(step)
        if pace is not None:
            writer.speed(step, pace)
            left = self._program.train.steps - step
            self._progress.update(
                step=step,
                steps=self._program.train.steps,
                loss=means["loss"],
                images_per_s=pace["images_per_s"],
                seconds_left=left * pace["ms_per_step"] / 1000,
            )
        zeros = self._program.partition.place(
            {name: np.zeros((), np.float32) for name in state.totals}
        )
        return state.replace(totals=zeros)

    def _save(
        self,
        state: State,
        writer: "Writer | _Silent",
        checkpoints: Checkpoints,
        test: dict[str, float],
        seconds: float,
    ) -> None:
        held = partition.fetch(state)
        for leaf in jax.tree.leaves((held.params, held.extras, held.totals)):
            self._must_be_finite(float(np.sum(leaf, dtype=np.float64)), int(held.step))
        writer.sync()  # a checkpoint must not outlive the lines before it
        checkpoints.save(held, notes={"seconds": seconds}, error=test.get("error"))

    def _must_be_finite(self, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise Diverged(
                f"the loss or a parameter is no longer finite at step {step}; the"
                " checkpoints before it are kept; try a lower config.schedule.peak,"
                " config.optimizer.clip=1, or float32"
            )

    def _end(
        self,
        state: State,
        axes: Mapping[str, Any],
        test: dict[str, float],
        seconds: float,
    ) -> dict[str, Any]:
        result = {
            "axes": dict(axes),
            "steps": self._program.train.steps,
            "test": test,
            **self._program.costs,
            "seconds": round(seconds, 2),
        }
        if self._first:
            result |= self._pace()
            pictures.write(self._directory / "attention.npz", self._program, state)
            workdir.write_json(self._directory / "result.json", result)
        return result

    def _pace(self) -> dict[str, float]:
        """Medians over the whole training, in whichever process it took place."""
        lines = (self._directory / "speed.jsonl").read_text().splitlines()
        laps = [json.loads(line) for line in lines]
        names = ("ms_per_step", "images_per_s")
        if not laps:
            return {}
        return {n: round(statistics.median(lap[n] for lap in laps), 3) for n in names}


class _Clock:
    """Times the steps, without the compilation, evaluations and checkpoints."""

    def __init__(self, step: int, batch_size: int):
        self._batch_size = batch_size
        self._since, self._step = time.perf_counter(), step

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what is done meanwhile."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def lap(self, step: int) -> dict[str, float] | None:
        """The pace since the last lap; None where no step was taken."""
        now = time.perf_counter()
        seconds, steps = now - self._since, step - self._step
        self._since, self._step = now, step
        if not steps:
            return None
        return {
            "ms_per_step": round(1000 * seconds / steps, 3),
            "images_per_s": round(self._batch_size * steps / seconds, 1),
        }


class _Silent:
    """The writer of every host but the first."""

    def metrics(self, step: int, split: str, values: Mapping[str, float]) -> None: ...
    def speed(self, step: int, values: Mapping[str, float]) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


def _disk_is_full(error: BaseException | None) -> bool:
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    while error is not None:
        if isinstance(error, OSError) and error.errno in full:
            return True
        text = str(error)
        if "No space left on device" in text or "File too large" in text:
            return True
        error = error.__cause__ or error.__context__
    return False
