"""Fair sizes: scales the widths of a sweep's points until all cost the same.

A comparison says little where one candidate has twice the parameters of the other.
Here every point gets the budget of the baseline with the same other axes, or a given
number, in one of three costs:

    parameters   of the network, exact, within 1 %
    macs         multiply-adds of one example forward, exact, within 1 %
    latency      milliseconds of a training step, measured, within 5 %

Latency is that of training: it is what the report shows and what a sweep costs, and
its program is the one that is compiled anyway. A candidate and its reference take
steps in turn, and the median of the ratios counts, so that a busy machine slows both.

What was found stands in the sweep's match.json and is used again for a point whose
config, before matching, is the same: a resumed sweep has the same networks although
no measurement is. Seeds share one matching. On many machines the clock and the file
of the first one count, so that all find the same widths.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn import settings
from attn.models.scaling import scaled
from attn.train import loop, partition
from attn.train.budget import search
from attn.train.program import Program
from attn.train.sweep.experiment_file import MATCHES, Experiment, Point
from attn.train.sweep.step_time import StepTime
from attn.workdir import files

TOLERANCES = {"parameters": 0.01, "macs": 0.01, "latency": 0.05}
# What each is called in a record, and in a sentence.
KEYS = {"parameters": "parameters", "macs": "macs", "latency": "ms_per_step"}
UNITS = {
    "parameters": "{:,.0f} parameters",
    "macs": "{:,.0f} multiply-adds",
    "latency": "{:.2f} ms per training step",
}
COMPILATIONS = 16  # of one candidate at most, for its latency
ROUNDS = 9  # of steps of a candidate and of its reference, in turn
ROUND_SECONDS = 0.05  # that the steps of one of them take in a round, about


def parse(text: str) -> dict[str, Any] | None:
    """What to match, from "parameters", "macs=2e6" or "none".

    Raises:
        Invalid: another word, or a budget that is no positive number.
    """
    by, given, number = text.partition("=")
    if by == "none" and not given:
        return None
    if by not in MATCHES:
        raise settings.unknown("match", by, [*MATCHES, "none"])
    if not given:
        return {"by": by}
    try:
        budget = float(number)
    except ValueError:
        message = f"the budget of --match={by} must be a number, got {number!r}"
        raise settings.Invalid(message) from None
    return {"by": by, "budget": _positive(budget)}


def match(
    experiment: Experiment,
    points: Sequence[Point],
    directory: pathlib.Path,
    *,
    progress: loop.Progress,
) -> tuple[Experiment, list[Point]]:
    """Scales points as `experiment.match` says; does nothing where it says nothing.

    A point that costs what it should, and the baseline where it sets the budget, stay
    as they are.

    Args:
        experiment: its baseline may be a point that is not among `points`.
        points: those to scale.
        directory: the sweep's, whose match.json is read; nothing is written.
        progress: notified of the widths of each.

    Returns:
        The experiment with the new configs and the record, which `sweep.run` writes;
        and the points.

    Raises:
        Invalid: there is neither baseline nor budget, a network cannot be scaled,
            or not to the budget; says the nearest that it can.
    """
    if experiment.match is None:
        return experiment, list(points)
    matching = _Matching(experiment, directory, progress)
    made = {point.name: matching.point(point) for point in points}
    return dataclasses.replace(
        experiment,
        points=[made.get(point.name, point) for point in experiment.points],
        matching=matching.record,
    ), list(made.values())


class _Matching:
    """One sweep's, with what was found for the seeds and points before."""

    def __init__(
        self, experiment: Experiment, directory: pathlib.Path, progress: loop.Progress
    ):
        assert experiment.match is not None
        self._experiment, self._progress = experiment, progress
        self._by = experiment.match["by"]
        self._budget = _positive(experiment.match.get("budget"))
        self._known: dict[tuple[str | None, str], dict[str, Any]] = {}
        self._networks: dict[str, _Network] = {}
        old = partition.broadcast_json(files.read_json(directory / "match.json")) or {}
        self.record = {"by": self._by, "budget": self._budget, "points": {}}
        if self.record == {**old, "points": {}}:
            self.record["points"] = old["points"]
        for entry in self.record["points"].values():
            self._known[entry["reference"], entry["unmatched"]] = entry

    def point(self, point: Point) -> Point:
        """The point with its widths scaled; puts it into the record."""
        reference = self._reference(point) if self._budget is None else None
        keys = (_digest(reference.config) if reference else None, _digest(point.config))
        if keys not in self._known:
            self._known[keys] = {
                **self._entry(point, reference),
                "reference": keys[0],
                "unmatched": keys[1],
            }
            self._note(point, self._known[keys])
        entry = self._known[keys]
        self.record["points"][point.name] = entry
        config = copy.deepcopy(point.config)
        config["model"] = scaled(config["model"], entry["settings"])
        return dataclasses.replace(point, config=config)

    def _reference(self, point: Point) -> Point:
        """The point that sets the budget of another."""
        baseline = self._experiment.baseline
        if not baseline:
            raise settings.Invalid(
                f"match by {self._by} needs a BASELINE in the experiment file, or a"
                f" budget such as --match={self._by}=400000"
            )
        axes = _place({**point.axes, **baseline})
        found = [p for p in self._experiment.points if _place(p.axes) == axes]
        if not found:
            text = ", ".join(f"{name}={value}" for name, value in axes.items())
            raise settings.Invalid(
                f"{point.name} cannot be matched by {self._by}: there is no point"
                f" {text} to set its budget"
            )
        return found[0]

    def _entry(self, point: Point, standard: Point | None) -> dict[str, Any]:
        network = self._network(point)
        reference = self._network(standard) if standard else None
        before = self._costs(network, reference, {})
        if network is reference:
            budget, found = before[KEYS[self._by]], {}
        else:
            budget = self._budget
            if reference is not None:
                budget = self._costs(reference, reference, {})[KEYS[self._by]]
            assert budget is not None
            found = self._fit(point, network, reference, budget)
        after = self._costs(network, reference, found)
        return {"settings": found, "budget": budget, **after, "before": before}

    def _fit(
        self,
        point: Point,
        network: "_Network",
        reference: "_Network | None",
        budget: float,
    ) -> search.Settings:
        tolerance = TOLERANCES[self._by]
        clock = self._by == "latency"
        if clock:
            self._progress.note(f"matching {point.name}")
        best = search.fit(
            network.width_settings(),
            lambda found: self._costs(network, reference, found)[KEYS[self._by]],
            budget,
            tolerance=tolerance,
            first_fit=clock,
            **({"probes": COMPILATIONS} if clock else {}),
        )
        if not best.within_tolerance:
            nearest = _cost_text(self._by, best.cost, budget)
            raise settings.Invalid(
                f"{point.name} cannot be matched to {UNITS[self._by].format(budget)}"
                f" within {100 * tolerance:.0f} %: the nearest is {nearest} with"
                f" {_settings_text(best.settings)}"
            )
        same = best.settings == network.settings()
        return {} if same else best.settings

    def _costs(
        self, network: "_Network", reference: "_Network | None", found: search.Settings
    ) -> dict[str, Any]:
        """The exact costs, and the measured one where it is what is matched."""
        costs = network.costs(found)
        if self._by == "latency":
            costs |= {"ms_per_step": network.milliseconds(found, reference)}
        return costs

    def _network(self, point: Point) -> "_Network":
        """One for all seeds: the budget is that of one and the same network."""
        key = _digest(point.config)
        if key not in self._networks:
            self._networks[key] = _Network(point)
        return self._networks[key]

    def _note(self, point: Point, entry: Mapping[str, Any]) -> None:
        cost = _cost_text(self._by, entry[KEYS[self._by]], entry["budget"])
        found = _settings_text(entry["settings"])
        kept = f"with {found}" if found else "as it is"
        self._progress.note(f"matched {point.name}: {cost} {kept}")


class _Network:
    """A point's network at other widths, and what it costs."""

    def __init__(self, point: Point):
        self._name, self._config = point.name, point.config
        self._program = Program(point.config)
        self._costs: dict[str, dict[str, Any]] = {}
        self._latencies: dict[str, float] = {}

    def width_settings(self) -> dict[str, Any]:
        """Those of the model.

        Raises:
            Invalid: it has none.
        """
        widths = getattr(self._program.model, "width_settings", dict)()
        if not widths:
            raise settings.Invalid(
                f"{self._name} cannot be matched: the model"
                f" {self._config['model']['name']!r} has no settings that scale its"
                " width"
            )
        return widths

    def settings(self) -> search.Settings:
        """The widths as they are."""
        values = {name: width.value for name, width in self.width_settings().items()}
        return {n: v if isinstance(v, int) else list(v) for n, v in values.items()}

    def costs(self, found: search.Settings) -> dict[str, Any]:
        """Parameters and multiply-adds at these widths; compiles nothing."""
        key = json.dumps(found)
        if key not in self._costs:
            model = self._program.build(scaled(self._config["model"], found))
            self._costs[key] = self._program.costs_of(model)
        return dict(self._costs[key])

    def milliseconds(
        self, found: search.Settings, reference: "_Network | None"
    ) -> float:
        """A training step at these widths, measured beside one of `reference`.

        It is the reference's own time, measured once, times the median ratio; the same
        number on every machine.
        """
        key = json.dumps(found)
        if key not in self._latencies:
            config = copy.deepcopy(self._config)
            config["model"] = scaled(config["model"], found)
            step_time = StepTime(Program(config))
            wanted = _broadcast(ROUND_SECONDS / step_time.seconds(2) * 2)
            steps = max(1, round(wanted))
            if reference is None or reference is self:
                laps = [step_time.seconds(steps) / steps for _ in range(ROUNDS)]
                found_now = 1000 * statistics.median(laps)
            else:
                own = reference.milliseconds({}, reference)
                found_now = own * reference.ratio(step_time, steps)
            self._latencies[key] = round(_broadcast(found_now), 4)
        return self._latencies[key]

    def ratio(self, step_time: StepTime, steps: int) -> float:
        """The median of another's time over one's own, in turn."""
        ratios = []
        for _ in range(ROUNDS):
            own = self._step_time.seconds(steps)
            ratios.append(step_time.seconds(steps) / own)
        return statistics.median(ratios)

    @functools.cached_property
    def _step_time(self) -> StepTime:
        return StepTime(self._program)


def _broadcast(number: float) -> float:
    """The number of the first machine."""
    return float(partition.broadcast(np.asarray(number, np.float64)))


def _place(axes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in axes.items() if name != "seed"}


def _digest(config: Mapping[str, Any]) -> str:
    """Of a config but for its seed."""
    text = json.dumps({**config, "seed": 0}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _positive(budget: Any) -> float | None:
    number = isinstance(budget, int | float) and not isinstance(budget, bool)
    if budget is None or (number and 0 < budget < math.inf):
        return budget
    raise settings.Invalid(
        f"the budget of a match must be a positive number, got {budget!r}"
    )


def _cost_text(by: str, cost: float, budget: float) -> str:
    text = UNITS[by].format(cost)
    return f"{text} ({cost / budget - 1:+.1%})".replace("%)", " %)")


def _settings_text(found: search.Settings) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.items())
