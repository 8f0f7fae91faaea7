"""Launchers: each hands the command of a run to a scheduler.

The work directory is the queue; a launcher only starts workers, all with the same
command. Each is a dataclass of its settings with two methods: `render(command)`, what
the scheduler would get, and `submit(command)`, which hands it over and gives a status.
"""

import json
import pathlib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attn import settings
from attn.launchers.base import Command
from attn.launchers.ray import Ray
from attn.launchers.skypilot import Skypilot
from attn.launchers.slurm import Slurm
from attn.launchers.tpu import Tpu

__all__ = ["LAUNCHERS", "Command", "Launcher", "build"]


class Launcher(Protocol):
    """What hands a run to a scheduler.

    Attributes:
        shares: whether its machines see the files of this one.
    """

    shares: bool

    def render(self, command: Command) -> str:
        """What the scheduler would get, to be read by a person."""
        ...

    def submit(self, command: Command) -> int:
        """Hands it over; the exit status of `launch.py submit`."""
        ...


LAUNCHERS: Mapping[str, type[Launcher]] = {
    "ray": Ray,
    "skypilot": Skypilot,
    "slurm": Slurm,
    "tpu": Tpu,
}


def build(
    engine: str | None, file: pathlib.Path | None, given: Sequence[tuple[str, str]]
) -> Launcher:
    """The launcher of a file's [launch] section, over which flags go.

    Args:
        engine: its name; None for that of the section, `to`.
        file: in TOML, or None.
        given: fields and their values as texts.

    Raises:
        Invalid: no such engine or setting, a wrong value, or a file without section.
    """
    section = _section(file) if file else {}
    engine = engine or section.get("to")
    if engine is None:
        known = ", ".join(LAUNCHERS)
        raise settings.Invalid(f"submit needs --to=ENGINE (valid: {known})")
    if not isinstance(engine, str) or engine not in LAUNCHERS:
        raise settings.unknown("launcher", engine, LAUNCHERS)
    target = LAUNCHERS[engine]
    hints = typing.get_type_hints(target)
    values = {key: value for key, value in section.items() if key != "to"}
    values |= {key: _read(text, hints.get(key)) for key, text in given}
    return settings.build(target, "launcher", engine, values)


def _section(file: pathlib.Path) -> dict[str, Any]:
    try:
        section = tomllib.loads(file.read_text())["launch"]
    except OSError as error:
        raise settings.Invalid(f"{file} cannot be read: {error.strerror}") from error
    except KeyError:
        raise settings.Invalid(f"{file} has no section [launch]") from None
    except ValueError as error:
        raise settings.Invalid(f"{file} is no TOML: {error}") from error
    if not isinstance(section, dict):
        raise settings.Invalid(f"launch of {file} must be a section, got {section!r}")
    return section


def _read(text: str, hint: Any) -> Any:
    """The value that a flag names: a text stays one where the setting is a text."""
    if hint is str:
        return text
    if text.lower() == "none":
        return None
    try:
        return json.loads(text.lower())
    except ValueError:
        return text
