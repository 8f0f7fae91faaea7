"""The weights that a training starts with: of a file, or of another training."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from attn import interop, settings
from attn.interop.fitting import Fit, Path, Source
from attn.train import partition
from attn.train.step import KEPT
from attn.train.store.checkpoint import Checkpoints
from attn.workdir import files

# Of a published model that is a directory: one file, or the index of several.
FILES = ("model.safetensors", "model.safetensors.index.json")


class Weights:
    """What replaces initial variables, looked at when it is needed.

    Several machines get what the first one finds.
    """

    def __init__(
        self, path: str | None, model: nn.Module, variables: Mapping[str, Any]
    ):
        """Takes where they are, and reads nothing.

        Args:
            path: a safetensors file or an index of several, or a directory with one
                called as in FILES; the directory of a point, whose last checkpoint it
                is, or that of one checkpoint, "POINT/checkpoints/STEP": its average, if
                it has one. None replaces nothing. Those of a network by itself will
                do for a model that has it as its backbone, the rest of which is new.
            model: that starts with them.
            variables: shapes and types of its variables.

        Raises:
            settings.Invalid: the path is no text.
        """
        if not isinstance(path, str | None):
            raise settings.Invalid(f"weights must be the path of a file, got {path!r}")
        self._path, self._model, self._variables = path, model, variables

    def check(self) -> None:
        """Reads names and shapes, but no array where that can be helped.

        Raises:
            settings.Invalid: there is no such file or checkpoint, or it does not fit
                the model; the same on every machine.
        """
        if self._path is None:
            return
        said = None
        if jax.process_index() == 0:
            try:
                _ = self._fit
            except settings.Invalid as error:
                said = str(error)
        said = partition.broadcast_json(said)
        if said is not None:
            raise settings.Invalid(f"config.model.weights: {said}")

    def notes(self) -> list[str]:
        """What a training starts with, as a line for its user, if it is replaced."""
        if self._path is None:
            return []
        but = self._fit.note() if jax.process_index() == 0 else ""
        return [f"starts with the weights of {self._path}{but and '; '}{but}"]

    def read(self) -> dict[str, np.ndarray]:
        """The variables that are replaced, by their path, "params/embed/kernel".

        Raises:
            settings.Invalid: as `check` says.
        """
        if self._path is None:
            return {}
        self.check()
        first = jax.process_index() == 0
        found = self._fit.variables() if first else {}
        found = {"/".join(path): value for path, value in found.items()}
        names = partition.broadcast_json(list(found))
        if not first:
            wanted = traverse_util.flatten_dict(dict(self._variables), sep="/")
            found = {n: np.zeros(wanted[n].shape, wanted[n].dtype) for n in names}
        return partition.broadcast({name: found[name] for name in names})

    @functools.cached_property
    def _fit(self) -> Fit:
        place = files.path(self._path)
        if place.parent.name == "checkpoints" and place.name.isdigit():
            return self._of_run(place.parent, place.name)
        if (place / "checkpoints").is_dir():
            return self._of_run(place / "checkpoints", None)
        if place.is_dir():
            found = [place / name for name in FILES if (place / name).is_file()]
            if not found:
                raise settings.Invalid(
                    f"{place} has neither checkpoints nor {FILES[0]}"
                )
            place = found[0]
        place = files.local(str(place))
        return interop.fit(interop.read(place), self._model, self._variables)

    def _of_run(self, directory: pathlib.Path, step: str | None) -> Fit:
        checkpoints = Checkpoints(directory, read_only=True)
        try:
            arrays = _variables(checkpoints.arrays(step))
        finally:
            checkpoints.close()
        wanted = traverse_util.flatten_dict(dict(self._variables))
        if interop.backbone.fits(self._model, arrays):
            return interop.backbone.fit_variables(self._model, wanted, arrays)
        sources = {path: self._same(path, array) for path, array in wanted.items()}
        layers = getattr(self._model, "task_layers", ())
        spare = [f"params/{layer}" for layer in layers]
        return interop.fitting.fit(
            wanted, sources, arrays, task_layers=layers, spare=spare
        )

    def _same(self, path: Path, wanted: Any) -> Source:
        """The variable itself; vectors of places may be for longer texts."""
        placed = path[-1] == "position" and hasattr(self._model, "max_length")
        shape, same = tuple(wanted.shape), lambda array: array
        return Source("/".join(path), (shape,), same, cut=1 if placed else None)


def _variables(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables in a checkpoint, the average where there is one, by path.

    Without what the task keeps, which is no variable of the model.
    """
    of_average = any(name.startswith("average.") for name in arrays)
    plain, averaged = ("params.", "extras."), ("average.0.", "average.1.")
    params, extras = averaged if of_average else plain
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        for beginning, collection in ((params, "params."), (extras, "")):
            if name.startswith(beginning) and not name.startswith(f"extras.{KEPT}."):
                path = collection + name.removeprefix(beginning)
                found[path.replace(".", "/")] = array
    return found


def replaced(variables: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Variables, with those in their place that `Weights.read` gives."""
    flat = traverse_util.flatten_dict(dict(variables), keep_empty_nodes=True, sep="/")
    return traverse_util.unflatten_dict({**flat, **given}, sep="/")
