"""status: how the sweep in a work directory stands, once or until all is done."""

import pathlib
import time

from attn.report import standings
from attn.workdir import files, standing
from attn.workdir.standing import Standing

LOOK = 2.0  # seconds between two looks


def read(directory: pathlib.Path) -> list[Standing]:
    """The standing of the sweep, behind that of its trials if it has some.

    Raises:
        Invalid: there is no sweep in the directory.
    """
    trials = directory / standing.TRIALS
    places = [trials] if files.exists(trials / "experiment.json") else []
    return [standing.read(place) for place in [*places, directory]]


def show(directory: pathlib.Path, *, watch: bool) -> None:
    """Prints it; with `watch` it goes on until no point is left to be trained.

    Raises:
        Invalid: there is no sweep in the directory.
    """
    stands = read(directory)
    if watch:
        with standings.Watch() as shown:
            while any(s.training or s.begun or s.waiting for s in stands):
                shown.show(stands)
                time.sleep(LOOK)
                stands = read(directory)
    standings.show(stands)
