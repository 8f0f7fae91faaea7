"""run: trains the points of an experiment, or shows what that would take."""

import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

from attn import report as reports
from attn.report import live
from attn.train import blocks, ending, interruption, loop, machines
from attn.train.budget import match
from attn.train.progress import Silence
from attn.train.store.tracking import Tracking
from attn.train.sweep import estimate, local, tuning
from attn.train.sweep.experiment_file import Experiment, Point
from attn.train.sweep.plan import Parallel
from attn.workdir import files, leases, stores, token


def train(
    experiment: Experiment,
    points: Sequence[Point],
    directory: pathlib.Path,
    *,
    parallel: Parallel,
    log_to: Sequence[str] = (),
    stop_on: Sequence[str] = interruption.SIGNALS,
    span: float = leases.SPAN,
    report: bool = True,
    cache: str = "",
) -> int:
    """Trains points, then shows and writes the report; returns the exit status.

    Args:
        experiment: of which they are.
        points: those that are chosen.
        directory: the work directory.
        parallel: which train side by side, as `plan.plan` says.
        log_to: tracking services that are told of the points, by name.
        stop_on: signals that ask it to save and to stop.
        span: seconds without a sign of life after which others take its points.
        report: whether to show it and to write it.
        cache: where compiled programs are kept, "" for nowhere.
    """
    tracking = Tracking(log_to, experiment.name)
    try:
        with (
            ending.together(),
            stores.reaching(directory),
            loop.roomy(directory),
            _listener() as progress,
            interruption.watch(stop_on) as asked,
            blocks.choose(experiment.blocks, directory, cache, progress.note),
        ):
            experiment, points = match.match(
                experiment, points, directory, progress=progress
            )
            lost = tuning.run(
                experiment,
                points,
                directory,
                progress=progress,
                interruption=asked,
                parallel=parallel,
                log_to=log_to,
                span=span,
            )
    except (loop.Stopped, leases.Lost, stores.Unreached) as stopped:
        print(f"stopped: {stopped}; run the same command to go on", file=sys.stderr)
        return ending.STOPPED
    except loop.Failed as failed:
        print(f"failed: {failed}", file=sys.stderr)
        return 1
    if report and machines.first():
        show(directory, tracking)
    for name, reason in lost.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return 1 if lost else 0


def show(directory: pathlib.Path, tracking: Tracking) -> None:
    """Shows the report of a work directory, and writes it there and to services."""
    reports.show([directory])
    page = reports.write([directory], directory / "report.html")
    print(f"report: {page}")
    tracking.attach(directory, page)


def plan(
    experiment: Experiment,
    points: Sequence[Point],
    directory: pathlib.Path,
    *,
    parallel: Parallel,
    cache: str,
    started: float,
) -> None:
    """Shows what a run would do, with a time from a rehearsal of each program.

    Args:
        experiment, points, directory, parallel, cache: as `train` has them.
        started: when the program was, by `time.perf_counter`.
    """
    with _listener() as progress:
        experiment, points = match.match(
            experiment, points, directory, progress=progress
        )
    tuning.unchanged(experiment, points, directory)
    seconds = time.perf_counter() - started  # a run starts and matches, too
    with (
        blocks.choose(experiment.blocks, directory, cache, progress.note, keep=False),
        tempfile.TemporaryDirectory() as place,
    ):
        sketch = files.local(place) / "sweep"
        rows, trained = estimate.rehearse(
            points,
            sketch,
            parallel=parallel,
            trials=len(experiment.tune),
            status=live.status,
        )
        began = time.perf_counter()
        local.describe(experiment, sketch)
        reports.write([sketch], sketch / "report.html")
        seconds += trained + time.perf_counter() - began
    if machines.first():
        live.plan(experiment.title, rows, seconds)


def directory(text: str, shared: str | None = None) -> pathlib.Path:
    """The work directory of that name.

    Args:
        text: the name.
        shared: the token that it must have, if it was told one.

    Raises:
        Invalid: there are files in it that are no sweep's, or it is another one than
            that of the token.
        Unreached: it is in a store that does not answer.
    """
    path = files.path(text)
    with ending.together(), stores.reaching(path):
        if machines.first():
            files.check(path)
            if shared is not None:
                token.check(path, shared)
    return path


def _listener() -> live.Progress | Silence:
    return live.Progress() if machines.first() else Silence()
