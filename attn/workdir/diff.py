"""Configs by dotted paths, and what differs between two."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config by dotted paths."""
    found = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def digest(config: Mapping[str, Any]) -> str:
    """What differs where configs differ, in few characters."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two configs: "train.steps: 250 -> 500; ..."; "" if equal."""
    before, after = flat(old), flat(new)
    absent = object()

    def show(value: Any) -> str:
        return "absent" if value is absent else repr(value)

    return "; ".join(
        f"{name}: {show(before.get(name, absent))} -> {show(after.get(name, absent))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, absent) != after.get(name, absent)
    )
