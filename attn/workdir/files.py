"""Files of a work directory: written whole or not at all, whoever else writes there."""

import json
import os
import pathlib
from typing import Any

import numpy as np

from attn import settings

WORKERS = ".workers"  # the folder of what the workers of one command say


def local(text: str) -> pathlib.Path:
    """The path that a command names, on a file system.

    Raises:
        Invalid: it is an address such as "gs://bucket/x", of which a path would make
            a local folder "gs:/bucket/x".
    """
    if "://" in text:
        raise settings.Invalid(
            f"{text} is in an object store, where nothing can be written yet; name a"
            " local directory, such as one where the bucket is mounted"
        )
    return pathlib.Path(text)


def listed(text: str) -> list[pathlib.Path]:
    """The directories in "DIR,DIR,..."; a comma in the name of one does not part it.

    Raises:
        Invalid: as `local` says.
    """
    found, words = [], text.split(",")
    while words:
        count = len(words)
        while count > 1 and not local(",".join(words[:count])).is_dir():
            count -= 1
        found.append(local(",".join(words[:count])))
        words = words[count:]
    return found


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes a file that is there whole or not at all, whenever the process dies."""
    text = json.dumps(data, indent=2) + "\n"  # an error leaves no draft behind
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file as `write_json` does."""
    draft = _draft(path, str(os.getpid()))
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def create(path: pathlib.Path, content: bytes) -> bool:
    """Writes a file that is not there yet; whether this process was the one to do so.

    A process that dies meanwhile may leave an empty one.
    """
    try:
        with path.open("xb", buffering=0) as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def renew(path: pathlib.Path, content: bytes) -> bool:
    """Writes new content of the same size into a file, if it is still there."""
    try:
        with path.open("r+b", buffering=0) as file:
            file.write(content)
    except FileNotFoundError:
        return False
    return True


def _draft(path: pathlib.Path, end: str) -> pathlib.Path:
    return path.with_name(f".{path.name}.{end}")


def write_npz(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes arrays into a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    draft.replace(path)


def read_json(path: pathlib.Path) -> Any:
    """Reads a file that `write_json` wrote; None where there is none.

    Raises:
        Invalid: it holds something else, or nothing.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        what = f"is no JSON: {error}" if path.stat().st_size else "is empty"
        raise settings.Invalid(
            f"{path} {what}; restore it, or remove it to begin this anew"
        ) from error


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
    if known.exists() or not directory.exists():
        return
    # a process that died before it wrote what the sweep is leaves only these
    ours = {directory / WORKERS, *directory.glob(_draft(known, "*").name)}
    if set(directory.iterdir()) - ours:
        raise settings.Invalid(
            f"workdir {directory} holds files that are no sweep's; name an empty or new"
            " directory, or that of an earlier sweep"
        )
