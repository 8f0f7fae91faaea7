"""How long a sweep will take: a rehearsal of each program, in a directory of its own.

The rehearsal does once what a training does: it begins, takes some steps, saves,
evaluates, and writes what stands at the end; each part is timed and counted as often
as it will come. With a compilation cache everything is compiled beforehand, as the
sweep will find the cache filled: what then counts is tracing, and reading from it.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax

from attn.train.evaluation import evaluate
from attn.train.interruption import Interruption
from attn.train.loop import AHEAD, Stopped, Training
from attn.train.program import Program
from attn.train.sweep.experiment_file import Point
from attn.train.sweep.groups import Group, groups
from attn.train.sweep.plan import Parallel
from attn.train.sweep.step_time import StepTime

STEPS = 60  # rehearsed at most
SECONDS = 3.0  # for which steps are rehearsed, where they are many
FEW = 4  # steps that are too few to tell their pace


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Times of the points of one program.

    Attributes:
        ms_per_step: of one point.
        train: seconds of one point, once the program is compiled.
        compile: seconds that the program takes beside that.
        costs: "parameters" and "macs".
    """

    ms_per_step: float
    train: float
    compile: float
    costs: dict[str, int]


def rehearse(
    points: Sequence[Point],
    directory: pathlib.Path,
    *,
    parallel: Parallel = "off",
    trials: int = 0,
    status: Callable[[str], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> tuple[list[dict[str, Any]], float]:
    """Estimates every point of a sweep; each program is rehearsed once.

    Args:
        points: those to train.
        directory: for the files of the rehearsals, which look like trainings that
            ended after a few steps.
        parallel: which points train side by side, as `attn.train.sweep.plan` says.
        trials: trainings of every row before its points, each of another program.
        status: is entered with what is going on.

    Returns:
        A row for each point, with "point", "parameters", "macs", "ms_per_step" and
        "seconds", and before those of a row one with "trials", if there are any; and
        the seconds of all, compilation included.
    """
    rows, total = [], 0.0
    tuned: list[dict[str, Any]] = []
    known: dict[Any, tuple[Group, Estimate]] = {}
    began = time.perf_counter()
    found = groups(points, parallel)  # builds every point, to plan it
    total += time.perf_counter() - began
    for group, seconds in _timed(found):
        total += seconds
        if not known:
            total += _first_use(group, directory)
        key = (id(group.program.train_step), len(group.points))
        if key not in known:
            with status(f"timing {group.name}"):
                known[key] = (group, estimate(group, directory))
            total += known[key][1].compile
        _, cost = known[key]
        for point in group.points:
            line = {**cost.costs, "ms_per_step": cost.ms_per_step}
            if trials and point.row not in tuned:
                tuned.append(point.row)
                taken = trials * (cost.train + cost.compile)
                name = f"{point.label}: {trials} trials"
                rows.append({"point": name, "trials": trials, **line, "seconds": taken})
                total += taken
            rows.append({"point": point.name, **line, "seconds": cost.train})
            total += cost.train
    return rows, total


def estimate(group: Group, directory: pathlib.Path) -> Estimate:
    """Rehearses the training of points that train together, or of one."""
    again = _built_again(group)
    if jax.config.jax_compilation_cache_dir:
        with _scratch(directory, "compiling") as place:
            _Rehearsal(group, place).run(1)
        group = again
    first = _Rehearsal(group, directory)
    first.run(STEPS)
    with _scratch(directory, "again") as place:
        later = _Rehearsal(group, place)
        later.run(2)
    count = len(group.points)
    pace = first.pace or StepTime(group.program, count).seconds(FEW) / FEW
    return Estimate(
        ms_per_step=1000 * pace / count,
        train=later.total(pace) / count,
        compile=max(0.0, first.once() - later.once()),
        costs=group.program.costs,
    )


def _timed(groups: Iterator[Group]) -> Iterator[tuple[Group, float]]:
    """Each group with the seconds that it took to build."""
    while True:
        began = time.perf_counter()
        group = next(groups, None)
        if group is None:
            return
        yield group, time.perf_counter() - began


def _first_use(group: Group, directory: pathlib.Path) -> float:
    """Seconds for what a process does once, such as imports at their first use."""
    laps = []
    for _ in range(2):
        with _scratch(directory, "first") as place:
            began = time.perf_counter()
            run, program = group.runs(place)[0], group.program
            with run.open(program.task.metrics[0]):
                run.go_on(0)
                with run.dataset.split("test", program.eval_batch_size) as batches:
                    next(batches)
            laps.append(time.perf_counter() - began)
    return max(0.0, laps[0] - laps[1])


def _built_again(group: Group) -> Group:
    """The same with a program in which nothing is traced yet."""
    program = Program(group.points[0].config, mode=group.mode)
    return dataclasses.replace(group, program=program)


class _Rehearsal:
    """One beginning of a training, some steps and an end, timed part by part."""

    def __init__(self, group: Group, directory: pathlib.Path):
        self._program = group.program
        self._runs = group.runs(directory)
        self.pace: float | None = None  # seconds of a step, of all points together
        self._begin = self._save = self._evaluate = self._snapshot = self._end = 0.0

    def run(self, steps: int) -> None:
        """Takes up to so many steps, and everything else once."""
        train = self._program.train
        whole = train.steps
        every = [train.eval_every, train.save_every, train.snapshot_every or whole]
        stop = _Stop(min(steps, *every, max(whole - 1, 1)))
        began = time.perf_counter()
        training = Training(
            self._program, self._runs, progress=_Nobody(), interruption=stop
        )
        with contextlib.suppress(Stopped):
            training.train()
        self._save = time.perf_counter() - stop.times[-1]
        self._begin = stop.times[0] - began
        laps = len(stop.times) - 1 - AHEAD  # the last ones are still under way
        if laps >= FEW:
            self.pace = (stop.times[-1] - stop.times[0]) / laps
        self._finish()

    def once(self) -> float:
        """Seconds of what comes once, and compiles when it comes first."""
        return self._begin + self._evaluate + self._snapshot + self._end

    def total(self, pace: float) -> float:
        """Seconds of the whole training, of all points together."""
        train = self._program.train
        every = train.snapshot_every
        snapshots = 1 + -(-train.steps // every) if every else 0
        return (
            self._begin
            + (train.steps - 1) * pace
            + -(-train.steps // train.save_every) * self._save
            + -(-train.steps // train.eval_every) * self._evaluate
            + snapshots * self._snapshot
            + self._end
        )

    def _finish(self) -> None:
        """Evaluates, takes a snapshot and ends, each from the runs' first states."""
        program, runs = self._program, self._runs
        states = [program.init_state(0) for _ in runs]
        state = program.partition.stack(states)
        datasets = [run.dataset for run in runs]
        variables = state.variables()
        began = time.perf_counter()
        split = program.curve_split
        found = evaluate(program, variables, datasets, split, score=False)
        self._evaluate = time.perf_counter() - began
        unstacked = program.partition.unstack(state)
        if program.train.snapshot_every:
            began = time.perf_counter()
            for run, held in zip(runs, unstacked, strict=True):
                run.snapshot(0, program, held.variables())
            self._snapshot = time.perf_counter() - began
        began = time.perf_counter()
        if split != "test" or program.task.scored:
            found = evaluate(program, variables, datasets, "test", score=True)
        for run, held, test in zip(runs, unstacked, found, strict=True):
            run.end(program, held, test, None, seconds=0.0, together=len(runs))
        self._end = time.perf_counter() - began


class _Stop(Interruption):
    """Notes when each step was there, and stops after the last one wanted.

    One machine alone also stops when it has seen enough; several have clocks of their
    own, and must stop at the same step.
    """

    def __init__(self, steps: int):
        super().__init__()
        self._steps = steps
        self.times: list[float] = []

    def at(self, step: int) -> bool:
        self.times.append(time.perf_counter())
        late = self.times[-1] - self.times[0] > SECONDS and step > FEW + AHEAD
        return step >= self._steps or (late and jax.process_count() == 1)


class _Nobody:
    def update(self, **values: Any) -> None: ...
    def note(self, text: str) -> None: ...


@contextlib.contextmanager
def _scratch(directory: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """A directory beside another, removed at the end."""
    place = directory.with_name(f"{directory.name}.{name}")
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
