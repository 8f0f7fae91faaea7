"""With what and where a point was trained: versions, machine, code."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax

from attn.workdir import files

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


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
        "cores": _cores(),
    }


def note_start(directory: pathlib.Path, step: int) -> None:
    """Adds a start to a point's environment.json, a list with one for each.

    A point that was stopped and resumed may have run on several machines, with
    several versions of the code; the list has them all.

    Args:
        directory: of the point.
        step: from which it goes on.
    """
    path = directory / "environment.json"
    earlier = files.read_json(path) or []
    if isinstance(earlier, dict):  # a file of before there were lists
        earlier = [earlier]
    files.write_json(path, [*earlier, {**environment(), "step": step}])


def _cores() -> int | None:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.machine()
