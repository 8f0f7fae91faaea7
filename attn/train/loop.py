"""The training of points: steps, metrics, evaluations, checkpoints, and the end.

Killed anywhere and started again, it ends with the same parameters and metrics as
if nothing had happened: the state is the last checkpoint's, the data and the
randomness follow from its step, and later lines of the metrics are dropped.

One loop serves a point alone and points that train together in one program: these
take their steps at the same time, and share nothing else.
"""

import collections
import contextlib
import errno
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.progress import Progress
from attn.train.run import Diverged, Failed, Member
from attn.train.state import State

__all__ = ["Diverged", "Failed", "Loop", "Member", "Progress", "Stopped", "Training"]

# Steps that may be under way at once: enough to keep the devices busy.
AHEAD = 2


class Stopped(Exception):
    """The training was asked to stop; it has saved its state."""


class Training:
    """The training of points that share a program, each in its work directory."""

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        *,
        progress: Progress,
        interruption: Interruption,
    ):
        """Takes the program and the points; more than one if it trains several."""
        self._program = program
        self._members = members
        self._progress = progress
        self._interruption = interruption

    def run(self) -> None:
        """Trains all members to the end, from their last checkpoints if there are.

        Members whose last checkpoints are of one step train together, the others
        one after the other. A member that is ahead by a save, because a kill came
        between theirs, goes back to the others, so that it ends as if unbroken.
        Each is left with its `result`, as it was written, or with `diverged`.

        Raises:
            Stopped: it was asked to, and has saved.
            Failed: the disk is full.
            Invalid: a checkpoint does not fit the config, or none is sound.
        """
        try:
            with contextlib.ExitStack() as stack:
                for member in self._members:
                    stack.enter_context(member.open())
                for members, states in self._abreast():
                    self._run(members, states)
        except Exception as error:
            if _disk_is_full(error):
                place = ", ".join(str(member.directory) for member in self._members)
                raise Failed(
                    f"the disk of {place} is full; free some space and run"
                    " the same command again to go on from the last checkpoint"
                ) from error
            raise

    def _abreast(self) -> list[tuple[list[Member], list[State]]]:
        """The members by the step they go on from, with their states."""
        begun = {}
        for number, member in enumerate(self._members):
            state, said = member.begin(self._program)
            begun[number] = (int(state.step), state)
            who = f"{member.directory.name} " if len(self._members) > 1 else ""
            for line in said:
                self._progress.note(who + line)
        lowest = min(step for step, _ in begun.values())
        for number, (step, _) in begun.items():
            if 0 < step - lowest <= self._program.train.save_every:
                member = self._members[number]
                earlier = member.back(self._program, lowest)
                if earlier is not None:
                    begun[number] = (lowest, earlier)
                    name = member.directory.name
                    self._progress.note(f"{name} goes back to step {lowest}")
        groups: dict[int, tuple[list[Member], list[State]]] = {}
        for number, (step, state) in begun.items():
            members, states = groups.setdefault(step, ([], []))
            members.append(self._members[number])
            states.append(state)
        return [groups[step] for step in sorted(groups)]

    def _run(self, members: Sequence[Member], states: Sequence[State]) -> None:
        """Trains members that are at the same step."""
        step = int(states[0].step)
        state = self._program.partition.join(states)
        began = time.perf_counter()
        for member in members:
            member.go_on(step)
        if step < self._program.train.steps:
            state, tests = self._steps(members, state, step, began)
        else:  # killed between the last checkpoint and the result
            tests = self._evaluate(members, state)
        for member in members:
            member.wait()
        seconds = (time.perf_counter() - began) / len(members)
        variables = self._program.partition.parts(state.variables())
        for member, held, test in zip(members, variables, tests, strict=True):
            if not member.diverged:
                member.end(
                    self._program, held, test, seconds=seconds, together=len(members)
                )

    def _steps(
        self, members: Sequence[Member], state: State, start: int, began: float
    ) -> tuple[State, list[dict[str, float]]]:
        """Takes the steps that are left; returns the state and its evaluations."""
        train = self._program.train
        under_way = collections.deque()
        clock, tests = None, [{} for _ in members]
        if train.look_every and not start:
            self._look(members, state, start)
        with self._batches(members, start) as batches:
            for step in range(start + 1, train.steps + 1):
                batch = self._program.partition.feed(next(batches))
                state, loss = self._program.update(state, batch)
                under_way.append(loss)
                if len(under_way) > AHEAD or clock is None:
                    under_way.popleft().block_until_ready()
                # the first step compiles
                clock = clock or _Clock(step, train.batch_size, len(members))
                last = step == train.steps
                stop = self._interruption.at(step) and not last
                if step % train.log_every == 0 or last:
                    state = self._log(members, state, step, clock)
                with clock.paused():
                    tests = [{} for _ in members]
                    if step % train.eval_every == 0 or last:
                        tests = self._evaluate(members, state)
                        for member, test in _live(members, tests):
                            member.tested(step, test)
                    if train.look_every and (step % train.look_every == 0 or last):
                        self._look(members, state, step)
                    if step % train.save_every == 0 or last or stop:
                        seconds = (time.perf_counter() - began) / len(members)
                        self._save(members, state, tests, seconds)
                if all(member.diverged for member in members):
                    break
                if stop:
                    for member in members:
                        member.wait()
                    raise Stopped(f"saved at step {step} of {train.steps}")
        return state, tests

    @contextlib.contextmanager
    def _batches(
        self, members: Sequence[Member], start: int
    ) -> Iterator[Iterator[list[dict[str, np.ndarray]]]]:
        """What a step takes of each member's batch, from number `start` on."""
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(
                    member.dataset.train(
                        self._program.train.batch_size,
                        seed=member.config["seed"],
                        start=start,
                        shard=self._program.partition.shard,
                    )
                )
                for member in members
            ]
            yield (
                [{name: batch[name] for name in ("image", "label")} for batch in found]
                for found in zip(*streams, strict=True)
            )

    def _evaluate(
        self, members: Sequence[Member], state: State
    ) -> list[dict[str, float]]:
        datasets = [member.dataset for member in members]
        return self._program.evaluate_each(state, datasets)

    def _look(self, members: Sequence[Member], state: State, step: int) -> None:
        variables = self._program.partition.parts(state.variables())
        for member, held in _live(members, variables):
            member.look(step, self._program, held)

    def _log(
        self, members: Sequence[Member], state: State, step: int, clock: "_Clock"
    ) -> State:
        """Writes the means since the last line, and begins new sums."""
        losses = []
        for member, totals in _live(
            members, self._program.partition.parts(state.totals)
        ):
            with member.surviving():
                losses.append(member.log(step, totals))
        pace = clock.lap(step)
        if pace is not None and losses:
            for member, _ in _live(members, members):
                member.pace(step, pace)
            left = self._program.train.steps - step
            self._progress.update(
                step=step,
                steps=self._program.train.steps,
                loss=sum(losses) / len(losses),
                images_per_s=pace["images_per_s"],
                seconds_left=left * pace["ms_per_step"] * len(members) / 1000,
            )
        zeros = {name: np.zeros((), np.float32) for name in state.totals}
        zeros = self._program.partition.join([zeros] * len(members))
        return state.replace(totals=zeros)

    def _save(
        self,
        members: Sequence[Member],
        state: State,
        tests: Sequence[Mapping[str, float]],
        seconds: float,
    ) -> None:
        held = self._program.partition.parts(state)
        for member, (part, test) in _live(members, zip(held, tests, strict=True)):
            with member.surviving():
                member.save(part, test, seconds)


class Loop:
    """The training of one point alone: a `Training` of one member."""

    def __init__(
        self,
        program: Program,
        config: Mapping[str, Any],
        directory: pathlib.Path,
        *,
        progress: Progress,
        interruption: Interruption,
    ):
        self._member = Member(config, directory, {}, program.dataset)
        self._training = Training(
            program, [self._member], progress=progress, interruption=interruption
        )

    def run(self, axes: Mapping[str, Any]) -> dict[str, Any]:
        """Trains to the end and returns the result, as it was written.

        Args:
            axes: what distinguishes this point from the others, for the record.

        Raises:
            Diverged: the loss or a parameter is no longer finite.
            Stopped, Failed, ValueError: as `Training.run` says.
        """
        self._member.axes = axes
        self._training.run()
        if self._member.diverged:
            raise self._member.diverged
        assert self._member.result is not None
        return self._member.result


def _live(
    members: Sequence[Member], values: Iterator[Any] | Sequence[Any]
) -> Iterator[tuple[Member, Any]]:
    """The members that have not diverged, each with its value."""
    for member, value in zip(members, values, strict=True):
        if not member.diverged:
            yield member, value


class _Clock:
    """Times the steps, without the compilation, evaluations and checkpoints."""

    def __init__(self, step: int, batch_size: int, members: int):
        self._batch_size, self._members = batch_size, members
        self._since, self._step = time.perf_counter(), step

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what is done meanwhile."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def lap(self, step: int) -> dict[str, float] | None:
        """The pace of each member since the last lap; None where no step was taken."""
        now = time.perf_counter()
        seconds, steps = now - self._since, step - self._step
        self._since, self._step = now, step
        steps *= self._members
        if not steps:
            return None
        return {
            "ms_per_step": round(1000 * seconds / steps, 3),
            "images_per_s": round(self._batch_size * steps / seconds, 1),
        }


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
