"""Files of a work directory: written whole or not at all, whoever else writes there.

The one door: paths come from `path`, and are those of a file system or of an object
store, see `attn.workdir.stores`. Both can be read and listed alike; writing is here.
"""

import contextlib
import io
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from attn import settings
from attn.workdir import stores

WORKERS = ".workers"  # the folder of what the workers of one command say
BLOCKS = ".blocks"  # the folder of blocks of attention that were measured
SHOWN = 15.0  # seconds after which lines appear in a store, where each time costs


def path(text: str | pathlib.Path) -> pathlib.Path:
    """The path that a command names, on a file system or in an object store.

    Raises:
        Invalid: an address of a kind of store that is not known, or whose package is
            missing.
    """
    if isinstance(text, str) and "://" in text:
        return stores.path(text)
    return pathlib.Path(text) if isinstance(text, str) else text


def local(text: str) -> pathlib.Path:
    """The path of a file that must be on a file system.

    Raises:
        Invalid: it is an address such as "gs://bucket/x", of which a path would make
            a local folder "gs:/bucket/x".
    """
    if "://" in text:
        raise settings.Invalid(
            f"{text} is in an object store, from where it is not read; name a copy"
        )
    return pathlib.Path(text)


def listed(text: str) -> list[pathlib.Path]:
    """The directories in "DIR,DIR,..."; a comma in the name of one does not part it.

    In an address of an object store it does.

    Raises:
        Invalid: as `path` says.
    """
    found, words = [], text.split(",")
    while words:
        count = len(words)
        while count > 1 and not _is_local_directory(",".join(words[:count])):
            count -= 1
        found.append(path(",".join(words[:count])))
        words = words[count:]
    return found


def _is_local_directory(text: str) -> bool:
    return "://" not in text and os.path.isdir(text)


def make(directory: pathlib.Path) -> None:
    """Makes a directory with those above it; in a store there are none."""
    if not stores.has(directory):
        directory.mkdir(parents=True, exist_ok=True)


def names(directory: pathlib.Path) -> list[str]:
    """What is in a directory; nothing where there is none."""
    if stores.has(directory):
        return stores.names(directory)
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def exists(path: pathlib.Path) -> bool:
    """Whether there is a file or a directory."""
    return stores.exists(path) if stores.has(path) else os.path.exists(path)


def written(path: pathlib.Path) -> float:
    """When a file was last written, by the clock of what it is kept by, in seconds."""
    return stores.written(path) if stores.has(path) else path.stat().st_mtime


def remove(path: pathlib.Path) -> None:
    """Removes a file, if it is there."""
    if stores.has(path):
        stores.remove(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: pathlib.Path, data: Any) -> None:
    """Writes a file that is there whole or not at all, whenever the process dies."""
    text = json.dumps(data, indent=2) + "\n"  # an error leaves no draft behind
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file as `write_json` does."""
    if stores.has(path):
        stores.put(path, content)
        return
    # the first process of every container has the same number
    draft = _draft(path, f"{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def save(path: pathlib.Path, content: bytes, name: str = "") -> pathlib.Path:
    """Writes a file that a user asked for, with its directory, and returns its path.

    Args:
        path: of the file, or of a directory that exists if it may be one.
        content: of the file.
        name: what it is called in such a directory, if it may be one.

    Raises:
        Invalid: it cannot be written.
    """
    with asked_for(path):
        inside = bool(name) and path.is_dir()
    path = path / name if inside else path
    with asked_for(path):
        make(path.parent)
        write_bytes(path, content)
    return path


@contextlib.contextmanager
def asked_for(path: pathlib.Path) -> Iterator[None]:
    """A context in which a file is written that a user asked for.

    Raises:
        Invalid: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or error  # of an object store there is only the error
        raise settings.Invalid(f"{path} cannot be written: {why}") from error


def create(path: pathlib.Path, content: bytes) -> bool:
    """Writes a file that is not there yet; whether this process was the one to do so.

    It is there whole or not at all. Only on a file system that knows no links may a
    process that dies meanwhile leave an empty one.
    """
    if stores.has(path):
        return stores.create(path, content)
    draft = _draft(path, f"{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        draft.write_bytes(content)
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:
        return _create_without_links(path, content)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _create_without_links(path: pathlib.Path, content: bytes) -> bool:
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)  # or others would take it for one of this process
        raise
    return True


def check_create(directory: pathlib.Path) -> None:
    """Whether `create` does what it says there.

    Raises:
        Invalid: it is in an object store that knows no conditions.
    """
    if stores.has(directory):
        stores.check_create(directory)


def renew(path: pathlib.Path, content: bytes) -> bool:
    """Writes new content of the same size into a file, if it is still there."""
    if stores.has(path):
        found = stores.exists(path)
        if found:
            stores.put(path, content)
        return found
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
    make(path.parent)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(path, content.getvalue())


def read_json(path: pathlib.Path) -> Any:
    """Reads a file that `write_json` wrote; None where there is none.

    Raises:
        Invalid: it holds something else, or nothing, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if stores.has(path):  # which may only be silent, see `stores.reaching`
            raise
        raise settings.Invalid(f"{path} cannot be read: {error.strerror}") from error
    try:
        return json.loads(content)
    except ValueError as error:
        what = f"is no JSON: {error}" if content else "is empty"
        raise settings.Invalid(
            f"{path} {what}; restore it, or remove it to begin this anew"
        ) from error


class Lines:
    """A file that grows by lines.

    In a store, where nothing grows, it is put whole: when it is synced or closed, and
    every few seconds for those who watch.
    """

    def __init__(self, path: pathlib.Path, keep: Callable[[bytes], bool]):
        """Goes on with a file.

        Args:
            path: of the file.
            keep: whether a line stays; a last one that a kill cut short does not.
        """
        self._path, self._file, self._put = path, None, time.monotonic()
        found = path.read_bytes() if exists(path) else b""
        lines = found.splitlines(keepends=True)
        self._content = b"".join(
            line for line in lines if line.endswith(b"\n") and keep(line)
        )
        self._changed = False
        if self._content != found:
            write_bytes(path, self._content)
        if not stores.has(path):
            self._content = b""  # it is in the file
            self._file = path.open("ab")

    def add(self, text: str) -> None:
        """Adds a line."""
        line = text.encode() + b"\n"
        if self._file:
            self._file.write(line)
            self._file.flush()
            return
        self._content, self._changed = self._content + line, True
        if time.monotonic() - self._put > SHOWN:
            self.sync()

    def sync(self) -> None:
        """Makes sure that what was added survives the machine."""
        if self._file:
            os.fsync(self._file.fileno())
        elif self._changed:
            stores.put(self._path, self._content)
            self._put, self._changed = time.monotonic(), False

    def close(self) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()
        else:
            self.sync()

    def discard(self) -> None:
        """Closes the file without what is not in a store yet: others write it now."""
        if self._file:
            self._file.close()


def check(directory: pathlib.Path) -> None:
    """Whether a sweep may be written there; writes nothing.

    Raises:
        Invalid: it is a file, cannot be written to, or holds something else.
    """
    if stores.has(directory):
        stores.check(directory)
    else:
        check_access(directory, "workdir")
    found = names(directory)
    # a process that died before it wrote what the sweep is leaves only these
    ours = _draft(directory / "experiment.json", "").name
    strange = [n for n in found if n not in (WORKERS, BLOCKS)]
    strange = [n for n in strange if not n.startswith(ours)]
    if strange and "experiment.json" not in found:
        raise settings.Invalid(
            f"workdir {directory} holds files that are no sweep's; name an empty or new"
            " directory, or that of an earlier sweep"
        )


def check_access(directory: pathlib.Path, what: str) -> None:
    """Whether files may be written into a local directory that is there or to come.

    Args:
        directory: anything if it is in an object store, which says so when written to.
        what: it is, for the message.

    Raises:
        Invalid: it is a file, or cannot be written to.
    """
    if stores.has(directory):
        return
    there = directory
    try:
        if directory.exists() and not directory.is_dir():
            raise settings.Invalid(f"{what} {directory} is a file; name a directory")
        while not there.exists():
            there = there.parent
        ours = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except PermissionError:  # a parent that may not even be searched
        ours = False
    except OSError as error:  # a name that is too long
        raise settings.Invalid(
            f"{what} {directory} cannot be written: {error.strerror}"
        ) from error
    if not ours:
        raise settings.Invalid(
            f"{what} {directory} cannot be written: no access to {there}"
        )
