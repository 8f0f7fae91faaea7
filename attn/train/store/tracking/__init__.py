"""Tracking services, where a run can be watched beside its own files.

A point is one run of the service, whoever trains it and however often it is started:
its key stands in its directory. The report of a sweep is a run of its own.
"""

import dataclasses
import importlib
import json
import logging
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from attn import settings
from attn.workdir import files

SERVICES = ("wandb", "mlflow")  # each is a file beside this one
FILE = "tracking.json"
End = Literal["done", "diverged", "stopped"]
HEARD: set[str] = set()  # the services that have begun a run in this process

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # launch.py silences libraries


@dataclasses.dataclass(frozen=True)
class About:
    """What a service is told of a run when it begins or goes on.

    Attributes:
        group: the experiment that it belongs to.
        name: of the run, for people.
        key: the same whenever the run goes on; no other has it.
        config: of the run.
    """

    group: str
    name: str
    key: str
    config: Mapping[str, Any]


class Tracker(Protocol):
    """One run of a service."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values by step; those that it has already may come again."""

    def summarise(self, values: Mapping[str, float]) -> None:
        """Adds values of the whole run."""

    def attach(self, name: str, page: str) -> None:
        """Adds a page of HTML."""

    def close(self, end: End) -> None:
        """Ends the run, or leaves it to go on later."""


class Tracking:
    """The services that a command names, and the experiment that they hear of."""

    def __init__(self, names: Sequence[str] = (), group: str = ""):
        """Imports what the services need.

        Args:
            names: of services; none for no tracking.
            group: the experiment.

        Raises:
            Invalid: no such service, or its package is not installed.
        """
        self._group = group
        self._begin: dict[str, Callable[[About], Tracker]] = {}
        for name in names:
            check(name)
            module = importlib.import_module(f"{__name__}.{name}")
            module.check()
            self._begin[name] = module.begin

    def run(self, directory: pathlib.Path, config: Mapping[str, Any]) -> "Tracked":
        """The run of a directory in each service, begun or going on.

        A service that has begun runs before, and fails now, is left out with a warning.

        Raises:
            Invalid: a service does not want the first run of this process, such as for
                want of a login.
        """
        trackers: dict[str, Tracker] = {}
        for name, begin in self._begin.items():
            about = About(self._group, directory.name, _key(directory), config)
            try:
                trackers[name] = begin(about)
            except Exception as error:  # each package has its own
                if name not in HEARD:
                    raise settings.Invalid(f"--log_to={name}: {error}") from error
                log.warning(f"not logging {directory.name} to {name}: {error}")
            else:
                HEARD.add(name)
        return Tracked(trackers)

    def attach(self, directory: pathlib.Path, page: pathlib.Path) -> None:
        """Adds the report of a sweep; a service that fails is left out."""
        HEARD.update(self._begin)  # of the points, maybe by the workers of this process
        if self._begin:
            tracked = self.run(directory, {})
            tracked.attach(page.stem, page.read_bytes().decode())
            tracked.close("done")


class Tracked:
    """The runs of one directory; a service that fails is not asked again."""

    def __init__(self, trackers: dict[str, Tracker] | None = None):
        """Takes the run of each service, by its name."""
        self._trackers = trackers or {}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values by step, wherever there is a run."""
        self._each(lambda tracker: tracker.log(step, values))

    def summarise(self, values: Mapping[str, float]) -> None:
        """Adds values of the whole run."""
        self._each(lambda tracker: tracker.summarise(values))

    def attach(self, name: str, page: str) -> None:
        """Adds a page of HTML."""
        self._each(lambda tracker: tracker.attach(name, page))

    def close(self, end: End) -> None:
        """Ends the runs, or leaves them to go on later."""
        self._each(lambda tracker: tracker.close(end))
        self._trackers = {}

    def _each(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                what(tracker)
            except Exception as error:  # a training outlives its service
                del self._trackers[name]
                log.warning(f"no longer logging to {name}: {error}")


def check(name: str) -> None:
    """Raises settings.Invalid for the name of no service."""
    if name not in SERVICES:
        raise settings.unknown("service of --log_to", name, SERVICES)


def package(name: str, needs: str) -> Any:
    """The package of a service.

    Raises:
        Invalid: it is not installed.
    """
    try:
        module = importlib.import_module(name)
        module.__version__  # noqa: B018  a folder of that name is no package
    except (ImportError, AttributeError) as error:
        raise settings.Invalid(
            f"--log_to={name} needs {needs}: pip install {needs}"
        ) from error
    return module


def _key(directory: pathlib.Path) -> str:
    files.make(directory)
    path = directory / FILE
    files.create(path, json.dumps({"key": uuid.uuid4().hex}).encode())
    return files.read_json(path)["key"]
