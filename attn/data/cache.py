"""What takes seconds to make of data, kept on disk between processes.

It lies in $XDG_CACHE_HOME/attn/data, or ~/.cache/attn/data, under a digest of all that
it depends on. A file that is damaged is made anew, and where nothing can be written
everything is made each time.
"""

import contextlib
import hashlib
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable

SIZE = 32  # bytes of a digest


def kept(kind: str, key: Iterable[str | bytes], make: Callable[[], bytes]) -> bytes:
    """The bytes that `make` gives, from disk if they were made before.

    Args:
        kind: begins the name of the file.
        key: all that the bytes depend on, part by part.
        make: makes them.
    """
    path = directory() / f"{kind}-{digest(key)[:24]}"
    with contextlib.suppress(OSError):
        found = path.read_bytes()
        content = found[SIZE:]
        if found[:SIZE] == hashlib.sha256(content).digest():
            return content
    content = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
        draft.write_bytes(hashlib.sha256(content).digest() + content)
        draft.replace(path)  # whole or not at all, whoever else writes
    return content


def directory() -> pathlib.Path:
    """Where the files lie."""
    place = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(place) / "attn" / "data"


def digest(parts: Iterable[str | bytes]) -> str:
    """A digest of some parts, which depends on where each of them ends."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()
