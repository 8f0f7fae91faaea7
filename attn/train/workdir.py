"""Work directories: the record of a sweep and of each of its points, on disk.

SWEEP/experiment.json      title, axes, baseline, the names of the points
SWEEP/match.json           widths by which points cost the same, if that was asked for
SWEEP/POINT/config.json    everything that decides the training
SWEEP/POINT/environment.json   versions, machine, code
SWEEP/POINT/metrics.jsonl  what was learnt; the same bytes however often killed
SWEEP/POINT/speed.jsonl    how fast
SWEEP/POINT/checkpoints/   the state, last and best
SWEEP/POINT/attention.npz  what the trained model looked at
SWEEP/POINT/looks/STEP.npz the same on the way, small, if train.look_every is set
SWEEP/POINT/gates.npz      its mean gates by class, if it has gates of channels
SWEEP/POINT/result.json    written last: a point that has it is done; the time that
                           points took together is divided among them
"""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


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


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted paths."""
    found = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two configs: "train.steps: 250 -> 500; ..."; "" if equal."""
    before, after = flat(old), flat(new)
    absent = object()
    show = lambda value: "absent" if value is absent else repr(value)
    return "; ".join(
        f"{name}: {show(before.get(name, absent))} -> {show(after.get(name, absent))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, absent) != after.get(name, absent)
    )


def check(directory: pathlib.Path) -> None:
    """Whether a sweep may be written there; writes nothing.

    Raises:
        ValueError: it is a file, cannot be written to, or holds something else.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"workdir {directory} is a file; name a directory")
    there = directory
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"workdir {directory} cannot be written: no access to {there}")
    known = directory / "experiment.json"
    if directory.exists() and any(directory.iterdir()) and not known.exists():
        raise ValueError(
            f"workdir {directory} holds files that are no sweep's; name an empty or new"
            " directory, or that of an earlier sweep"
        )


@contextlib.contextmanager
def held(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other processes from working in `directory` at the same time.

    Raises:
        ValueError: another process does already.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise ValueError(f"workdir {directory} cannot be written: {error}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"workdir {directory} is in use by another process; wait for it or"
                " name another directory"
            ) from None
        yield


def commit() -> str:
    """The commit of the code, with "+" if it was changed since; "" outside git."""
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]
    try:
        run = lambda *args: subprocess.run(
            [*git, *args], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = "+" if run("status", "--porcelain", "--untracked-files=no") else ""
        return run("rev-parse", "HEAD")[:12] + changed
    except (OSError, subprocess.CalledProcessError):
        return ""


def environment() -> dict[str, Any]:
    """With what and where a point was trained."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "hosts": jax.process_count(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.machine()
