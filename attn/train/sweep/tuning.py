"""Equal tuning: every row of a sweep tries the same settings on the validation split.

A comparison says little where one candidate has a learning rate that suits it and the
other has not. With `tune` each row gets the same trials: trainings of full length, one
at each of the settings, with a seed that no row has. What is best on the validation
split, by the headline metric, then goes to all seeds of the row. Trials never see the
test split: in their configs the validation split stands in its place.

The trials are a sweep of their own in SWEEP/trials, resumed and reported as any other.
SWEEP/tune.json has what each row tried, what came of it, and what was chosen. It
follows from the trials, so that a sweep that was stopped chooses as if it never was.
"""

import copy
import dataclasses
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from attn import settings
from attn.train import machines, partition
from attn.train.interruption import Interruption
from attn.train.program import Program
from attn.train.progress import SweepProgress
from attn.train.sweep import local
from attn.train.sweep.experiment_file import Experiment, Point, name_of
from attn.train.sweep.override import replace
from attn.train.sweep.plan import Parallel
from attn.train.sweep.trials import Trial
from attn.workdir import files
from attn.workdir.leases import SPAN, Leases
from attn.workdir.standing import DIVERGED, TRIALS, TUNED

COSTLY = ("model", "data", "task")  # the sections that costs depend on
SEEDS = 2**31  # those of trials are at least this


def run(
    experiment: Experiment,
    points: Sequence[Point],
    directory: pathlib.Path,
    *,
    progress: SweepProgress,
    interruption: Interruption,
    parallel: Parallel = "off",
    log_to: Sequence[str] = (),
    span: float = SPAN,
) -> dict[str, str]:
    """Tunes every row of the points if the experiment says so, and trains the points.

    Arguments, returns and errors are those of `local.run`; a row of which every trial
    diverged is among what diverged. Where a trial failed elsewhere nothing is chosen
    and no point is trained: run again, it has its turn.
    """
    how: dict[str, Any] = {
        "progress": progress,
        "interruption": interruption,
        "parallel": parallel,
        "log_to": log_to,
        "span": span,
    }
    if not experiment.tune:
        return local.run(experiment, points, directory, **how)
    tried = trials(experiment.tune, points)
    unchanged(experiment, points, directory)
    local.begin(experiment, tried, directory)
    progress.note(f"{len(tried)} trials, {len(experiment.tune)} for each row")
    lost = local.run(_sweep(experiment, tried), tried, directory / TRIALS, **how)
    failed = partition.broadcast_json(_failed(lost, directory))
    if failed:
        return failed
    record = partition.broadcast_json(_record(experiment, points, directory))
    if machines.first():
        files.write_json(directory / TUNED, record)
    chosen, untuned = _chosen(record, points)
    if machines.first():
        _give_up(untuned, directory)
    for row in record["rows"]:
        if row["chosen"] is not None:
            progress.note(f"tuned {_label(row['axes'])}: {_told(row['chosen'])}")
    by_name = {point.name: point for point in chosen}
    tuned = [by_name.get(point.name, point) for point in experiment.points]
    experiment = dataclasses.replace(experiment, points=tuned)
    return untuned | local.run(experiment, chosen, directory, **how)


def unchanged(
    experiment: Experiment, points: Sequence[Point], directory: pathlib.Path
) -> None:
    """Raises settings.Invalid if trials or points were begun under another config.

    Points that wait for their trials are not known yet. Trials of another cost than
    their points are refused, too, where those are matched.
    """
    if not experiment.tune:
        local.unchanged(experiment, points, directory)
        return
    tried = trials(experiment.tune, points)
    local.unchanged(_sweep(experiment, tried), tried, directory / TRIALS)
    if experiment.match:
        _keep_costs(experiment, points)


def _keep_costs(experiment: Experiment, points: Sequence[Point]) -> None:
    """Raises settings.Invalid if a trial sets what the matching has found."""
    for row in _distinct(point.row for point in points):
        point = next(point for point in points if point.row == row)
        others = [
            tried
            for tried in trials(experiment.tune, [point])
            if any(tried.config[part] != point.config[part] for part in COSTLY)
        ]
        costs = Program(point.config).costs if others else None
        for tried in others:
            if Program(tried.config).costs != costs:
                raise settings.Invalid(
                    f"the trial {tried.name} costs other than {point.name}, which is"
                    f" matched by {experiment.match['by']}: tune fields that leave the"
                    " costs alone, or take --match=none"
                )


def trials(tune: Sequence[Trial], points: Sequence[Point]) -> list[Point]:
    """The trials of the rows that have points among these, as points.

    Raises:
        Invalid: a setting that does not fit the config.
    """
    made = {}
    for point in points:
        row = point.row
        for trial in tune:
            config = copy.deepcopy(point.config)
            for field, value in trial.items():
                replace(config, field, value)
            config["data"]["test"] = config["data"]["validation"]
            config["seed"] = _seed(trial)
            axes = {**row, **trial, "seed": config["seed"]}
            made.setdefault(name_of(axes), Point(name_of(axes), axes, config))
    return list(made.values())


def _seed(trial: Trial) -> int:
    """Of a setting, the same in every row and for whatever else is tried."""
    return SEEDS + zlib.crc32(json.dumps(trial, sort_keys=True).encode()) // 2


def _sweep(experiment: Experiment, tried: list[Point]) -> Experiment:
    """The trials as an experiment."""
    return dataclasses.replace(
        experiment,
        name=f"{experiment.name}-trials",
        title=f"Trials of: {experiment.title}",
        baseline={},
        points=tried,
        match=None,
        matching=None,
        tune=(),
        published=None,
        rope=None,
    )


def _failed(lost: Mapping[str, str], directory: pathlib.Path) -> dict[str, str] | None:
    """Lost trials of which nothing came, and why; on the first machine."""
    if not machines.first():
        return None
    over = lambda place: any((place / n).exists() for n in ("result.json", DIVERGED))
    return {
        f"{TRIALS}/{name}": reason
        for name, reason in lost.items()
        if not over(directory / TRIALS / name)
    }


def _record(
    experiment: Experiment, points: Sequence[Point], directory: pathlib.Path
) -> dict[str, Any] | None:
    """What every row tried, what came of it, and what is best; on the first machine."""
    if not machines.first():
        return None
    metric: dict[str, Any] | None = None
    rows = []
    for row in _distinct(point.row for point in points):
        point = next(point for point in points if point.row == row)
        entries = []
        for trial, tried in zip(
            experiment.tune, trials(experiment.tune, [point]), strict=True
        ):
            result = files.read_json(directory / TRIALS / tried.name / "result.json")
            metric = result["metrics"][0] if result else metric
            entries.append(
                {
                    "point": tried.name,
                    "settings": trial,
                    "seed": tried.config["seed"],
                    "validation": result["validation"] if result else None,
                }
            )
        rows.append({"axes": row, "trials": entries, "chosen": None})
    for row in rows:
        best = best_of(row["trials"], metric) if metric else None
        row["chosen"] = best["settings"] if best else None
    old = (files.read_json(directory / TUNED) or {"rows": []})["rows"]
    kept = [row for row in old if row["axes"] not in [r["axes"] for r in rows]]
    return {
        "metric": metric,
        "fields": list(experiment.tune[0]),
        "rows": [*rows, *kept],
    }


def best_of(
    entries: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The trial that is best by a metric, the first of equals; None if all diverged."""
    sign = 1 if metric["better"] == "lower" else -1
    value = lambda entry: sign * entry["validation"][metric["name"]]
    return min(filter(lambda e: e["validation"], entries), key=value, default=None)


def _chosen(
    record: Mapping[str, Any], points: Sequence[Point]
) -> tuple[list[Point], dict[str, str]]:
    """The points with the settings of their rows; and those of rows without any."""
    made, failed = [], {}
    for point in points:
        (row,) = (row for row in record["rows"] if row["axes"] == point.row)
        if row["chosen"] is None:
            failed[point.name] = f"every trial of {_label(row['axes'])} diverged"
            continue
        config = copy.deepcopy(point.config)
        for field, value in row["chosen"].items():
            replace(config, field, value)
        made.append(dataclasses.replace(point, config=config))
    return made, failed


def _give_up(untuned: Mapping[str, str], directory: pathlib.Path) -> None:
    """Tells those who look on of points that are not trained; a later run may."""
    if not untuned:
        return
    with Leases(directory) as leases:
        seen = leases.seen()
        for name, reason in untuned.items():
            free = leases.may_take(name, seen.get(name))
            lease = leases.take(name, seen.get(name)) if free else None
            if lease is not None:
                lease.give_up(reason)


def _distinct(rows: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for row in rows:
        if row not in found:
            found.append(row)
    return found


def _label(axes: Mapping[str, Any]) -> str:
    return "-".join(map(str, axes.values())) or "the point"


def _told(chosen: Trial) -> str:
    return ", ".join(f"{field}={value}" for field, value in chosen.items())
