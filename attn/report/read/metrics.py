"""Metrics as records describe them: label, unit, decimals, and which way is better."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

SHARE, CORPUS = "share", "corpus"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number by which points are judged.

    Attributes:
        name: in records and curves.
        label: in tables, without the split.
        unit: such as "%" or "dB"; "" if it has none.
        better: "lower" or "higher"; "" where neither is, as of some measures.
        digits: decimals that are shown.
        kind: "share", a percentage of examples; "mean" over examples; or "corpus", a
            score of a whole split.
        note: what must be known to compare it with other figures.
    """

    name: str
    label: str
    unit: str = ""
    better: str = "lower"
    digits: int = 2
    kind: str = "mean"
    note: str = ""

    @property
    def head(self) -> str:
        """Label and unit, such as "error, %"."""
        return head(self.label, self.unit)

    @property
    def difference_unit(self) -> str:
        """Unit of a difference: percentages differ by points."""
        return "points" if self.unit == "%" else self.unit

    @property
    def kept(self) -> int:
        """Decimals that a file of results keeps."""
        return self.digits + 2

    def rank(self, value: float) -> float:
        """A number that is the lower, the better `value` is."""
        return -value if self.better == "higher" else value


def head(label: str, unit: str) -> str:
    """A heading with its unit behind a comma, if it has one."""
    return f"{label}, {unit}" if unit else label


# Records had one metric before they described theirs.
ERROR = Metric("error", "error", "%", "lower", 2, SHARE)
UNKNOWN = Metric("", "result")


def described(entries: Any) -> tuple[Metric, ...]:
    """The metrics of a record's list; entries without a name are left out."""
    if not isinstance(entries, list):
        return ()
    return tuple(
        _metric(entry)
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    )


def _metric(entry: Mapping[str, Any]) -> Metric:
    """A metric with what its entry tells of it, and defaults for the rest."""
    plain = Metric(entry["name"], entry["name"])
    usable = {
        name: entry[name]
        for name, default in dataclasses.asdict(plain).items()
        if type(entry.get(name)) is type(default)
    }
    if entry.get("better", plain.better) is None:  # neither way is
        usable["better"] = ""
    return dataclasses.replace(plain, **usable)


def values(entries: Any) -> dict[str, Any]:
    """The values by name in a record's list of measures, each with its own."""
    if not isinstance(entries, list):
        return {}
    return {e.get("name"): e.get("value") for e in entries if isinstance(e, dict)}


def union(parts: Iterable[Iterable[Metric]]) -> tuple[Metric, ...]:
    """All metrics of some records, each name once, in order."""
    found: dict[str, Metric] = {}
    for metrics in parts:
        for metric in metrics:
            found.setdefault(metric.name, metric)
    return tuple(found.values())


def number(value: Any) -> float:
    """`value` if it is a number, else NaN."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if real else math.nan


def finite(values: Any, metrics: Iterable[Metric]) -> dict[str, float]:
    """The finite values of some metrics in a record's object."""
    if not isinstance(values, dict):
        return {}
    numbers = {metric.name: number(values.get(metric.name)) for metric in metrics}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
