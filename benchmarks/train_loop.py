"""How much of the machine the training loop leaves to the model.

    python -m benchmarks.train_loop             # the default experiment, two figures
    python -m benchmarks.train_loop --rounds=3

Efficiency: steps per second of a point (data, logging and checkpoints included, the
evaluation left out) over those of the bare compiled step on one batch that stays
where it is. Both in one process, in turn, so that a noisy machine meets both; the
median of the ratios is the figure. Beside it stands the same in processor time, which
does not count the wait for cores that others use, but all that threads do meanwhile.

Start: seconds from the command to the end of the first step, in processes of their
own, with an empty compilation cache and with a full one.
"""

import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from absl import app, flags, logging

from attn.train import interruption, loop
from attn.train.program import Program
from attn.train.sweep import experiment_file
from attn.train.sweep.step_time import StepTime
from attn.workdir import machine
from benchmarks.watch import Watch

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 400  # those of the experiment, with its one checkpoint on the way
BARE = 100  # steps alone, before and after

flags.DEFINE_integer("rounds", 7, "Pairs of measurements; the median counts.")
FLAGS = flags.FLAGS


class Clock(NamedTuple):
    """A moment, or a difference of two."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def per(self, steps: int, since: "Clock") -> "Clock":
        """Seconds a step since another moment."""
        return Clock(*((a - b) / steps for a, b in zip(self, since, strict=True)))


class Stopwatch:
    """A listener that notes when each line of metrics was there."""

    def __init__(self):
        self.times: dict[int, Clock] = {}

    def update(self, *, step: int, **values: object) -> None:
        self.times[step] = Clock.now()

    def note(self, text: str) -> None: ...


def config() -> dict:
    """A point of the default experiment, tested at the end only."""
    path = ROOT / "experiments" / "attention_sweep.py"
    made = experiment_file.load(path, "").points[0].config
    made["train"] |= {"steps": STEPS, "eval_every": STEPS}
    return made


def bare(steps: StepTime) -> Clock:
    """Seconds of the compiled step alone."""
    began = Clock.now()
    steps.seconds(BARE)
    return Clock.now().per(BARE, began)


def whole(program: Program, config: dict, directory: pathlib.Path) -> Clock:
    """Seconds of a step of a point, from its first line of metrics to its last."""
    stopwatch = Stopwatch()
    loop.train(
        program,
        config,
        directory,
        {},
        progress=stopwatch,
        interruption=interruption.Interruption(),
    )
    first, last = min(stopwatch.times), max(stopwatch.times)
    return stopwatch.times[last].per(last - first, stopwatch.times[first])


def efficiency(rounds: int, watch: Watch) -> None:
    """Prints the ratio of `bare` to `whole`."""
    made = config()
    program = Program(made)
    steps = StepTime(program)
    bare(steps)
    numbers = itertools.count(1)
    with tempfile.TemporaryDirectory() as place:
        whole(program, made, pathlib.Path(place) / "warm")

        def pair() -> Clock:
            number = next(numbers)
            before = bare(steps)
            full = whole(program, made, pathlib.Path(place) / str(number))
            after = bare(steps)
            means = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
            found = Clock(*(a / b for a, b in zip(means, full, strict=True)))
            print(
                f"  round {number}: {found.wall:.3f}, in processor time"
                f" {found.processor:.3f} (bare step {1000 * means[0]:.1f} ms)",
                flush=True,
            )
            return found

        found, mark = watch.rounds(rounds, pair)
    for name in Clock._fields:
        ratios = [getattr(clock, name) for clock in found]
        print(
            f"loop over bare step, {name} time: {statistics.median(ratios):.3f}"
            f" (lowest {min(ratios):.3f}, highest {max(ratios):.3f}){mark}"
        )


def first_step(cache: pathlib.Path, directory: pathlib.Path) -> float:
    """Seconds from the command to the first line of metrics, after one step."""
    command = [
        sys.executable,
        str(ROOT / "launch.py"),
        "--only=none-0",
        f"--workdir={directory}",
        f"--compilation_cache={cache}",
        "--config.train.log_every=1",
    ]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    metrics = directory / "none-0" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None:
            raise SystemExit("the launch ended before its first step")
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    process.kill()
    process.wait()
    return seconds


def starts() -> tuple[float, float]:
    """Seconds to the first step with an empty and a full cache."""
    with tempfile.TemporaryDirectory() as place:
        cache = pathlib.Path(place) / "cache"
        cold = first_step(cache, pathlib.Path(place) / "a")
        return cold, first_step(cache, pathlib.Path(place) / "b")


def start(rounds: int, watch: Watch) -> None:
    """Prints the time to the first step with an empty and a full cache."""
    found, mark = watch.rounds(rounds, starts)
    cold, warm = zip(*found, strict=True)
    print(
        f"command to first step: {statistics.median(cold):.1f} s with an empty"
        f" compilation cache, {statistics.median(warm):.1f} s with a full one{mark}"
    )


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.ERROR)
    environment = machine.environment()
    print(
        f"{environment['processor']}, {os.cpu_count()} cores,"
        f" jax {environment['packages']['jax']}"
    )
    with Watch() as watch:
        efficiency(FLAGS.rounds, watch)
        start(max(1, FLAGS.rounds // 2), watch)


if __name__ == "__main__":
    app.run(main)
