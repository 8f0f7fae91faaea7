"""run --workers=N: workers on this machine, each with its share of cores, or a GPU.

Each is a process of the same command, for every run is a worker; they share the points
by leases. This process starts them, shows how the sweep stands, and makes the report
in the end. The second and later ones start when the first has written what the sweep
is, so that what is measured once, such as widths of one latency, is measured by one.
"""

import contextlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence

from attn import settings
from attn.commands import run, status
from attn.report import standings
from attn.train import ending, interruption
from attn.train.store.tracking import Tracking
from attn.workdir import files, stores

LOOK = 1.0  # seconds between two looks
PROBE = "import jax; print(jax.default_backend(), jax.local_device_count())"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def train(
    command: Sequence[str],
    directory: pathlib.Path,
    count: int,
    *,
    tracking: Tracking,
    names: Collection[str] | None = None,
    stop_on: Sequence[str] = interruption.SIGNALS,
    report: bool = True,
) -> int:
    """Trains the points by several workers, then reports; returns the exit status.

    Their output goes to files in the work directory. The first signal asks all to save
    and stop, the second kills them.

    Args:
        command: of one worker, which makes no report.
        directory: the work directory.
        count: number of workers.
        tracking: services that get the report.
        names: of the points that are to be trained; None are all.
        stop_on: the signals that ask, which are passed on.
        report: whether to show it and to write it.

    Raises:
        Invalid: there are fewer GPUs than workers, or a worker says what is wrong.
    """
    places, before = _places(count), _described(directory)
    with _Group(command, directory, stop_on) as group, standings.Watch() as shown:
        group.start(*places[0])
        while group.running:
            if group.started < count and _described(directory) != before:
                for place in places[group.started :]:
                    group.start(*place)
            # a store may be silent for a while, which is no reason to end
            with contextlib.suppress(OSError, settings.Invalid):
                if (directory / "experiment.json").exists():
                    shown.show(status.read(directory))
            time.sleep(LOOK)
            for text in group.ended():
                shown.note(text)
    stopped = _stopped(group, directory)
    if stopped is not None:
        return stopped
    if report:
        run.show(directory, tracking)
    return _failures(group, directory, names)


def _described(directory: pathlib.Path) -> float | None:
    """When a worker last wrote what the sweep is, as each does before it takes points.

    None where none has.
    """
    path = directory / "experiment.json"
    return files.written(path) if files.exists(path) else None


def _stopped(group: "_Group", directory: pathlib.Path) -> int | None:
    """The exit status where there is nothing to report; None where there is.

    Raises:
        Invalid: a worker says what is wrong.
    """
    statuses = group.statuses
    wrong = [k for k, status in statuses.items() if status == 2]
    if wrong:
        raise settings.Invalid(group.last_line(wrong[0]).removeprefix("launch.py: "))
    if 1 in statuses.values() and _described(directory) is None:
        for k in statuses:
            print(f"{group.last_line(k)}; see {group.log(k)}", file=sys.stderr)
        return 1
    if not {0, 1} & {*statuses.values()}:
        if statuses and ending.STOPPED not in statuses.values():
            return 1
        print("stopped after saving; run the same command to go on", file=sys.stderr)
        return ending.STOPPED
    return None


def _failures(
    group: "_Group", directory: pathlib.Path, names: Collection[str] | None
) -> int:
    """Says which of some points failed, and returns the exit status."""
    statuses, failed = group.statuses, status.read(directory)[-1].failed
    said = [
        f"failed: {name}: {reason}"
        for name, reason in failed.items()
        if names is None or name in names
    ]
    if not said and 0 not in statuses.values():
        said = [group.last_line(k) for k, status in statuses.items() if status == 1]
    for text in said:
        print(text, file=sys.stderr)
    return 1 if said else 0


class _Group:
    """The workers of one command; a context manager, which leaves none behind.

    Attributes:
        statuses: exit statuses of those that have ended, by number.
        running: the others.
    """

    def __init__(
        self, command: Sequence[str], directory: pathlib.Path, stop_on: Sequence[str]
    ):
        self._command = command
        self._copy = stores.Copy(directory / files.WORKERS, fetch=False)
        self._folder = self._copy.folder
        self._signals = [interruption.signal_of(name) for name in stop_on]
        self._asked = 0
        self.statuses: dict[int, int] = {}
        self.running: dict[int, subprocess.Popen] = {}

    def __enter__(self) -> "_Group":
        files.make(self._folder)
        self._before = {n: signal.signal(n, self._ask) for n in self._signals}
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.running.values():
            worker.kill()
        self._copy.push()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        del frame
        self._asked += 1
        for worker in self.running.values():
            worker.send_signal(number if self._asked == 1 else signal.SIGKILL)

    @property
    def started(self) -> int:
        """How many were started."""
        return len(self.running) + len(self.statuses)

    def start(self, cores: set[int] | None, variables: dict[str, str]) -> None:
        """Starts one more on some cores, unless they were asked to stop."""
        if self._asked:
            return
        k = self.started + 1
        with self.log(k).open("w") as log, _on(cores), _held(self._signals):
            self.running[k] = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | variables,
                start_new_session=True,  # Ctrl-C is for this process to pass on
            )
        if self._asked:  # while it was started: it may have missed that
            worker = self.running.pop(k)
            worker.kill()
            worker.wait()

    def ended(self) -> list[str]:
        """What there is to say of workers that have ended since it was asked."""
        said = []
        for k, worker in list(self.running.items()):
            if worker.poll() is None:
                continue
            del self.running[k]
            self.statuses[k] = status = worker.returncode
            if status not in (0, 1, 2, ending.STOPPED):
                how = f"signal {-status}" if status < 0 else f"status {status}"
                said.append(f"worker {k} ended by {how}; see {self.log(k)}")
        return said

    def last_line(self, k: int) -> str:
        """What a worker said last."""
        lines = self.log(k).read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def log(self, k: int) -> pathlib.Path:
        """The file of what a worker says."""
        return self._folder / f"{k}.log"


def _places(count: int) -> list[tuple[set[int] | None, dict[str, str]]]:
    """The cores of each worker, and the variables that give it a GPU of its own."""
    command = [sys.executable, "-c", PROBE]
    probe = subprocess.run(command, capture_output=True, text=True)
    if probe.returncode:
        said = probe.stderr.strip().rpartition("\n")[-1]
        status = f"status {probe.returncode}"
        raise settings.Invalid(f"--workers finds no devices: {said or status}")
    platform, number = probe.stdout.split()[-2:]
    if platform not in ("cpu", "gpu"):
        raise settings.Invalid(
            f"--workers shares cores and GPUs; on a {platform}, --parallel=devices"
            " trains a point on each device"
        )
    if platform == "cpu":
        return [(cores, {}) for cores in _cores(count)]
    if count > int(number):
        raise settings.Invalid(
            f"--workers={count} needs a GPU for each worker, but there are {number}"
        )
    given = os.environ.get(VISIBLE)
    gpus = given.split(",") if given else [str(k) for k in range(int(number))]
    variables = [{VISIBLE: gpu} for gpu in gpus]
    return list(zip(_cores(count), variables[:count], strict=True))


def _cores(count: int) -> list[set[int] | None]:
    """The cores of this process, cut into shares; None where a system cannot say."""
    if not hasattr(os, "sched_getaffinity"):
        return [None] * count
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        return [{cores[k % len(cores)]} for k in range(count)]
    ends = [k * len(cores) // count for k in range(count + 1)]
    return [{*cores[a:b]} for a, b in itertools.pairwise(ends)]


@contextlib.contextmanager
def _held(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Blocks signals; a process started meanwhile keeps them blocked until it listens.

    While it imports its packages it might lose a Ctrl-C, for what Python raises then is
    ignored in a callback, and end by others without a word.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _on(cores: set[int] | None) -> Iterator[None]:
    """Keeps this thread on some cores, and what it starts meanwhile for good."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
