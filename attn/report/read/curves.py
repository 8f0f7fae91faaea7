"""Curves logged during training, one for each quantity on each split."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from attn.report.read import metrics

LOSS = "loss"
TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Curve:
    """One quantity on one split: steps and values, each [T]."""

    steps: np.ndarray
    values: np.ndarray


def read(path: pathlib.Path) -> dict[str, dict[str, Curve]]:
    """The curves by split and name, none without the file.

    Of two lines for one step the later one counts.
    """
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return {}
    lines: dict[str, dict[int, dict[str, float]]] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            step, split = int(entry.pop("step")), entry.pop("split")
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # the line that was being written when the run was killed
        values = {name: metrics.number(value) for name, value in entry.items()}
        lines.setdefault(split, {})[step] = values
    return {split: _by_name(lines[split]) for split in SPLITS if split in lines}


def _by_name(lines: Mapping[int, Mapping[str, float]]) -> dict[str, Curve]:
    """The curves of one split; a quantity may be logged at some of the steps only."""
    found: dict[str, dict[int, float]] = {}
    for step in sorted(lines):
        for name, value in lines[step].items():
            found.setdefault(name, {})[step] = value
    return {
        name: Curve(np.array(list(values)), np.array(list(values.values())))
        for name, values in found.items()
    }
