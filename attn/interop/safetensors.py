"""Files of arrays as safetensors has them: the one place that says so.

The header alone is read at first, and each array when `numpy.asarray` asks for it.
"""

import dataclasses
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
    """The arrays of a file by name.

    Raises:
        Invalid: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise Invalid(f"there is no file {path}")
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
