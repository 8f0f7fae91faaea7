"""What tuning chose, how sure the choice is, and whether the grid was wide enough."""

from collections.abc import Mapping, Sequence
from typing import Any

from attn.report.analyse import numbers, table
from attn.report.read.tuning import Tuned, Tuning


def expected_best(values: Sequence[float], better: str) -> list[float]:
    """The expected best of 1, 2, ... trials: as many as there are values.

    Trials are taken to be drawn from those that were made, each as likely as any
    other: with values in order, v_1 <= ... <= v_N, the largest of n is at most v_i
    with probability (i / N)^n, so that

        E[max of n] = sum_i v_i ((i / N)^n - ((i - 1) / N)^n)

    (Dodge et al., "Show Your Work", EMNLP 2019, https://arxiv.org/abs/1909.03004,
    equation 4). For a metric whose low values are better it is the least of n.

    Args:
        values: of the trials, on the validation split.
        better: "higher" or "lower".
    """
    ordered = sorted(values, reverse=better == "lower")
    total = len(ordered)
    return [
        sum(
            value * ((i / total) ** n - ((i - 1) / total) ** n)
            for i, value in enumerate(ordered, 1)
        )
        for n in range(1, total + 1)
    ]


def at_the_edge(tuned: Tuned) -> list[str]:
    """The fields of which the chosen value is the least or the largest tried.

    Of fields with numbers only, at least two of them.
    """
    if tuned.chosen is None:
        return []
    edges = []
    for field, value in tuned.chosen.items():
        tried = {_number(trial.settings[field]) for trial in tuned.trials}
        if None not in tried and len(tried) > 1 and value in (min(tried), max(tried)):
            edges.append(field)
    return edges


def sentences(tuning: Tuning) -> list[str]:
    """What was tried and chosen, and what a reader should doubt."""
    rows = [row for row in tuning.rows if row.chosen is not None]
    count = max((len(row.trials) for row in tuning.rows), default=0)
    metric = tuning.metric
    said = [
        f"Before the seeds were trained, each row had {count} trials of"
        f" {', '.join(tuning.fields)} on the validation split; its best setting by"
        f" {metric.label} went to all of its seeds: {'; '.join(map(_choice, rows))}."
    ]
    expected = [
        f"{_name(row)}: {_expected(row, tuning)}"
        for row in rows
        if sum(trial.value is not None for trial in row.trials) > 1
    ]
    if expected:
        said.append(
            f"Expected best validation {metric.head} after 1, 2, ... trials: "
            f"{'; '.join(expected)}."
        )
    edges = [
        f"{_name(row)} ({', '.join(at_the_edge(row))})"
        for row in rows
        if at_the_edge(row)
    ]
    if edges:
        said.append(
            "The best value is at the edge of those tried, so that one beyond it may be"
            f" better: {', '.join(edges)}."
        )
    lost = [
        f"{_name(row)} ({count})"
        for row in tuning.rows
        if (count := sum(trial.value is None for trial in row.trials))
    ]
    if lost:
        said.append(f"Trials that diverged: {', '.join(lost)}.")
    return said


def _choice(row: Tuned) -> str:
    return f"{_name(row)}: {told(row.chosen or {})}"


def told(settings: Mapping[str, Any]) -> str:
    """Settings as text; the value alone where there is one."""
    if len(settings) == 1:
        return numbers.text(*settings.values())
    return ", ".join(f"{field}={numbers.text(v)}" for field, v in settings.items())


def _expected(row: Tuned, tuning: Tuning) -> str:
    values = [trial.value for trial in row.trials if trial.value is not None]
    best = expected_best(values, tuning.metric.better)
    return ", ".join(numbers.number(value, tuning.metric.digits) for value in best)


def _name(row: Tuned) -> str:
    return table.label(row.axes) or "the point"


def _number(value: Any) -> float | None:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    return value if real else None
