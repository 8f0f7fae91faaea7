"""A storm: workers that share a sweep, killed over and over, lose nothing.

    python -m benchmarks.storm                     # 8 workers, 40 points, 200 kills
    python -m benchmarks.storm --workers=2 --points=4 --kills=6

The points are trained by one worker without a kill first, then by all in the storm:
they are killed (SIGKILL) at random moments, as soon as they have written a lease, and
while they write a checkpoint, in turn, and each that has ended is started again. In
the end every point must be done, with metrics, test and parameters equal in every bit
to those of the one worker, and no result may have been written twice.

A worker is forked from this process, which has imported all and has used no device, so
that the machine trains instead of importing.
"""

import collections
import contextlib
import json
import multiprocessing
import os
import pathlib
import random
import signal
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags, logging

from attn.commands import run
from attn.train.program import Program
from attn.train.store.checkpoint import Checkpoints
from attn.train.sweep.experiment_file import Experiment, Point
from attn.workdir import files
from attn.workdir.leases import FOLDER

WAIT = 5.0  # seconds at most for the moment of a kill; then it comes at once
SPAN = 6.0  # of a lease: also a worker that is only slow may lose its point
FORK = multiprocessing.get_context("fork")

flags.DEFINE_integer("workers", 8, "Workers at a time.", 1)
flags.DEFINE_integer("points", 40, "Points of the sweep.", 1)
flags.DEFINE_integer("kills", 200, "Workers that are killed.", 0)
flags.DEFINE_integer("seed", 0, "Of the choice of victims and moments.")
FLAGS = flags.FLAGS


def config(seed: int) -> dict:
    """A point: a small network, with many checkpoints for its few seconds."""
    return {
        "seed": seed,
        "data": {"name": "mnist_5k", "test": "test[:64]"},
        "model": {"name": "mlp", "widths": [16]},
        "task": {"name": "classification"},
        "optimizer": {"name": "adamw", "weight_decay": 0.01},
        "schedule": {"name": "cosine", "peak": 0.01, "warmup": 10},
        "train": {
            "steps": 600,
            "batch_size": 16,
            "log_every": 20,
            "eval_every": 200,
            "save_every": 20,
        },
    }


def train(experiment: Experiment, directory: pathlib.Path, cache: str) -> None:
    """What a worker does."""
    output = os.open(directory.with_suffix(".txt"), os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    how = {"parallel": "off", "span": SPAN, "report": False}
    os._exit(run.train(experiment, experiment.points, directory, **how))


class Storm:
    """Workers on one directory, and what is known of their ends.

    Attributes:
        counts: of kills by their moment, and of what the killed have left.
        written: which file each result was when it was first seen.
    """

    def __init__(self, experiment: Experiment, directory: pathlib.Path, cache: str):
        """Starts nothing yet."""
        self._arguments = (experiment, directory, cache)
        self._directory = directory
        self._workers: dict[int, multiprocessing.Process] = {}
        self._chance = random.Random(FLAGS.seed)
        self._leases: set[str] = set()
        self._left: set[pathlib.Path] = set()  # what was left half written
        self.counts: collections.Counter[str] = collections.Counter()
        self.written: dict[str, tuple[int, int]] = {}

    def start(self, count: int) -> None:
        """Starts workers until there are so many."""
        while len(self._workers) < count:
            worker = FORK.Process(target=train, args=self._arguments)
            worker.start()
            self._workers[worker.pid] = worker

    def kill(self, moment: Callable[[], int | None]) -> None:
        """Kills a worker at a moment, which names it once it has come."""
        until = time.monotonic() + WAIT
        victim = None
        while victim is None and time.monotonic() < until:
            victim = moment()
            self._reap()
        name = moment.__name__ if victim in self._workers else "random_moment"
        victim = victim if victim in self._workers else self.random_moment()
        if victim is None:
            return
        os.kill(victim, signal.SIGKILL)
        self._workers.pop(victim).join()
        self.counts["kills"] += 1
        self.counts[name] += 1
        self._note_left(victim)

    def random_moment(self) -> int | None:
        """Any worker, wherever it is."""
        time.sleep(self._chance.uniform(0, 0.3))
        return self._chance.choice([*self._workers]) if self._workers else None

    def lease(self) -> int | None:
        """The worker whose lease has just come; one without, if it says no name."""
        new = self._names() - self._leases
        self._leases |= new
        for name in new:
            return self._holder(name) or self.random_moment()
        return None

    def checkpoint(self) -> int | None:
        """A worker that writes a checkpoint."""
        for path in self._halves() - self._left:
            for name in self._names():
                pid = self._holder(name)
                if name.rpartition(".")[0] == path.parts[-3] and pid in self._workers:
                    return pid
        return None

    def wait(self) -> None:
        """Waits until the last has ended by itself."""
        while self._workers:
            self._reap()
            time.sleep(0.05)

    def _reap(self) -> None:
        for path in self._directory.glob("*/result.json"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat().st_ino, path.stat().st_mtime_ns
                self.written.setdefault(path.parent.name, found)
        for pid, worker in [*self._workers.items()]:
            if worker.exitcode is not None:
                self.counts[f"ended with status {worker.exitcode}"] += 1
                del self._workers[pid]

    def _names(self) -> set[str]:
        place = self._directory / FOLDER
        return {*os.listdir(place)} if place.is_dir() else set()

    def _holder(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self._directory / FOLDER / name).read_bytes())["pid"]
        return None

    def _halves(self) -> set[pathlib.Path]:
        return {*self._directory.glob("*/checkpoints/*tmp*")}

    def _note_left(self, pid: int) -> None:
        """Counts what a worker has left that was killed."""
        for name in self._names():
            holder = self._holder(name)
            file = self._directory / FOLDER / name
            if holder is None and file not in self._left and file.exists():
                self.counts["left half a lease"] += 1
                self._left.add(file)
            elif holder == pid:
                self.counts["left a lease"] += 1
                place = self._directory / name.rpartition(".")[0] / "checkpoints"
                new = {half for half in self._halves() if half.parent == place}
                self.counts["left half a checkpoint"] += bool(new - self._left)
        self._left |= self._halves()


def arrays(place: pathlib.Path) -> list[np.ndarray]:
    """The last checkpoint of a point."""
    program = Program(files.read_json(place / "config.json"), jax.devices()[:1])
    checkpoints = Checkpoints(place / "checkpoints", read_only=True)
    state, _, damaged = checkpoints.restore(program.abstract_state())
    checkpoints.close()
    assert not damaged, damaged
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def differences(point: str, want: pathlib.Path, found: pathlib.Path) -> list[str]:
    """What of a point is not equal in every bit; [] if all is."""
    tests = [
        json.loads((p / point / "result.json").read_text())["test"]
        for p in (want, found)
    ]
    lines = [(p / point / "metrics.jsonl").read_bytes() for p in (want, found)]
    states = [arrays(p / point) for p in (want, found)]
    same = {
        "test": tests[0] == tests[1],
        "metrics": lines[0] == lines[1],
        "parameters": all(map(np.array_equal, *states)),
    }
    return [f"{point}: {name}" for name, equal in same.items() if not equal]


def main(argv: list[str]) -> None:
    """Trains twice, and compares."""
    del argv
    logging.set_verbosity(logging.ERROR)
    points = [Point(f"seed{k}", {"seed": k}, config(k)) for k in range(FLAGS.points)]
    experiment = Experiment("storm", "A storm.", "", {}, points)
    with tempfile.TemporaryDirectory() as place:
        alone, shared = (pathlib.Path(place) / name for name in ("alone", "shared"))
        cache = os.path.join(place, "xla")
        for directory in (alone, shared):
            directory.with_suffix(".txt").touch()
        began = time.monotonic()
        calm = Storm(experiment, alone, cache)
        calm.start(1)
        calm.wait()
        print(f"one worker: {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        storm = Storm(experiment, shared, cache)
        moments = [storm.random_moment, storm.lease, storm.checkpoint]
        while storm.counts["kills"] < FLAGS.kills and len(storm.written) < FLAGS.points:
            storm.start(FLAGS.workers)
            storm.kill(moments[storm.counts["kills"] % 3])
        storm.start(FLAGS.workers)
        storm.wait()
        print(f"the storm: {time.monotonic() - began:.0f} s", flush=True)
        report(storm, points, alone, shared)


def report(
    storm: Storm, points: list[Point], alone: pathlib.Path, shared: pathlib.Path
) -> None:
    """Prints the counts, and fails if anything was lost, done twice or differs."""
    for name, count in sorted(storm.counts.items()):
        print(f"{count:6d}  {name}")
    done = [p.name for p in points if (shared / p.name / "result.json").exists()]
    unlike = [text for name in done for text in differences(name, alone, shared)]
    twice = [
        name
        for name, first in storm.written.items()
        if (found := (shared / name / "result.json").stat())
        and (found.st_ino, found.st_mtime_ns) != first
    ]
    left = os.listdir(shared / FOLDER)
    said = shared.with_suffix(".txt").read_text()
    taken = said.count("was taken over by another worker")
    print(
        f"{len(done)} of {len(points)} points done, {len(twice)} of them twice,"
        f" {len(unlike)} differences, {len(left)} leases left; {taken} points were"
        " taken from workers that were only slow"
    )
    if len(done) < len(points) or twice or unlike or left:
        raise SystemExit("\n".join([*twice, *unlike, *left, said[-2000:]]))


if __name__ == "__main__":
    app.run(main)
