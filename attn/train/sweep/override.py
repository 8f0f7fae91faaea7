"""Fields of a config by dotted path: set by a sweep, or from the command line."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from attn import settings
from attn.train.program import SECTIONS
from attn.workdir import diff


def plain(value: Any) -> Any:
    """Nested mappings and sequences as dicts and lists, dots in keys as levels.

    The numbers and arrays of NumPy become those of Python: a config is what a JSON
    file can hold.

    Raises:
        Invalid: a value that is no plain data, or not a number.
    """
    if hasattr(value, "to_dict"):  # a ConfigDict
        value = value.to_dict()
    if isinstance(value, Mapping):
        nested: dict[str, Any] = {}
        for key, item in value.items():
            assign(nested, str(key), item)
        return nested
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(value.tolist())
    if not isinstance(value, str | int | float | None) or value != value:
        raise settings.Invalid(
            "a config, axes and tables hold texts, numbers, None, lists and"
            f" dictionaries, got {value!r} of type {type(value).__name__}"
        )
    return value


def overlap(one: str, other: str) -> bool:
    """Whether a dotted path leads to a field, to one inside it, or around it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def assign(config: dict[str, Any], path: str, value: Any) -> None:
    """Sets the field at a dotted path, making the levels on the way."""
    *levels, last = path.split(".")
    for level in levels:
        inner = config.setdefault(level, {})
        if not isinstance(inner, dict):
            # an attention given by name alone gets settings
            inner = config[level] = {"name": inner}
        config = inner
    config[last] = plain(value)


def override(config: dict[str, Any], path: str, text: str) -> None:
    """Sets the field at a dotted path to what `text` says, in the field's own type.

    Raises:
        Invalid: the section does not exist, or the text is of another type.
    """
    value = text if isinstance(_current(config, path), str) else _literal(text)
    replace(config, path, value, shown=text)


def replace(
    config: dict[str, Any], path: str, value: Any, *, shown: Any = None
) -> None:
    """Sets the field at a dotted path to a value of the field's own type.

    Args:
        config: whose field it is.
        path: of the field.
        value: as plain data; an int may stand for a float.
        shown: what errors show in its place.

    Raises:
        Invalid: the section does not exist, or the value is of another type.
    """
    section, _, rest = path.partition(".")
    if section not in SECTIONS or bool(rest) == (section == "seed"):
        raise settings.unknown("field", f"config.{path}", sorted(_paths(config)))
    current = _current(config, path)
    if not _replaces(value, current):
        groups = {"list": "a tuple such as (1,2)", "dict": "a group of fields"}
        kind = groups.get(type(current).__name__, type(current).__name__)
        shown = value if shown is None else shown
        raise settings.Invalid(f"config.{path} must be {kind}, got {shown!r}")
    if isinstance(current, float) and isinstance(value, int):
        value = float(value)
    assign(config, path, value)


def _current(config: Mapping[str, Any], path: str) -> Any:
    """The value of the field at a dotted path; None where there is none."""
    current: Any = config
    for level in path.split("."):
        current = current.get(level) if isinstance(current, Mapping) else None
    return current


def _replaces(value: Any, current: Any) -> bool:
    """Whether a value may stand where another did; more is checked when it is used."""
    if value is None or current is None:
        return True
    if isinstance(current, dict):  # a group may be given by its name alone
        return isinstance(value, dict | str)
    if isinstance(current, list):
        return isinstance(value, list | tuple)
    if isinstance(current, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(current)


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return literal(text)
    except ValueError:
        return text


def literal(text: str) -> Any:
    """The value of a Python literal.

    Raises:
        ValueError: the text is none.
    """
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"{text!r:.80} is no literal") from error


def _paths(config: Mapping[str, Any]) -> Iterator[str]:
    return (f"config.{path}" for path in diff.flat(config))
