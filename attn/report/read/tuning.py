"""Reads what the rows of a sweep tried before they were trained: its tune.json."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from attn.report.read import metrics
from attn.report.read.metrics import Metric
from attn.workdir.standing import TUNED


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of a row at some settings.

    Attributes:
        settings: values of fields of the config, by dotted path.
        value: the metric on the validation split; None where it diverged.
    """

    settings: Mapping[str, Any]
    value: float | None


@dataclasses.dataclass(frozen=True)
class Tuned:
    """The trials of a row, and the settings with which all its seeds were trained.

    Attributes:
        axes: of the row, without a seed.
        trials: as they were tried.
        chosen: the settings of the best; None where all diverged.
    """

    axes: Mapping[str, Any]
    trials: tuple[Trial, ...]
    chosen: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What every row tried.

    Attributes:
        metric: by which the best was chosen.
        fields: of the config that the trials set, by dotted path.
        rows: in the order of the sweep.
    """

    metric: Metric
    fields: tuple[str, ...]
    rows: tuple[Tuned, ...]


def read(directory: pathlib.Path) -> Tuning | None:
    """The tuning of a sweep; None where there was none, or no trial is finished."""
    try:
        record = json.loads((directory / TUNED).read_text(encoding="utf-8"))
        metric = metrics.described([record["metric"]])[0]
        rows = tuple(_tuned(row, metric) for row in record["rows"])
        return Tuning(metric, tuple(record["fields"]), rows)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _tuned(row: Mapping[str, Any], metric: Metric) -> Tuned:
    values = [(entry["settings"], entry["validation"]) for entry in row["trials"]]
    trials = tuple(
        Trial(settings, _finite(found[metric.name]) if found else None)
        for settings, found in values
    )
    return Tuned(row["axes"], trials, row["chosen"])


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
