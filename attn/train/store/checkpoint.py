"""Checkpoints: the one place that says orbax.

A checkpoint holds the state as NumPy arrays, without a device axis, so that
one made on eight devices restores on one. The last two and the best are kept: when
the latest turns out damaged, the one before it serves.
"""

import concurrent.futures
import errno
import json
import pathlib
import re
import shutil
import zlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from attn import settings
from attn.tasks.base import Direction
from attn.workdir import stores

KEPT = 2
# Errors of a machine that may read the same file later, by their names in `errno`.
PASSING = {"EMFILE", "ENFILE", "ENOMEM", "EIO", "EACCES", "ESTALE", "EINTR"}
FIGURE = "figure"  # under which the headline metric is kept, whatever its name


class Mismatch(settings.Invalid):
    """A checkpoint whose arrays are not those of the model at hand."""


def digest(tree: Any) -> int:
    """A checksum of names, types, shapes and bytes: it notices any damaged array."""
    value = 0
    for path, leaf in jax.tree.leaves_with_path(tree):
        head = f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}"
        value = zlib.crc32(head.encode(), value)
        value = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data, value)
    return value


class Checkpoints:
    """The checkpoints of one training, in a directory of its own.

    Writing goes on in the background and a checkpoint appears at once and whole;
    whatever a killed process left half-written is swept away at the next start.

    In an object store each checkpoint is one object: Orbax writes it into a local
    folder, from where it is put into the store, in the background as well.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        better: Direction = "lower",
        read_only: bool = False,
    ):
        """Opens a directory.

        Args:
            directory: of the training.
            better: which figure makes a checkpoint the best.
            read_only: whether to leave alone what another process writes.
        """
        self._directory = directory
        self._read_only = read_only
        self._manager: Any = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._putting: concurrent.futures.Future[None] | None = None
        if jax.process_index() > 0:  # all machines hold the same state: one writes
            return
        if stores.has(directory) and not read_only:
            self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._copy = stores.Copy(directory)
        folder = self._copy.folder.absolute()
        if not read_only:
            _drop_damaged_metrics(folder)
        alone: dict[str, Any] = {}
        if jax.process_count() > 1:
            folder.mkdir(parents=True, exist_ok=True)
            options = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="attn"
            )
            alone = {"multiprocessing_options": options, "create": False}
        self._manager = ocp.CheckpointManager(
            folder,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "notes": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                best_fn=_figure,
                best_mode="min" if better == "lower" else "max",
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(KEPT),
                        policies.BestN(
                            get_metric_fn=_figure,
                            reverse=better == "lower",
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                **alone,
            ),
        )

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, in order, on the first machine."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def best(self) -> int | None:
        """The step with the best figure among those kept, if any has one."""
        return self._manager.best_step() if self._manager else None

    def save(
        self, state: Any, *, notes: dict[str, Any], figure: float | None = None
    ) -> None:
        """Begins to write a state (NumPy arrays) under its own step number.

        Args:
            state: the state, with an attribute `step`; it must not change any more.
            notes: plain data to keep beside it.
            figure: the headline metric on the validation split at this step, by which
                the best one is kept; None if it was not evaluated.

        Raises:
            OSError: the disk is full; earlier checkpoints are kept.
        """
        step = int(state.step)
        self._put()
        if self._manager is None or step in self.steps():
            return
        tree = _plain(state)
        notes = notes | {"digest": digest(tree)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(tree), notes=ocp.args.JsonSave(notes)
            ),
            metrics=None if figure is None else {FIGURE: figure},
            force=True,
        )
        if self._pool:
            self._putting = self._pool.submit(self._push)

    def _push(self) -> None:
        self._manager.wait_until_finished()
        self._copy.push()

    def _put(self) -> None:
        """Waits until what was saved before is in the store; raises what went wrong."""
        if self._putting:
            putting, self._putting = self._putting, None
            putting.result()

    def restore(
        self, like: Any, step: int | None = None
    ) -> tuple[Any, dict[str, Any], list[str]] | None:
        """Reads the latest sound checkpoint, or that of `step`.

        Args:
            like: a state of the same structure, shapes and types; only these count.

        Returns:
            The state as NumPy arrays, the notes, and a line for each damaged
            checkpoint passed over. None where there is no checkpoint at all.

        Raises:
            Mismatch: the checkpoint is of another model; says what differs.
            settings.Invalid: there are checkpoints, but none is sound, or that of
                `step` is not.
            OSError, MemoryError: the machine could not read it; it may be sound.
        """
        steps = [step] if step is not None else self.steps()[::-1]
        damaged = []
        for candidate in steps:
            try:
                state, notes = self._read(like, candidate)
            except Mismatch:
                raise
            except Exception as error:  # orbax and tensorstore raise what they will
                if _passes(error):
                    raise
                reason = str(error).splitlines()[0][:120] if str(error) else repr(error)
                damaged.append(f"checkpoint {candidate} is damaged ({reason})")
                continue
            if (
                step is None and not self._read_only
            ):  # it would be in the way of its successor
                for passed in steps[: steps.index(candidate)]:
                    self._manager.delete(passed)
            return state, notes, damaged
        if damaged and step is not None:
            others = ", ".join(str(n) for n in self.steps() if n != step)
            raise settings.Invalid(
                f"{damaged[0]} in {self._directory} (others: {others or 'none'})"
            )
        if damaged:
            raise settings.Invalid(
                f"no sound checkpoint in {self._directory}: {'; '.join(damaged)};"
                " remove that directory to start over"
            )
        return None

    def arrays(self, step: str | None = None) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint of whatever model, by name.

        Args:
            step: of the checkpoint; None takes the last.

        Raises:
            Invalid: there is no such checkpoint, or it is damaged.
        """
        steps = self.steps()
        if not steps or step not in (None, *map(str, steps)):
            what = "checkpoint" if step is None else f"checkpoint {step}"
            raise settings.Invalid(f"{self._directory} has no {what}")
        chosen = steps[-1] if step is None else int(step)
        try:
            return self._restore(self._described(chosen), chosen)[0]
        except Exception as error:  # as in `restore`
            if _passes(error):
                raise
            raise settings.Invalid(
                f"checkpoint {chosen} in {self._directory} is damaged"
            ) from error

    def _read(self, like: Any, step: int) -> tuple[Any, dict[str, Any]]:
        expected = _plain(like)
        _compare(_shapes(self._described(step)), _shapes(expected), step)
        state, notes = self._restore(expected, step)
        leaves = [state[name] for name in expected]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), notes

    def _described(self, step: int) -> dict[str, Any]:
        """Shapes and types of the arrays of a checkpoint, by name."""
        found = self._manager.item_metadata(step).state
        if found is None:
            raise ValueError("its description is unreadable")
        return dict(found.items())

    def _restore(
        self, expected: dict[str, Any], step: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        abstract = {n: np.empty(a.shape, a.dtype) for n, a in expected.items()}
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore()
            ),
        )
        notes = dict(read.notes)
        if digest(read.state) != notes.pop("digest"):
            raise ValueError("its checksum does not match its contents")
        return read.state, notes

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints of later steps."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def wait(self) -> None:
        """Waits until everything begun is written; raises what went wrong."""
        self._put()
        if self._manager:
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        if self._manager is None:
            return
        try:
            self._put()
        finally:
            self._manager.close()
            self._copy.close()
            if self._pool:
                self._pool.shutdown()


def _drop_damaged_metrics(directory: pathlib.Path) -> None:
    """Orbax reads the metrics of all checkpoints at the start, and fails with any."""
    for path in directory.glob("*/metrics/metrics"):
        try:
            _figure(json.loads(path.read_text()))
        except (ValueError, AttributeError, TypeError):
            shutil.rmtree(path.parent)


def _figure(metrics: dict[str, float]) -> float:
    (value,) = metrics.values()
    return float(value)


def _passes(error: BaseException | None) -> bool:
    """Whether an error is of the machine at that time, and no damage to a file."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        found = errno.errorcode.get(number or 0, "")
        told = re.search(r"OS error \d+: (\w+)", str(error))  # by tensorstore
        names = {found, told[1] if told else ""}
        if isinstance(error, MemoryError) or PASSING & names:
            return True
        error = error.__cause__ or error.__context__
    return False


def _plain(state: Any) -> dict[str, Any]:
    """The leaves in one flat dictionary: what is on disk does not depend on classes."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def _shapes(tree: Any) -> dict[str, str]:
    return {
        name: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" for name, leaf in tree.items()
    }


def _compare(found: dict[str, str], expected: dict[str, str], step: int) -> None:
    names = sorted(found.keys() | expected.keys())
    wrong = [n for n in names if found.get(n) != expected.get(n)]
    if wrong:
        name = wrong[0]
        raise Mismatch(
            f"checkpoint {step} does not fit the config: {name} is"
            f" {found.get(name, 'absent')} in the checkpoint and"
            f" {expected.get(name, 'absent')} in the model"
            f" ({len(wrong)} of {len(names)} arrays differ)"
        )
