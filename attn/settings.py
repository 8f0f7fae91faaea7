"""Settings by which configs build modules and models, checked with clear errors."""

import collections.abc
import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import numpy as np


class Invalid(ValueError):
    """A mistake in a config or a command; the launcher shows it as one line.

    Whatever a config can cause is one of these, as early as it can be known. Any
    other error is one of the program, or of a user's module, and keeps its trace.
    """


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers, as in `Annotated[float, Range("at least 0", 0)]`.

    Infinities and NaN lie in none.

    Attributes:
        text: what it is called in errors, after "must be".
        low, high: its ends.
        open: whether the ends themselves are left out: "low", "high", "both" or "".
    """

    text: str
    low: float = -math.inf
    high: float = math.inf
    open: str = ""

    def __contains__(self, number: float) -> bool:
        low = self.low < number or (number == self.low and self.open in ("", "high"))
        high = number < self.high or (number == self.high and self.open in ("", "low"))
        return low and high and math.isfinite(number)


Positive = Annotated[int, Range("a positive int", 1)]
Count = Annotated[int, Range("an int of at least 0", 0)]
PositiveFloat = Annotated[float, Range("a positive number", 0, open="low")]
NotNegative = Annotated[float, Range("a number of at least 0", 0)]
# The decay of a moving average, or a share that must leave something.
Decay = Annotated[float, Range("a number in [0, 1)", 0, 1, open="high")]


def unknown(kind: str, name: Any, valid: Iterable[str]) -> Invalid:
    """The error for a name that is not one of `valid`, with the nearest one first."""
    valid = list(valid)
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return Invalid(f"unknown {kind} {name!r}{hint} (valid: {', '.join(valid)})")


def choose(table: Mapping[str, Any], kind: str, name: Any) -> Any:
    """The entry of `table` called `name`, or the attribute at "package.file:Name".

    Raises:
        Invalid: no such entry, or the path leads nowhere.
    """
    if isinstance(name, str) and ":" in name:
        path, _, attribute = name.partition(":")
        try:
            target = getattr(importlib.import_module(path), attribute)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise Invalid(f"cannot import {kind} {name!r}: {error}") from error
        if not dataclasses.is_dataclass(target):
            raise Invalid(f"{kind} {name!r} is no module or dataclass")
        return target
    if not isinstance(name, str) or name not in table:
        raise unknown(kind, name, table)
    return table[name]


def build(target: Any, kind: str, name: str, settings: Mapping[str, Any]) -> Any:
    """Calls the dataclass `target` with settings, once `check` finds them good.

    Numbers of NumPy, as loops over its arrays give them, are taken as Python's.
    """
    settings = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in settings.items()
    }
    check(target, kind, name, settings)
    return target(**settings)


def check(target: Any, kind: str, name: str, settings: Mapping[str, Any]) -> None:
    """Checks that the dataclass `target` has these settings, of the types it says.

    Raises:
        Invalid: a setting that `target` lacks, of another type, or missing.
    """
    fields = {
        field.name: field
        for field in dataclasses.fields(target)
        if field.init and field.name not in ("parent", "name")
    }
    hints = typing.get_type_hints(target, include_extras=True)
    for key, value in settings.items():
        if key not in fields:
            raise unknown(f"setting of {kind} {name!r}", key, fields)
        if not _fits(value, hints[key]):
            endless = isinstance(value, float) and not math.isfinite(value)
            raise Invalid(
                f"setting {key!r} of {kind} {name!r} must be"
                f" {_describe(hints[key])}{' and finite' * endless}, got {value!r}"
            )
    for key, field in fields.items():
        required = (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )
        if required and key not in settings:
            raise Invalid(f"{kind} {name!r} needs the setting {key!r}")


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, typing.get_args(hint)))
    if hint is types.NoneType:
        return "None"
    if typing.get_origin(hint) is Annotated:
        kind, *limits = typing.get_args(hint)
        texts = [limit.text for limit in limits if isinstance(limit, Range)]
        return " and ".join(texts) or _describe(kind)
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is collections.abc.Mapping:
        inner = typing.get_args(hint)[1]
        return "a mapping" if inner is Any else f"names, each with {_describe(inner)}"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`, as far as plain data can tell."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        kind, *limits = typing.get_args(hint)
        ranges = [limit for limit in limits if isinstance(limit, Range)]
        return _fits(value, kind) and all(value in limit for limit in ranges)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            return False
        if inner[-1:] == (Ellipsis,):
            return all(_fits(item, inner[0]) for item in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is collections.abc.Mapping:
        named, inner = typing.get_args(hint)
        # a ConfigDict is no collections Mapping
        if not hasattr(value, "items"):
            return False
        return all(_fits(k, named) and _fits(v, inner) for k, v in value.items())
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, types.NoneType):
        return isinstance(value, hint)
    return True
