"""The points of a sweep, trained here and by others that share its directory."""

import pathlib
from collections.abc import Iterator, Sequence

import jax

from attn import settings
from attn.train import partition
from attn.train.blocks import began_with
from attn.train.interruption import Interruption
from attn.train.progress import SweepProgress
from attn.train.store.tracking import Tracking
from attn.train.sweep import groups, plan
from attn.train.sweep.experiment_file import Experiment, Point
from attn.train.sweep.plan import Machines, Parallel
from attn.train.sweep.worker import RECORD, Worker
from attn.workdir import diff, files, machine
from attn.workdir.leases import SPAN, Leases


def check(points: Sequence[Point]) -> None:
    """Builds every point, without compiling or writing anything.

    Raises:
        Invalid: the first point that cannot be built, and why.
    """
    groups.shapes(points, "off", Machines.here())


def begin(
    experiment: Experiment, points: Sequence[Point], directory: pathlib.Path
) -> None:
    """Writes what a sweep is, once it is sure that the points can be built.

    Raises:
        Invalid: one cannot, or the directory cannot be used.
    """
    if jax.process_index() == 0:
        files.check(directory)
    check(points)
    if jax.process_index() == 0:
        describe(experiment, directory)


def run(
    experiment: Experiment,
    points: Sequence[Point],
    directory: pathlib.Path,
    *,
    progress: SweepProgress,
    interruption: Interruption,
    parallel: Parallel = "off",
    log_to: Sequence[str] = (),
    span: float = SPAN,
) -> dict[str, str]:
    """Trains the points that are not done yet, and resumes those begun.

    Other processes may do the same at the same time, as `Worker` says. A point that
    diverges does not keep the others from being trained, and is not begun again.

    Args:
        experiment: whose record the directory is.
        points: those to train.
        directory: the work directory of the sweep.
        progress: is told how it goes.
        interruption: asks it to stop.
        parallel: which points train side by side, as `plan.plan` says.
        log_to: tracking services that are told of the points, by name.
        span: as `Leases` has it.

    Returns:
        The points that diverged, and what there is to say about it.

    Raises:
        Invalid: a config that cannot be built or differs from the one under
            which the work directory was begun, or a directory that cannot be used.
        loop.Stopped, loop.Failed: as `loop.Training.train` says; what is done is kept.
    """
    machines = Machines.here()
    plan.check(parallel, machines)
    first = jax.process_index() == 0
    if first:
        files.check(directory)
        unchanged(experiment, points, directory)
        _at_work(points, directory)
    begun = [p.name for p in points if (directory / p.name / "checkpoints").exists()]
    begun = partition.broadcast_json(begun)
    shapes = groups.shapes(points, parallel, machines, begun)
    if first:
        describe(experiment, directory, points)
    worker = Worker(
        points,
        shapes,
        directory,
        progress=progress,
        interruption=interruption,
        parallel=parallel,
        tracking=Tracking(log_to, experiment.name),
        span=span,
    )
    return worker.run()


def unchanged(
    experiment: Experiment, points: Sequence[Point], directory: pathlib.Path
) -> None:
    """Raises settings.Invalid if a point was begun there under another config.

    That of another seed counts, too: the report takes the seeds of a row for trainings
    of one config. Where rows are tuned or matched, only those of `points` are.
    """
    whole = not (experiment.tune or experiment.match)
    known = [*points, *(experiment.points if whole else [])]
    for begun in _begun(directory):
        own = [point.config for point in known if point.name == begun.name]
        row = [
            {**point.config, "seed": begun.config["seed"]}
            for point in known
            if point.row == begun.row
        ]
        for config in [*own, *row][:1]:
            changes = diff.difference(begun.config, config)
            if changes:
                raise settings.Invalid(
                    f"workdir {directory} was begun with another config for"
                    f" {begun.name}: {changes}; name another --workdir, or remove this"
                    " one"
                )


def _begun(directory: pathlib.Path) -> Iterator[Point]:
    """The points of a directory that have a config there."""
    record = files.read_json(directory / RECORD) or {"points": []}
    for entry in record["points"]:
        config = files.read_json(directory / entry["name"] / "config.json")
        if config:
            yield Point(entry["name"], entry["axes"], config)


def _at_work(points: Sequence[Point], directory: pathlib.Path) -> None:
    """Raises settings.Invalid if others train points, which have another config."""
    record = files.read_json(directory / RECORD) or {"points": []}
    digests = {point["name"]: point.get("config") for point in record["points"]}
    if not _held(directory):
        return
    for point in points:
        if digests.get(point.name) not in (None, diff.digest(point.config)):
            raise settings.Invalid(
                f"{point.name} has another config than in the runs that are at work in"
                f" workdir {directory}; wait for their end, name another --workdir, or"
                " remove its .leases if there are none"
            )


def _held(directory: pathlib.Path) -> bool:
    """Whether a worker has a point."""
    seen = Leases(directory).seen().values()
    return not all(lease.free or lease.ended for lease in seen)


def describe(
    experiment: Experiment, directory: pathlib.Path, trained: Sequence[Point] = ()
) -> None:
    """Writes what the sweep is, keeping points of an earlier, other selection.

    Those are the ones begun, and while others are at work those that they will train.

    Args:
        experiment: the sweep.
        directory: of it.
        trained: those points whose configs are sure, and may be trained now.
    """
    files.make(directory)
    path = directory / RECORD
    old = files.read_json(path) or {"points": []}
    digests = {point["name"]: point.get("config") for point in old["points"]}
    digests |= {point.name: diff.digest(point.config) for point in trained}
    points = [
        {"name": p.name, "axes": p.axes, "config": digests.get(p.name)}
        for p in experiment.points
    ]
    names = {point["name"] for point in points}
    held = _held(directory)
    kept = [
        point
        for point in old["points"]
        if point["name"] not in names
        and ((directory / point["name"]).exists() or (held and point.get("config")))
    ]
    axes = list(dict.fromkeys(axis for p in experiment.points for axis in p.axes))
    files.write_json(
        path,
        {
            "name": experiment.name,
            "title": experiment.title,
            "description": experiment.description,
            "axes": axes,
            "baseline": experiment.baseline,
            "match": experiment.match,
            "published": experiment.published,
            "rope": experiment.rope,
            "blocks": began_with(old) or experiment.blocks,
            "code": old.get("code") or machine.commit(),
            "points": [*points, *kept],
        },
    )
    if experiment.matching is not None:
        files.write_json(directory / "match.json", experiment.matching)
