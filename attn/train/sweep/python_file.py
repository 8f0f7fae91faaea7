"""An experiment file as Python: executed, its functions called, its errors located."""

import inspect
import pathlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

from attn import settings
from attn.workdir import files


class PythonFile:
    """A file that was executed, and the argument that its functions are given."""

    def __init__(self, path: pathlib.Path, arg: str):
        """Executes the file.

        Raises:
            Invalid: there is no such file, or an error in it.
        """
        self.path, self._arg = path, arg
        if not (files.exists(path) and path.is_file()):
            there = files.exists(path.parent)
            near = sorted(path.parent.glob("*.py")) if there else []
            names = [str(p) for p in near if p.stem not in ("__init__", "common")]
            raise settings.unknown("experiment file", str(path), names)
        self._module = self._located(lambda: _execute(path))
        if not self.has("get_config"):
            raise settings.Invalid(f"{path} has no get_config(arg)")

    @property
    def docstring(self) -> str:
        """The file's docstring; its name where it has none."""
        return (self._module.__doc__ or self.path.stem).strip()

    def has(self, name: str) -> bool:
        """Whether the file defines `name`."""
        return hasattr(self._module, name)

    def constant(self, name: str) -> Any:
        """The value of a name in the file; None where it has none."""
        return getattr(self._module, name, None)

    def call(self, name: str, *values: Any) -> Any:
        """What a function of the file returns; None where there is none.

        Args:
            name: of the function.
            values: what it is given before `arg`.

        Raises:
            Invalid: an error in it, with the line; or it takes no `arg`, and there
                is one.
        """
        function = self.constant(name)
        if function is None:
            return None
        if not _takes(function, len(values) + 1):
            if self._arg:
                message = f"{self.path}: {name} takes no argument, got {self._arg!r}"
                raise settings.Invalid(message)
            return self._located(lambda: _all(function(*values)))
        return self._located(lambda: _all(function(*values, self._arg)))

    def _located(self, function: Callable[[], Any]) -> Any:
        """Calls a function that runs what is in the file; errors name file and line."""
        try:
            return function()
        except settings.Invalid as error:
            raise settings.Invalid(f"{self.path}: {error}") from error
        except ValueError as error:
            if _line(self.path, error) is None or isinstance(error, UnicodeError):
                raise settings.Invalid(_where(self.path, error)) from error
            raise settings.Invalid(f"{self.path}: {error}") from error
        except Exception as error:
            raise settings.Invalid(_where(self.path, error)) from error


def _all(value: Any) -> Any:
    """What a generator yields, as a list: errors come while the file runs."""
    return list(value) if isinstance(value, Iterator) else value


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many arguments by position."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True


def _execute(path: pathlib.Path) -> types.ModuleType:
    """The module of a file; it stays registered, as dataclasses look theirs up."""
    module = types.ModuleType(f"experiment_file_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def _line(path: pathlib.Path, error: Exception) -> int | None:
    """The last line of the file that an error passed through; None for no line."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return lines[-1] if lines else None


def _where(path: pathlib.Path, error: Exception) -> str:
    line = _line(path, error)
    place = f"{path}, line {line}" if line else str(path)
    return f"{place}: {type(error).__name__}: {error}"
