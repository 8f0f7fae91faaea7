"""Leases: which worker has which point of a sweep, in files that all workers see.

SWEEP/.leases/POINT.GENERATION says who trains a point: the one with the highest
generation. A worker takes a point by creating the file of the next generation, which
only one can; so nobody can take away a lease that is newer than the one that was seen
to be stale. The holder writes into its file every few seconds and never creates it
again: where the file is gone, or a later generation there, the lease is lost.

A lease is stale when an observer has seen its file unchanged for the span that stands
in it, by the observer's own monotonic clock: the clocks of machines need not agree. A
holder on the same machine whose process has ended need not be waited for. One that was
only paused finds out before it writes what others see, by `Lease.check`.
"""

import dataclasses
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from attn.workdir import files

FOLDER = ".leases"
SPAN = 60.0  # seconds without a sign of life after which a holder is given up
BEATS = 6  # signs of life in a span
SIZE = 2048  # bytes of a file: all are of one size, so that one write renews them


class Lost(Exception):
    """Another worker has taken over what this one held."""


@dataclasses.dataclass(frozen=True)
class Held:
    """What the newest file about a point says.

    Attributes:
        generation: of the file.
        content: of the file, as plain data; empty where its writer died writing.
    """

    generation: int
    content: Mapping[str, Any]

    @property
    def free(self) -> bool:
        """Whether its holder gave it up."""
        return bool(self.content.get("free"))

    @property
    def reason(self) -> str | None:
        """Why its holder could not go on; None where it could."""
        return self.content.get("reason")

    @property
    def ended(self) -> bool:
        """Whether the process of the holder, on this machine, is no more."""
        if not self.content or self.content.get("place") != place():
            return False
        return _started(self.content["pid"]) != self.content["started"]


class Leases:
    """The leases of a sweep as one worker sees and takes them; a context manager.

    Leaving the context gives up what is still held.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        facts: Mapping[str, Any] | None = None,
        *,
        span: float = SPAN,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Takes nothing yet.

        Args:
            directory: of the sweep.
            facts: about the worker, for those who read its leases.
            span: seconds without a sign of life after which others may take over.
            clock: that never goes back; of this process alone.
        """
        self._folder = directory / FOLDER
        self.span, self.clock = span, clock
        self.facts = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "place": place(),
            "started": _started(os.getpid()),
            "span": span,
            **(facts or {}),
        }
        self._seen: dict[str, tuple[bytes, float]] = {}  # file, content, since when
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._leave = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        files.make(self._folder)
        files.check_create(self._folder.parent)
        self._beating.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leave.set()
        self._beating.join()
        for lease in list(self._held.values()):
            lease.give_up()

    def seen(self) -> dict[str, Held]:
        """The newest file of each point that somebody has or had."""
        newest: dict[str, int] = {}
        for _, name, generation in self._listed():
            newest[name] = max(newest.get(name, 0), generation)
        found = {}
        for name, generation in newest.items():
            content = self._look(f"{name}.{generation}")
            if content is not None:
                found[name] = Held(generation, _parsed(content))
        return found

    def _listed(self) -> Iterator[tuple[str, str, int]]:
        """The files of leases, each with its point and generation."""
        for file in files.names(self._folder):
            name, _, number = file.rpartition(".")
            # systems leave others there, such as .DS_Store; no point begins with a dot
            if number.isdecimal() and not name.startswith("."):
                yield file, name, int(number)

    def _look(self, file: str) -> bytes | None:
        """The content of a file, noting since when it is as it is; None if gone."""
        try:
            content = (self._folder / file).read_bytes()
        except FileNotFoundError:
            return None
        if self._seen.get(file, (None, 0.0))[0] != content:
            self._seen[file] = content, self.clock()
        return content

    def may_take(self, name: str, held: Held | None) -> bool:
        """Whether nobody has the point, by what `seen` says of it."""
        if held is None or held.free or held.ended:
            return True
        if name in self._held:
            return False
        _, since = self._seen[f"{name}.{held.generation}"]
        return self.clock() - since > held.content.get("span", self.span)

    def take(self, name: str, held: Held | None = None) -> "Lease | None":
        """Takes a point that may be taken; None where another was faster.

        Args:
            name: of the point.
            held: what `seen` said of it.
        """
        generation = held.generation + 1 if held else 1
        path = self._folder / f"{name}.{generation}"
        lease = Lease(self, name, path)
        if not files.create(path, lease.content()):
            return None
        for file, point, older in self._listed():
            if point == name and older < generation:
                files.remove(self._folder / file)
        with self._lock:
            self._held[name] = lease
        return lease

    def forget(self, name: str) -> None:
        """Renews the lease of a point no longer."""
        with self._lock:
            self._held.pop(name, None)

    def _beat(self) -> None:
        while not self._leave.wait(self.span / BEATS):
            with self._lock:
                held = list(self._held.values())
            for lease in held:
                lease.renew()


class Lease:
    """One point, held until it is given up, is over or is lost."""

    def __init__(self, leases: Leases, name: str, path: pathlib.Path):
        """Belongs to `leases`, which renews it."""
        self._leases, self._name, self._path = leases, name, path
        self._next = path.with_name(f"{name}.{int(path.name.rpartition('.')[2]) + 1}")
        self._beats = 0
        self._lock = threading.Lock()
        self._renewed = leases.clock()
        self.notes: dict[str, Any] = {}  # how the training goes, for those who read
        self.lost = False

    def content(self) -> bytes:
        """What the file says now, always of one size."""
        data = {**self._leases.facts, "beat": self._beats, **self.notes}
        text = json.dumps(data, ensure_ascii=False)  # escaped, it might not fit
        return text.encode(errors="replace")[: SIZE - 1].ljust(SIZE - 1) + b"\n"

    def renew(self) -> None:
        """Gives a sign of life, unless the lease is lost."""
        with self._lock:
            self._beats += 1
            began = self._leases.clock()
            try:
                if not files.exists(self._next) and files.renew(
                    self._path, self.content()
                ):
                    self._renewed = began
                else:
                    self.lost = True
            except OSError:  # a file system that does not answer may do so again
                pass

    def check(self) -> None:
        """Makes sure, before something is written, that the point is still held.

        Raises:
            Lost: it is not.
        """
        if self._leases.clock() - self._renewed > self._leases.span / 2:
            self.renew()
        if self.lost:
            raise Lost(f"{self._name} was taken over by another worker")

    def over(self) -> None:
        """Ends it with the point: nobody needs to take it any more."""
        self._leases.forget(self._name)
        with self._lock:
            if not self.lost:
                files.remove(self._path)

    def give_up(self, reason: str | None = None) -> None:
        """Leaves the point to others.

        Args:
            reason: why it could not be trained, if it could not.
        """
        self._leases.forget(self._name)
        self.notes = {"free": True, "reason": reason and reason[:200]}
        self.renew()


def place() -> str:
    """This machine since it was started, and the processes that see each other.

    Host names may be the same on several; "" where the system does not tell.
    """
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process began, as the system counts; None if there is none."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        return json.loads(content)
    except ValueError:
        return {}
