"""Starts of a point: the environments in which it was trained, one after another."""

from collections.abc import Iterable, Mapping
from typing import Any

# Names under which an environment may tell the version of the code.
CODE_KEYS = ("commit", "git_commit", "code_version", "code", "revision")
Start = Mapping[str, Any]


def kept(recorded: Any) -> tuple[Start, ...]:
    """The starts in a record, without those of which no step is left.

    A start says from which step it went on. Where the next one went on from the same
    step, all that it trained was lost. Older records are one start.
    """
    starts = recorded if isinstance(recorded, list) else [recorded]
    starts = [start for start in starts if isinstance(start, dict) and start]
    return tuple(
        start
        for start, later in zip(starts, [*starts[1:], {}], strict=False)
        if start.get("step") is None or start["step"] != later.get("step")
    )


def codes(starts: Iterable[Start]) -> tuple[str, ...]:
    """The versions of the code at some starts, in order, each once."""
    found = (str(s[key]) for s in starts for key in CODE_KEYS if s.get(key))
    return tuple(dict.fromkeys(found))
