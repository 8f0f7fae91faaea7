"""Checks the settings by which configs build modules and hosts, with clear errors."""

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

Positive = Annotated[int, "a positive int"]


class Invalid(ValueError):
    """A mistake in a config or a command, told in one sentence without a traceback."""


def unknown(kind: str, name: Any, valid: Iterable[str]) -> Invalid:
    """The error for a name that is not one of `valid`, with the nearest one first."""
    valid = list(valid)
    near = difflib.get_close_matches(str(name), valid, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return Invalid(f"unknown {kind} {name!r}{hint} (valid: {', '.join(valid)})")


def choose(table: Mapping[str, Any], kind: str, name: Any) -> Any:
    """The entry of `table` called `name`, or the attribute at "package.file:Name".

    Raises:
        ValueError: no such entry, or the path leads nowhere.
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
    """Calls the dataclass `target` with settings, once `check` finds them good."""
    check(target, kind, name, settings)
    return target(**settings)


def check(target: Any, kind: str, name: str, settings: Mapping[str, Any]) -> None:
    """Checks that the dataclass `target` has these settings, of the types it says.

    Raises:
        ValueError: a setting that `target` lacks, of another type, or missing.
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
            raise Invalid(
                f"setting {key!r} of {kind} {name!r} must be"
                f" {_describe(hints[key])}, got {value!r}"
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
        return hint.__metadata__[0]
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _fits(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`, as far as plain data can tell."""
    if hint == Positive:
        return _fits(value, int) and value > 0
    origin = typing.get_origin(hint)
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
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, types.NoneType):
        return isinstance(value, hint)
    return True
