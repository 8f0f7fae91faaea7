"""Rows that a command adds to those of an experiment file: --add=[NAME=]MODULE.

An added row has the points of the baseline, with the same seeds and whatever other
axes there are, and in them what the file's `row(spec, arg)` sets.
"""

import re
from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.train.sweep.override import literal, plain
from attn.train.sweep.python_file import PythonFile

Rows = list[tuple[dict[str, Any], dict[str, Any]]]


def rows(text: str, file: PythonFile, baseline: Mapping[str, Any], there: Rows) -> Rows:
    """The axes and changes of the points of one more row.

    Args:
        text: a module, by its name in the table or as "package.file:Class", or its
            name and settings as a dictionary; with a name for the row before it,
            "wide={'name': 'cbam', 'reduction': 2}". Without one the row is called
            as the module, or its class.
        file: the experiment.
        baseline: axes of the baseline, which has to have one axis.
        there: the rows that there are.

    Raises:
        Invalid: the text is of another form, the name is taken, or the file does not
            say what a row sets.
    """
    name, spec = parse(text)
    if not file.has("row"):
        raise settings.Invalid(
            f"{file.path} has no row(spec, arg) to say what a row added by --add sets"
        )
    if len(baseline) != 1:
        raise settings.Invalid(
            f"--add needs a BASELINE of one axis in {file.path}, got {dict(baseline)}"
        )
    ((axis, value),) = baseline.items()
    taken = [str(axes[axis]) for axes, _ in there if axis in axes]
    if name in taken:
        raise settings.Invalid(
            f"there is a row {axis}={name} already; give the added one another name,"
            f" --add=NAME={text.removeprefix(f'{name}=')}"
        )
    fields = plain_pairs(file.call("row", spec))
    return [
        ({**axes, axis: name}, {**changes, **fields})
        for axes, changes in there
        if axes.get(axis) == value
    ]


def parse(text: str) -> tuple[str, Any]:
    """The name of a row and its module, of "MODULE" or "NAME=MODULE".

    Raises:
        Invalid: it is neither.
    """
    name, module = re.fullmatch(r"(?:([\w.+-]+)=)?(.*)", text, re.S).groups()
    spec: Any = module.strip()
    if spec.startswith("{"):
        try:
            spec = literal(spec)
        except ValueError:
            spec = {}
    called = spec.get("name", "") if isinstance(spec, dict) else spec
    if not isinstance(called, str) or not re.fullmatch(r"[\w.]+(:\w+)?", called):
        raise settings.Invalid(
            "--add takes a module, or NAME=MODULE, such as squeeze_excite, mine="
            "package.file:Class or wide={'name': 'cbam', 'reduction': 2}, got"
            f" {text!r}"
        )
    return name or called.rpartition(":")[2], spec


def plain_pairs(pairs: Mapping[Any, Any]) -> dict[str, Any]:
    """Axes or changes, whose keys stay as they are, with values as plain data."""
    return {str(key): plain(value) for key, value in pairs.items()}
