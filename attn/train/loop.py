"""The training of runs: steps, metrics, evaluations, checkpoints, and the end.

Killed anywhere and started again, it ends with the same parameters and metrics as
if nothing had happened: the state is the last checkpoint's, the data and the
randomness follow from its step, and later lines of the metrics are dropped.

One loop serves a run alone and runs that share one program: these take their steps
at the same time, and share nothing else.
"""

import collections
import contextlib
import errno
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from attn.train import evaluation
from attn.train.evaluation import Evaluation
from attn.train.interruption import Interruption, Stopped
from attn.train.program import Program
from attn.train.progress import Progress
from attn.train.run import Failed, Run
from attn.train.state import State

# Steps that may be under way at once: enough to keep the devices busy.
AHEAD = 2


class Training:
    """The training of runs that share a program, each in its work directory."""

    def __init__(
        self,
        program: Program,
        runs: Sequence[Run],
        *,
        progress: Progress,
        interruption: Interruption,
    ):
        """Takes the program and the runs; more than one if it trains several."""
        self._program = program
        self._runs = runs
        self._progress = progress
        self._interruption = interruption

    def train(self) -> None:
        """Trains all runs to the end, from their last checkpoints if there are.

        Runs whose last checkpoints are of one step train together, the others one
        after the other. A run that is ahead by a save, because a kill came between
        theirs, goes back to the others, so that it ends as if unbroken. Each is left
        with its `result`, as it was written, or with `diverged`.

        Raises:
            Stopped: it was asked to, and has saved.
            Failed: the disk is full.
            settings.Invalid: a checkpoint does not fit the config, or none is sound.
        """
        headline = self._program.task.metrics[0]
        with contextlib.ExitStack() as stack:
            stack.enter_context(roomy(*(run.directory for run in self._runs)))
            for run in self._runs:
                stack.enter_context(run.open(headline))
            for runs, states in self._abreast():
                _Together(self._program, runs, self._progress, self._interruption)(
                    states
                )

    def _abreast(self) -> list[tuple[list[Run], list[State]]]:
        """The runs by the step they go on from, with their states."""
        begun = {}
        for number, run in enumerate(self._runs):
            state, messages = run.begin(self._program)
            begun[number] = (int(state.step), state)
            who = f"{run.directory.name} " if len(self._runs) > 1 else ""
            for line in messages:
                self._progress.note(who + line)
        lowest = min(step for step, _ in begun.values())
        for number, (step, _) in begun.items():
            if 0 < step - lowest <= self._program.train.save_every:
                run = self._runs[number]
                earlier = run.back(self._program, lowest)
                if earlier is not None:
                    begun[number] = (lowest, earlier)
                    name = run.directory.name
                    self._progress.note(f"{name} goes back to step {lowest}")
        groups: dict[int, tuple[list[Run], list[State]]] = {}
        for number, (step, state) in begun.items():
            runs, states = groups.setdefault(step, ([], []))
            runs.append(self._runs[number])
            states.append(state)
        return [groups[step] for step in sorted(groups)]


class _Together:
    """The training of runs that are at the same step, up to their end."""

    def __init__(
        self,
        program: Program,
        runs: Sequence[Run],
        progress: Progress,
        interruption: Interruption,
    ):
        self._program, self._runs = program, runs
        self._progress, self._interruption = progress, interruption
        self._datasets = [run.dataset for run in runs]
        self._began = time.perf_counter()
        self._evaluations: list[Evaluation] | None = None  # of the step at hand

    def __call__(self, states: Sequence[State]) -> None:
        """Takes the steps that are left, and ends every run that has not diverged."""
        step = int(states[0].step)
        state = self._program.partition.stack(states)
        for run in self._runs:
            run.go_on(step)
        if step < self._program.train.steps:
            state = self._steps(state, step)
        for run in self._runs:
            run.wait()
        self._end(state)

    def _steps(self, state: State, start: int) -> State:
        """Takes the steps that are left; returns the state."""
        train = self._program.train
        under_way: collections.deque[Any] = collections.deque()
        clock = None
        if train.snapshot_every and not start:
            self._snapshot(state, start)
        with self._batches(start) as batches:
            for step in range(start + 1, train.steps + 1):
                found = next(batches)
                batch = self._program.partition.shard_batch(found)
                state, loss = self._program.train_step(state, batch)
                under_way.append(loss)
                if len(under_way) > AHEAD or clock is None:
                    under_way.popleft().block_until_ready()
                if clock is None:
                    clock = _Clock(len(self._runs))  # the first step compiles
                else:
                    clock.took(self._examples(found))
                last = step == train.steps
                stop = self._interruption.at(step) and not last
                if step % train.log_every == 0 or last:
                    state = self._log(state, step, clock)
                with clock.paused():
                    self._between(state, step, last, stop)
                if all(run.diverged for run in self._runs):
                    break
                if stop:
                    for run in self._runs:
                        run.wait()
                    raise Stopped(f"saved at step {step} of {train.steps}")
        return state

    def _between(self, state: State, step: int, last: bool, stop: bool) -> None:
        """Evaluates, takes snapshots and saves, where it is time to."""
        train = self._program.train
        scores = last or (train.score_every and step % train.score_every == 0)
        self._evaluations = None
        if scores or step % train.eval_every == 0:
            split = self._program.curve_split
            self._evaluations = self._evaluate(state, split, score=bool(scores))
            for run, found in _live(self._runs, self._evaluations):
                run.evaluated(step, split, found)
        if train.snapshot_every and (step % train.snapshot_every == 0 or last):
            self._snapshot(state, step)
        regular = step % train.save_every == 0 or last
        if regular or stop:
            self._save(state, regular=regular)

    def _end(self, state: State) -> None:
        """Tests the selected states and writes the results."""
        program, evaluations = self._program, self._evaluations
        if program.train.select == "best":
            states = program.partition.unstack(state)
            best = [run.best(program) for run in self._runs]
            chosen = [own or last for own, last in zip(best, states, strict=True)]
            state, evaluations = program.partition.stack(chosen), None
        # without one it was killed between the last checkpoint and the result
        found = evaluations or self._evaluate(state, program.curve_split, score=True)
        if program.curve_split == "test":
            tests, validations = found, [None] * len(found)
        else:
            tests, validations = self._evaluate(state, "test", score=True), found
        seconds = self._seconds
        states = program.partition.unstack(state)
        ends = zip(states, tests, validations, strict=True)
        for run, (held, test, validation) in _live(self._runs, list(ends)):
            with run.surviving():
                run.end(
                    program,
                    held,
                    test,
                    validation,
                    seconds=seconds,
                    together=len(self._runs),
                )

    @property
    def _seconds(self) -> float:
        """The share of each run in the time since the beginning."""
        return (time.perf_counter() - self._began) / len(self._runs)

    @contextlib.contextmanager
    def _batches(self, start: int) -> Iterator[Iterator[list[dict[str, np.ndarray]]]]:
        """What a step takes of each run's batch, from number `start` on."""
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(
                    run.dataset.train(
                        self._program.train.batch_size,
                        seed=run.config["seed"],
                        start=start,
                        shard=self._program.partition.shard,
                    )
                )
                for run in self._runs
            ]
            fields = self._program.fields
            yield (
                [{name: batch[name] for name in fields} for batch in found]
                for found in zip(*streams, strict=True)
            )

    def _examples(self, batches: Sequence[Mapping[str, np.ndarray]]) -> int:
        """Examples of a step, those of all runs on all machines."""
        here = sum(len(next(iter(batch.values()))) for batch in batches)
        return here * self._program.partition.shard[1]

    def _evaluate(self, state: State, split: str, *, score: bool) -> list[Evaluation]:
        variables = state.variables()
        return evaluation.evaluate(
            self._program, variables, self._datasets, split, score=score
        )

    def _snapshot(self, state: State, step: int) -> None:
        variables = self._program.partition.unstack(state.variables())
        for run, held in _live(self._runs, variables):
            run.snapshot(step, self._program, held)

    def _log(self, state: State, step: int, clock: "_Clock") -> State:
        """Writes the means since the last line, and begins new sums."""
        losses = []
        unstacked = self._program.partition.unstack(state.totals)
        for run, totals in _live(self._runs, unstacked):
            with run.surviving():
                losses.append(run.log(step, totals))
        speed = clock.lap()
        if speed is not None and losses:
            for run, _ in _live(self._runs, self._runs):
                run.speed(step, speed)
            left = self._program.train.steps - step
            self._progress.update(
                step=step,
                steps=self._program.train.steps,
                loss=sum(losses) / len(losses),
                examples_per_s=speed["examples_per_s"],
                seconds_left=left * speed["ms_per_step"] * len(self._runs) / 1000,
            )
        zeros = jax.tree.map(lambda a: np.zeros((), np.float32), unstacked[0])
        zeros = self._program.partition.stack([zeros] * len(self._runs))
        return state.replace(totals=zeros)

    def _save(self, state: State, *, regular: bool) -> None:
        selects = self._program.curve_split == "validation"
        # without a stop there would be no other checkpoint: it must not be selected
        found = self._evaluations if selects and regular else None
        selections = found or [None] * len(self._runs)
        held = self._program.partition.unstack(state)
        pairs = list(zip(held, selections, strict=True))
        for run, (part, selection) in _live(self._runs, pairs):
            with run.surviving():
                run.save(part, selection, self._seconds)


def train(
    program: Program,
    config: Mapping[str, Any],
    directory: pathlib.Path,
    axes: Mapping[str, Any],
    *,
    progress: Progress,
    interruption: Interruption,
) -> dict[str, Any]:
    """Trains one run alone to the end and returns its result, as it was written.

    Args:
        program: of the config.
        config: of the run.
        directory: where its files go.
        axes: what distinguishes it from other points, for the record.
        progress, interruption: as in `Training`.

    Raises:
        Diverged: a figure is no longer finite.
        Stopped, Failed, settings.Invalid: as `Training.train` says.
    """
    run = Run(config, directory, axes, program.dataset)
    Training(program, [run], progress=progress, interruption=interruption).train()
    if run.diverged:
        raise run.diverged
    assert run.result is not None
    return run.result


def _live(runs: Sequence[Run], values: Sequence[Any]) -> Iterator[tuple[Run, Any]]:
    """The runs that have not diverged, each with its value."""
    for run, value in zip(runs, values, strict=True):
        if not run.diverged:
            yield run, value


class _Clock:
    """Times the steps, without the compilation, evaluations and checkpoints."""

    def __init__(self, runs: int):
        self._runs, self._since = runs, time.perf_counter()
        self._steps = self._examples = 0  # since then

    def took(self, examples: int) -> None:
        """Counts a step of all runs, with the examples of all."""
        self._steps += self._runs
        self._examples += examples

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what is done meanwhile."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def lap(self) -> dict[str, float] | None:
        """The speed of each run since the last lap; None where no step was taken."""
        now = time.perf_counter()
        seconds, steps, examples = now - self._since, self._steps, self._examples
        self._since, self._steps, self._examples = now, 0, 0
        if not steps:
            return None
        return {
            "ms_per_step": round(1000 * seconds / steps, 3),
            "examples_per_s": round(examples / seconds, 1),
        }


@contextlib.contextmanager
def roomy(*places: pathlib.Path) -> Iterator[None]:
    """Tells a full disk from other errors.

    Args:
        places: that are written to.

    Raises:
        Failed: the disk is full.
    """
    try:
        yield
    except Failed:
        raise
    except Exception as error:
        if not _disk_is_full(error):
            raise
        raise Failed(
            f"the disk of {', '.join(map(str, places))} is full; free some space and"
            " run the same command again to go on from the last checkpoint"
        ) from error


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
