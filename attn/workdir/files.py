"""Files of a work directory: written whole or not at all, by one process at a time."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from attn import settings


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes a file that is there whole or not at all, whenever the process dies."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w") as file:
        json.dump(data, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_json(path: pathlib.Path) -> Any:
    """Reads a file that `write_json` wrote; None where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def check(directory: pathlib.Path) -> None:
    """Whether a sweep may be written there; writes nothing.

    Raises:
        Invalid: it is a file, cannot be written to, or holds something else.
    """
    if directory.exists() and not directory.is_dir():
        raise settings.Invalid(f"workdir {directory} is a file; name a directory")
    there = directory
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise settings.Invalid(
            f"workdir {directory} cannot be written: no access to {there}"
        )
    known = directory / "experiment.json"
    if directory.exists() and any(directory.iterdir()) and not known.exists():
        raise settings.Invalid(
            f"workdir {directory} holds files that are no sweep's; name an empty or new"
            " directory, or that of an earlier sweep"
        )


@contextlib.contextmanager
def held(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from working in `directory` at the same time.

    Raises:
        Invalid: another process does already.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise settings.Invalid(
            f"workdir {directory} cannot be written: {error}"
        ) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise settings.Invalid(
                f"workdir {directory} is in use by another process; wait for it or"
                " name another directory"
            ) from None
        yield
