"""Evaluation: every example of a split, means over them, and scores of predictions.

The devices return what each example counts, so that padding weighs nothing and the
outcome of every example is known; the sums are made in float64. What is no mean over
examples is predicted on the devices, gathered from all machines, and scored by the
task.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from attn import settings
from attn.data import Dataset
from attn.tasks import Mean, divide
from attn.train import partition, prediction
from attn.train.program import Program
from attn.workdir import files

AHEAD = 2  # batches that may be under way at once
SEED = 0  # of what models and tasks draw in an evaluation, the same in every run


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of one state on one split.

    Attributes:
        values: by the name of the metric, "loss" and "examples" among them.
        outcomes: of each example, by the name of the metric: totals and weights [n].
        index: of each example, its row of the split, [n].
    """

    values: dict[str, float]
    outcomes: dict[str, Mean]
    index: np.ndarray


def evaluate(
    program: Program,
    variables: Any,
    datasets: Sequence[Dataset],
    split: str,
    *,
    score: bool,
) -> list[Evaluation]:
    """Evaluates every training of a program, each on its own data set.

    Args:
        program: what is evaluated.
        variables: of the trainings, on the devices, as `partition.stack` gives them.
        datasets: of the trainings, in their order.
        split: "validation" or "test".
        score: whether the task's predictions are made and scored too.
    """
    score = score and program.task.scored
    scoring = program.task.scoring
    fields = [n for n in program.task_fields if scoring is None or n in scoring]
    found: list[list[dict[str, Any]]] = [[] for _ in datasets]
    for batches, parts in _evaluated(program, variables, datasets, split, score):
        for rows, batch, part in zip(found, batches, parts, strict=True):
            kept = {name: batch[name] for name in ("index", "weight")}
            if score:
                kept["batch"] = {name: batch[name] for name in fields}
            rows.append(kept | part)
    return [
        _evaluation(program, dataset, rows, score)
        for dataset, rows in zip(datasets, found, strict=True)
    ]


def _evaluated(
    program: Program,
    variables: Any,
    datasets: Sequence[Dataset],
    split: str,
    score: bool,
) -> Iterator[tuple[list[Any], list[Any]]]:
    """The batches of all trainings, and what the devices make of them."""
    step = program.predict_step if score else program.eval_step
    key = jax.random.key(SEED)
    distinct = {id(dataset): dataset for dataset in datasets}
    streams = [
        dataset.split(split, program.eval_batch_size, shard=program.partition.shard)
        for dataset in distinct.values()
    ]
    under_way: collections.deque[Any] = collections.deque()
    try:
        for number, found in enumerate(zip(*streams, strict=True)):
            of = dict(zip(distinct, found, strict=True))
            batches = [of[id(dataset)] for dataset in datasets]
            names = (*program.fields, "weight")
            taken = [{name: batch[name] for name in names} for batch in batches]
            drawn = np.asarray(jax.random.key_data(jax.random.fold_in(key, number)))
            fed = program.partition.shard_batch(taken)
            under_way.append((batches, step(variables, fed, drawn)))
            if len(under_way) > AHEAD:
                batches, part = under_way.popleft()
                yield batches, program.partition.unshard(part)
        for batches, part in under_way:
            yield batches, program.partition.unshard(part)
    finally:
        for stream in streams:
            stream.close()


def _evaluation(
    program: Program, dataset: Dataset, rows: Sequence[Mapping[str, Any]], score: bool
) -> Evaluation:
    """Puts together what was found of the batches of one training."""
    whole = _gathered(rows)
    real = whole["weight"] > 0
    whole = jax.tree.map(lambda array: array[real], whole)
    values = divide(whole["means"])
    values |= program.task.derive(values)
    for metric in program.task.metrics[1:]:
        mean = whole["means"].get(metric.name)
        if mean is not None and not np.any(mean.weight):
            del values[metric.name]  # no example of the split has it
    if score:
        scores = program.task.score(whole["predictions"], whole["batch"], dataset.facts)
        values |= {name: float(value) for name, value in scores.items()}
    values["examples"] = int(real.sum())
    return Evaluation(values, whole["means"], whole["index"])


def _gathered(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Batches of this machine, [B, ...], as the split of all machines, [n, ...]."""
    whole = jax.tree.map(_joined, *rows)
    if jax.process_count() == 1:
        return whole
    order = _order([len(row["weight"]) for row in rows], jax.process_count())
    everywhere = partition.gather(whole)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[order], everywhere)


def _joined(*parts: np.ndarray) -> np.ndarray:
    """Arrays [B, ...] one after the other; shorter ones, of a bucket, end in zeros."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    longest = np.max([part.shape[1:] for part in parts], axis=0)
    joined = np.zeros((sum(map(len, parts)), *longest), parts[0].dtype)
    first = 0
    for part in parts:
        inside = tuple(map(slice, part.shape[1:]))
        joined[(slice(first, first + len(part)), *inside)] = part
        first += len(part)
    return joined


def _order(sizes: Sequence[int], machines: int) -> np.ndarray:
    """The places of a split's examples where each machine's stand in one piece.

    Machines hold neighbouring parts of each batch.

    Args:
        sizes: examples of each batch on one machine.
        machines: how many there are.
    """
    ends = np.cumsum(sizes)
    return np.concatenate(
        [
            machine * ends[-1] + np.arange(end - size, end)
            for size, end in zip(sizes, ends, strict=True)
            for machine in range(machines)
        ]
    )


def points(directory: pathlib.Path) -> dict[pathlib.Path, dict[str, Any]]:
    """The axes of the points begun in a sweep's directory, by directory, or one point.

    Of one point by itself the axes are not known: it has none.

    Raises:
        settings.Invalid: it is neither.
    """
    if files.exists(directory / "config.json"):
        return {directory: {}}
    experiment = files.read_json(directory / "experiment.json")
    if not isinstance(experiment, dict) or "points" not in experiment:
        raise settings.Invalid(
            f"{directory} is not the work directory of a sweep or a point"
        )
    found = {directory / p["name"]: p.get("axes", {}) for p in experiment["points"]}
    begun = lambda path: (path / "config.json").exists()
    return {path: axes for path, axes in found.items() if begun(path)}


def evaluate_checkpoint(
    directory: pathlib.Path,
    which: str = "last",
    overrides: Sequence[tuple[str, str]] = (),
) -> tuple[Program, int, dict[str, float]]:
    """Restores a checkpoint of a point and evaluates it on the test split.

    It writes nothing. On several machines the first one's checkpoints count.

    Args:
        directory: of the point.
        which: "last", "best" (by the headline metric on the validation split, of
            those kept), or a step.
        overrides: fields of its config to set otherwise, such as the test split.

    Returns:
        The program, the step, and the values by name.

    Raises:
        settings.Invalid: no such checkpoint, one that does not fit the config, or
            "best" without a validation split.
    """
    program, state = prediction.restored(directory, which, overrides)
    variables = program.partition.replicate(state.variables())
    (found,) = evaluate(program, variables, [program.dataset], "test", score=True)
    return program, int(state.step), found.values
