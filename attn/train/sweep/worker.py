"""A worker: takes points of a sweep that nobody has and trains them, to the last.

Every run is a worker, and any number of them share a work directory. Each point is
held by a lease while it trains, see `attn.workdir.leases`; what a worker leaves that
was killed is taken over, and goes on from its last checkpoint. A worker first takes
points of the program that it has compiled, then those of programs that nobody is at.
It ends when no point is left, and so waits for those that others hold: it may have to
take them over.
"""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from attn import settings
from attn.train import loop, partition
from attn.train.interruption import Interruption
from attn.train.partition import Mode
from attn.train.progress import SweepProgress
from attn.train.store.tracking import Tracking
from attn.train.sweep import plan
from attn.train.sweep.experiment_file import Point
from attn.train.sweep.groups import Builder, Group
from attn.train.sweep.plan import Machines, Parallel, Shape
from attn.workdir import diff, files, machine
from attn.workdir.leases import SPAN, Held, Lease, Leases, Lost
from attn.workdir.standing import DIVERGED

RECORD = "experiment.json"
LOOK = 1.0  # seconds between two looks for what others leave


class Worker:
    """One process, or several that train together, among those that share a sweep."""

    def __init__(
        self,
        points: Sequence[Point],
        shapes: Sequence[Shape],
        directory: pathlib.Path,
        *,
        progress: SweepProgress,
        interruption: Interruption,
        parallel: Parallel = "off",
        tracking: Tracking | None = None,
        span: float = SPAN,
    ):
        """Takes the points of the sweep, with their shapes; see `local.run`.

        Args:
            points: those to train.
            shapes: of them.
            directory: of the sweep.
            progress, interruption, parallel: as `local.run` has them.
            tracking: the services that are told of the points.
            span: as `Leases` has it.
        """
        self._points, self._shapes, self._directory = points, shapes, directory
        self._progress, self._interruption = progress, interruption
        self._parallel, self._machines = parallel, Machines.here()
        self._tracking = tracking
        self._first = jax.process_index() == 0  # it alone knows of leases
        self._leases = Leases(directory, {"code": machine.commit()}, span=span)
        self._held: dict[int, Lease] = {}
        self._left = list(range(len(points)))
        self._lost: dict[str, str] = {}
        self._earlier: set[tuple[str, int]] = set()  # failures of before it began
        self._builder = Builder()
        self._step: Any = None  # of the points that it trained last

    def run(self) -> dict[str, str]:
        """Trains until no point is left.

        Returns:
            The points that diverged or failed, here or elsewhere, and why.

        Raises:
            loop.Stopped, loop.Failed, settings.Invalid: as `loop.Training.train` says.
        """
        if not self._first:
            return self._work()
        with self._leases:
            seen = self._leases.seen().items()
            self._earlier = {(n, h.generation) for n, h in seen if h.reason}
            self._left = [k for k in self._left if not self._over(k)]
            return self._work()

    def _work(self) -> dict[str, str]:
        self._tell_of_other_code()
        done = len(self._points) - partition.broadcast_json(len(self._left))
        if done:
            self._progress.note(
                f"{done} of {len(self._points)} points are done already"
            )
        waiting = False
        while True:
            found = partition.broadcast_json(self._take() if self._first else None)
            if found["taken"]:
                self._train(found["taken"], found["mode"])
                waiting = False
            elif not found["held"]:
                return partition.broadcast_json(self._lost)
            elif self._interruption.wait(LOOK):
                raise loop.Stopped("it waited for points that others train")
            elif not waiting:
                self._progress.note(f"waiting for others to train {found['held']}")
                waiting = True

    def _tell_of_other_code(self) -> None:
        began = (files.read_json(self._directory / RECORD) or {}).get("code")
        own = self._leases.facts["code"]
        if self._first and began and own and own != began:
            self._progress.note(
                f"the code is {own}, and was {began} when the sweep began: what it"
                " trains is marked"
            )

    def _take(self) -> dict[str, Any]:
        """Takes points that train together, if some are free; else says who is held."""
        seen = self._leases.seen()
        for k in list(self._left):
            held = seen.get(self._points[k].name)
            mark = held and (self._points[k].name, held.generation)
            if held and held.reason and mark not in self._earlier:
                self._left.remove(k)
                self._lost[self._points[k].name] = held.reason
        for piece, mode in self._pieces(seen):
            taken = [k for k in piece if self._takes(k, seen)]
            if taken:
                self._step = self._shapes[taken[0]].step
                mode = mode if len(taken) > 1 else None
                return {"taken": taken, "mode": mode, "held": ""}
        names = [self._points[k].name for k in self._left]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return {"taken": [], "mode": None, "held": ", ".join(names[:3]) + more}

    def _pieces(self, seen: Mapping[str, Held]) -> list[tuple[list[int], Mode | None]]:
        """What is free, cut into points that train together, the best to take first."""
        name = lambda k: self._points[k].name
        free = [
            k for k in self._left if self._leases.may_take(name(k), seen.get(name(k)))
        ]
        busy = {self._shapes[k].step for k in {*self._left} - {*free}}
        parts = plan.plan(
            [self._shapes[k] for k in free], self._parallel, self._machines
        )
        line: Iterator[int] = iter(free)
        pieces = [(list(itertools.islice(line, p.count)), p.mode) for p in parts]
        step = lambda piece: self._shapes[piece[0][0]].step
        return sorted(pieces, key=lambda p: (step(p) != self._step, step(p) in busy))

    def _takes(self, k: int, seen: Mapping[str, Held]) -> bool:
        """Whether it could take a point that is not over."""
        name = self._points[k].name
        self._must_be_as_recorded(k)
        lease = None if self._over(k) else self._leases.take(name, seen.get(name))
        if lease is not None and self._over(k):  # meanwhile, by its holder
            lease.over()
            lease = None
        if self._over(k):
            self._left.remove(k)
        elif lease is not None:
            self._held[k] = lease
        return lease is not None

    def _must_be_as_recorded(self, k: int) -> None:
        """Raises Invalid if a run that came later has another config for a point."""
        point = self._points[k]
        record = files.read_json(self._directory / RECORD) or {"points": []}
        digests = {entry["name"]: entry.get("config") for entry in record["points"]}
        if digests.get(point.name) not in (None, diff.digest(point.config)):
            raise settings.Invalid(
                f"workdir {self._directory} has meanwhile another config for"
                f" {point.name}; run the command again"
            )

    def _over(self, k: int) -> bool:
        """Whether a point is done or diverged, which is kept in mind.

        Raises:
            Invalid: its result cannot be read.
        """
        place, name = self._directory / self._points[k].name, self._points[k].name
        if files.read_json(place / "result.json") is not None:
            return True
        reason = files.read_json(place / DIVERGED)
        if reason is not None:
            self._lost[name] = reason
        return reason is not None

    def _train(self, taken: Sequence[int], mode: Mode | None) -> None:
        """Trains what was taken, and lets go of it whatever happens."""
        group = self._builder.group([self._points[k] for k in taken], mode)
        k, *others = (k + 1 for k in taken)
        self._progress.point(k, len(self._points), group.name, others)
        leases = [self._held.pop(k) for k in taken] if self._first else []
        try:
            self._trained(group, leases)
        except (loop.Stopped, loop.Failed):
            raise  # what is held is given up with the rest
        except Exception as error:
            lost = any(lease.lost for lease in leases)
            for lease in leases:
                lease.give_up(None if lost else f"{type(error).__name__}: {error}")
            if not lost:
                raise
            if self._machines.count > 1:  # the others go on with what is lost
                raise Lost(f"{group.name} was taken over by others") from error
            self._progress.note(f"{group.name} was taken over by another worker")
            return
        if self._first:
            self._left = [k for k in self._left if k not in taken]

    def _trained(self, group: Group, leases: Sequence[Lease]) -> None:
        def fence() -> None:
            for lease in leases:
                lease.check()

        runs = group.runs(self._directory, fence, self._tracking)
        told = _Told(self._progress, leases)
        loop.Training(
            group.program, runs, progress=told, interruption=self._interruption
        ).train()
        for point, run in zip(group.points, runs, strict=True):
            if run.result is None:
                self._lost[point.name] = str(run.diverged)
                said = f"{point.name} diverged: {run.diverged}"
                if self._first:
                    files.write_json(run.directory / DIVERGED, str(run.diverged))
            else:
                metric = group.program.task.metrics[0]
                said = (
                    f"{point.name}: test {metric.text(run.result['test'][metric.name])}"
                )
            self._progress.point_done(said)
        for lease in leases:
            lease.over()


class _Told:
    """A listener that also writes into leases how far a training is."""

    def __init__(self, progress: SweepProgress, leases: Sequence[Lease]):
        self._progress, self._leases = progress, leases
        self.note = progress.note

    def update(self, **values: Any) -> None:
        for lease in self._leases:
            kept = ("step", "steps", "seconds_left")
            lease.notes = {name: values[name] for name in kept}
        self._progress.update(**values)
