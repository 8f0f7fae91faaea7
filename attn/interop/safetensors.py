"""Files of arrays as safetensors has them: the one place that says so.

The header alone is read at first, and each array when `numpy.asarray` asks for it. A
large model may be several files, with an index of them in JSON.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import safetensors

from attn.settings import Invalid


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a file, which `numpy.asarray` reads.

    Attributes:
        file: the open file.
        name: of the array in it.
        shape: of the array.
    """

    file: Any
    name: str
    shape: tuple[int, ...]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # what is read is new
        return np.asarray(self.file.get_tensor(self.name), dtype)


def read(path: pathlib.Path) -> dict[str, Stored]:
    """The arrays of a file, or of the files of an index, by name.

    Args:
        path: a safetensors file, or an index of some, such as
            "model.safetensors.index.json", beside which they lie.

    Raises:
        Invalid: there is no such file, or it is something else; or an index names a
            file elsewhere, or an array that its file does not have.
    """
    if not path.is_file():
        raise Invalid(f"there is no file {path}")
    return _index(path) if path.suffix == ".json" else _file(path)


def _index(path: pathlib.Path) -> dict[str, Stored]:
    try:
        places = json.loads(path.read_bytes())["weight_map"]
        places = {str(name): str(file) for name, file in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(
            f"{path} is no index of safetensors files: it needs a 'weight_map' from"
            " names of arrays to files"
        ) from error
    files = {}
    for file in sorted(set(places.values())):
        if pathlib.PurePath(file).name != file:
            raise Invalid(f"{path} names {file!r}, which does not lie beside it")
        files[file] = read(path.with_name(file))
    for name, file in places.items():
        if name not in files[file]:
            raise Invalid(f"{path} names {name!r} in {file}, which does not have it")
    return {name: files[file][name] for name, file in places.items()}


def _file(path: pathlib.Path) -> dict[str, Stored]:
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
        raise Invalid(
            f"{path} is no safetensors file ({error}); PyTorch's own files become one"
            " by safetensors.torch.save_file"
        ) from error
    names = list(file.keys())
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    return {name: Stored(file, name, shape) for name, shape in shapes.items()}
