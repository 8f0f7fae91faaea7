"""Blocks of exact attention that are measured, once, and kept with what they made.

Another length of blocks rounds otherwise, so that a training that goes on elsewhere
must keep to those it began with. They are in the work directory, a file for each shape
of attention, and count for all points in it, whoever trains them; new shapes are
measured where they first appear. What was measured on a machine is kept beside its
compiled programs, too, for other work directories.
"""

import contextlib
import json
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax

from attn import settings
from attn.ops import dot_product
from attn.ops.dot_product import Case, Limits, measure
from attn.workdir import files, machine

Blocks = Literal["table", "measured"]
BLOCKS = ("table", "measured")
KEYS = ("processor", "cores", "platform", "device")  # what makes a machine another one
RECORD = "experiment.json"  # of the sweep, which says with which it was begun


@contextlib.contextmanager
def choose(
    how: Blocks,
    directory: pathlib.Path,
    cache: str,
    note: Callable[[str], None],
    *,
    keep: bool = True,
) -> Iterator[None]:
    """A context in which blocks are those of the table, or measured.

    A work directory keeps to those with which it was begun.

    Args:
        how: which they are.
        directory: the work directory.
        cache: where compiled programs are kept; "" for nowhere.
        note: is told what is measured.
        keep: whether the work directory gets what is measured, which has to be where
            something is trained in it.

    Raises:
        Invalid: they are to be measured in a work directory that was begun without, or
            by several processes that train together.
    """
    check_name(how)
    began = began_with(files.read_json(directory / RECORD) or {})
    if how == "measured" and began == "table":
        raise settings.Invalid(
            f"workdir {directory} was begun with the table's blocks; name another"
            " --workdir, or leave --blocks=measured out"
        )
    if (began or how) == "table":
        yield
        return
    if jax.process_count() > 1:
        raise settings.Invalid(
            f"--blocks=measured is for one process, and {jax.process_count()} train"
            " together"
        )
    if how == "table":
        note("blocks of attention are measured, as this sweep was begun")
    chosen = Chosen(directory / files.BLOCKS, _place(cache), note, keep=keep)
    with dot_product.limited(chosen):
        yield


def began_with(record: Mapping[str, Any]) -> Blocks | None:
    """With which blocks a sweep was begun, by its record; None where there is none."""
    return record.get("blocks", "table") if record.get("name") else None


def check_name(how: str) -> None:
    """Raises settings.Invalid for what is none of `BLOCKS`."""
    if how not in BLOCKS:
        raise settings.unknown("--blocks", how, BLOCKS)


class Chosen:
    """The limits of blocks by case: kept in a folder, or measured.

    With `keep` what is measured is put into the folder.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        cache: pathlib.Path | None,
        note: Callable[[str], None],
        *,
        keep: bool,
    ):
        self._folder, self._cache, self._note = folder, cache, note
        self._keep = keep
        self._known: dict[Case, Limits | None] = {}

    def __call__(self, case: Case) -> Limits | None:
        if case not in self._known:
            self._known[case] = self._find(case)
        return self._known[case]

    def _find(self, case: Case) -> Limits | None:
        if len(measure.candidates(case)) == 1:
            return None
        *shapes, one_sided = case
        name = "-".join(map(str, [*shapes, "one_sided" if one_sided else "all"]))
        path = self._folder / f"{name}.json"
        if not files.exists(path):
            found = self._measured(case, name)
            if not self._keep:
                return found
            files.make(self._folder)
            # others may have been faster; then theirs count
            files.create(path, (json.dumps(found._asdict()) + "\n").encode())
        return _read(path)

    def _measured(self, case: Case, name: str) -> Limits:
        """Of this machine."""
        kept = self._cache / f"{name}.json" if self._cache else None
        if kept is not None and kept.exists():
            return _read(kept)
        shape = f"{case.targets} x {case.sources}"
        self._note(f"measuring blocks of attention, {shape} ({name})")
        found = measure.fastest(case)
        if kept is not None:
            with contextlib.suppress(OSError):  # as of compiled programs
                files.make(kept.parent)
                files.write_json(kept, found._asdict())
        return found


def _read(path: pathlib.Path) -> Limits:
    found = files.read_json(path)
    try:
        limits = Limits(**found)
    except TypeError:
        limits = None
    if limits is None or not all(isinstance(n, int) and n > 0 for n in limits):
        raise settings.Invalid(
            f"{path} holds no limits of blocks: {found}; restore it, or remove it to"
            " measure them anew"
        )
    return limits


def _place(cache: str) -> pathlib.Path | None:
    """Where what this machine measures is kept."""
    if not cache or "://" in cache:
        return None
    here = machine.environment()
    known = {name: here[name] for name in KEYS} | {"jax": here["packages"]["jax"]}
    digest = zlib.crc32(json.dumps(known, sort_keys=True).encode())
    return files.local(cache).expanduser() / f"blocks-{digest:08x}"
