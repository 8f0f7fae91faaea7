"""Provenance of points: settings in which they differ, code, versions and machines."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from attn.report.read.results import Point
from attn.workdir import diff, files

TIME_KEYS = ("started", "time", "date", "when")
# Facts of an environment are shown apart from these, which every point has its own.
OWN_KEYS = (*TIME_KEYS, "step", "hostname", "pid", "argv", "command", "workdir")
# What decides how long a step takes, beside the code.
MACHINE_KEYS = (
    "platform",
    "device",
    "devices",
    "hosts",
    "processes",
    "processor",
    "cores",
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting in which groups of points differ, with its value by place of the group.

    A group without this setting is absent.
    """

    name: str
    values: Mapping[int, Any]


def varying(groups: Sequence[Sequence[Point]]) -> list[Setting]:
    """The settings in which groups of points differ.

    Those that differ within a group, as the seed does, are left out.
    """
    firsts = [diff.flat(first_config(points)) for points in groups]
    own = {
        name
        for points in groups
        for name in _differing([diff.flat(p.config) for p in points])
    }
    return [
        Setting(name, {i: f[name] for i, f in enumerate(firsts) if name in f})
        for name in _differing(firsts)
        # "slots": {} in some rows tells no more than the slots that others fill
        if name not in own and any(flat.get(name, {}) != {} for flat in firsts)
    ]


def first_config(points: Sequence[Point]) -> Mapping[str, Any]:
    """The config of the first of some points that has one."""
    return next((point.config for point in points if point.config), {})


def common(points: Sequence[Point]) -> dict[str, Any]:
    """The settings that all points share, by dotted path."""
    flats = [diff.flat(point.config) for point in points if point.config]
    if not flats:
        return {}
    differ = set(_differing(flats))
    return {name: value for name, value in flats[0].items() if name not in differ}


def _differing(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    flats = [flat for flat in flats if flat]
    names = dict.fromkeys(name for flat in flats for name in flat)
    absent = object()
    return [
        name
        for name in names
        if any(flat.get(name, absent) != flats[0].get(name, absent) for flat in flats)
    ]


def facts(point: Point) -> dict[str, list[Any]]:
    """Facts of a point by dotted path: the values at its starts, without repeats.

    What each point has its own, such as the time, is left out.
    """
    flats = [diff.flat(start) for start in point.starts]
    found: dict[str, list[Any]] = {}
    for flat in flats:
        for name, value in flat.items():
            values = found.setdefault(name, [])
            if name not in OWN_KEYS and value not in values:
                values.append(value)
    return {name: values for name, values in found.items() if values}


def machines(points: Sequence[Point]) -> list[Mapping[str, Any]]:
    """The machines on which some points ran, each once."""
    found: list[Mapping[str, Any]] = []
    for point in points:
        for start in point.starts:
            named = {n.rpartition(".")[2]: v for n, v in diff.flat(start).items()}
            machine = {name: named[name] for name in MACHINE_KEYS if name in named}
            if machine and machine not in found:
                found.append(machine)
    return found


def comparable(points: Sequence[Point]) -> bool:
    """Whether times of some points can be compared: they ran on like machines."""
    return len(machines(points)) < 2


def when(points: Sequence[Point]) -> str | None:
    """The first start of a point: as its environment tells, else from its file."""
    for point in points:
        for start in point.starts[:1]:
            time = next((start[k] for k in TIME_KEYS if k in start), None)
            if isinstance(time, str):
                zone = " UTC" if time.endswith(("+00:00", "Z")) else ""
                return time.replace("T", " ")[:16] + zone
        path = point.directory / "environment.json"
        if path.is_file():
            time = datetime.datetime.fromtimestamp(files.written(path))
            return time.strftime("%Y-%m-%d %H:%M")
    return None
