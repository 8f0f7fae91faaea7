"""Which array of a state dict becomes which variable of a model."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from attn.settings import Invalid

Path = tuple[str, ...]  # of a variable: ("params", "block0", "norm1", "scale")
FEW = 5  # names that an error lists


class Source(NamedTuple):
    """Where a variable comes from.

    Attributes:
        name: of the array.
        shapes: those that the array may have; errors name the first.
        make: makes the variable of the array, up to its type.
        cut: an axis along which the array may be longer, of which the first entries
            are taken, as of places that shorter texts do not have.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    make: Callable[[np.ndarray], np.ndarray]
    cut: int | None = None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array may have this shape."""
        if self.cut is not None and len(shape) == len(self.shapes[0]):
            shape = list(shape)
            shape[self.cut] = min(shape[self.cut], self.shapes[0][self.cut])
        return tuple(shape) in self.shapes

    def variable(self, array: np.ndarray, wanted: Any) -> np.ndarray:
        """The variable, of the shape and type wanted."""
        if self.cut is not None:
            array = np.take(array, range(self.shapes[0][self.cut]), self.cut)
        return self.make(array).reshape(wanted.shape).astype(wanted.dtype)


@dataclasses.dataclass(frozen=True)
class Fit:
    """The arrays that become the variables of a model.

    Attributes:
        found: by the path of the variable, its shape and type, and its source.
        new: by the name of a layer that starts anew, why it does.
        spare: names of layers whose arrays are left out.
        arrays: by name.
    """

    found: Mapping[Path, tuple[Any, Source]]
    new: Mapping[str, str]
    spare: Sequence[str]
    arrays: Mapping[str, Any]

    def variables(self) -> dict[Path, np.ndarray]:
        """The variables that have a source, in the types in which they are kept."""
        return {
            path: source.variable(np.asarray(self.arrays[source.name]), wanted)
            for path, (wanted, source) in self.found.items()
        }

    def note(self) -> str:
        """What is new and what is left out, "" where all fits."""
        said = [f"the layer {layer} is new: {why}" for layer, why in self.new.items()]
        if len(said) > FEW:
            first, rest = list(self.new)[:FEW], len(said) - FEW
            said = [f"new are the layers {', '.join(first)} and {rest} more"]
        if self.spare:
            said.append(f"left out: {', '.join(self.spare)}")
        return "; ".join(said)


def fit(
    wanted: Mapping[Path, Any],
    sources: Mapping[Path, Source],
    arrays: Mapping[str, Any],
    *,
    task_layers: Sequence[str] = (),
    new: Mapping[str, str] | None = None,
    spare: Sequence[str] = (),
) -> Fit:
    """Finds the source of every variable.

    Args:
        wanted: shapes and types of the variables of the model.
        sources: of each of them that is not of a layer in `new`.
        arrays: names to arrays, or to whatever has a shape and `numpy.asarray` takes.
        task_layers: names of the layers that may start anew, such as a classifier:
            where an array is missing or of another shape, the whole layer does.
        new: by the names of layers that start anew whatever there is, why they do.
        spare: names of layers, "head", whose arrays no variable has to use.

    Raises:
        Invalid: names that are missing or unknown, or an array of another shape; the
            message tells which.
    """
    new = dict(new or {})
    for path, source in sources.items():
        layer = path[1]
        if layer in task_layers and layer not in new:
            why = _fault(path, wanted[path], source, arrays)
            new |= {layer: why} if why else {}
    found = {
        path: (wanted[path], source)
        for path, source in sources.items()
        if path[1] not in new
    }
    used = {source.name for source in sources.values()}
    extra = arrays.keys() - used
    left = {layer: {n for n in extra if _belongs(n, layer)} for layer in spare}
    extra -= {name for names in left.values() for name in names}
    needed = {source.name for _, source in found.values()}
    _check_names(needed - arrays.keys(), extra)
    for path, (shape, source) in found.items():
        fault = _fault(path, shape, source, arrays)
        if fault:
            raise Invalid(fault)
    return Fit(found, new, [layer for layer in left if left[layer]], arrays)


def _belongs(name: str, layer: str) -> bool:
    """Whether "head.weight" or "head" is of the layer "head"."""
    return name == layer or name.startswith((f"{layer}.", f"{layer}/"))


def _fault(
    path: Path, wanted: Any, source: Source, arrays: Mapping[str, Any]
) -> str | None:
    """Why a source does not make a variable, if so."""
    if source.name not in arrays:
        return f"there is no {source.name}"
    shape = tuple(np.shape(arrays[source.name]))
    if source.fits(shape):
        return None
    return (
        f"{source.name} has shape {shape}, but {'/'.join(path[1:])} of this model, of"
        f" shape {tuple(wanted.shape)}, needs {source.shapes[0]}"
    )


def _check_names(missing: set[str], unknown: set[str]) -> None:
    faults = []
    for what, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            listed = ", ".join(sorted(names)[:FEW])
            more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
            faults.append(f"{what} {listed}{more}")
    if faults:
        raise Invalid(
            f"the state dict does not fit this model: it {'; it '.join(faults)}"
        )
