"""From a config to what can be run: model, task, optimizer, compiled steps, costs.

One program serves all seeds of a config: the seed is in the state.
"""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from attn import data, models, modules, settings, tasks
from attn.models import cost
from attn.train import optimizer as optimizers
from attn.train import step as steps
from attn.train.partition import Partition, Together, Way
from attn.train.probes import class_gates
from attn.train.state import State

SECTIONS = ("seed", "data", "model", "task", "optimizer", "schedule", "train")


@dataclasses.dataclass(frozen=True)
class Train:
    """The settings under `config.train`.

    Attributes:
        steps: batches to take.
        batch_size: examples in one batch, over all devices and hosts.
        eval_batch_size: the same for the evaluation; None takes `batch_size`.
        log_every: steps between two lines of training metrics, each a mean over them.
        eval_every: steps between two evaluations on the test split; the last step
            is always followed by one.
        look_every: steps between two pictures of what the model looks at, from before
            the first step to after the last; None for one at the end only.
        save_every: steps between two checkpoints; there is always one at the end.
        accumulate: batches whose gradients make one update; at most `steps`. Those
            after the last whole update change nothing.
        average: decay, at each update, of the moving average of the parameters with
            which the model is evaluated; None for no average.
        dtype: type of the computation; parameters and statistics are float32.
        partition: how a step is spread over the devices.
    """

    steps: settings.Positive
    batch_size: settings.Positive = 128
    eval_batch_size: settings.Positive | None = None
    log_every: settings.Positive = 50
    eval_every: settings.Positive = 500
    save_every: settings.Positive = 500
    look_every: settings.Positive | None = None
    accumulate: settings.Positive = 1
    average: settings.Decay | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    partition: Literal["pmap", "mesh"] = "pmap"


@contextlib.contextmanager
def _section(name: str) -> Iterator[None]:
    """Says in which section of a config a wrong value stands."""
    try:
        yield
    except settings.Invalid as error:
        raise settings.Invalid(f"config.{name}: {error}") from error


class Program:
    """What the training of one config consists of, but for its seed.

    Attributes:
        train: the settings under `config.train`.
        dataset: the data.
        host: the model.
        task: what it is trained for.
        partition: how it is spread over devices.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        devices: Sequence[jax.Device] | None = None,
        together: Way | None = None,
    ):
        """Builds everything and compiles nothing.

        Args:
            config: as an experiment file gives it, without anything missing.
            devices: to run on; None takes all there are.
            together: how several points train in this program; None for one point.

        Raises:
            Invalid: a field, name or value that does not exist or does not fit,
                beginning with the section of the config where it stands.
        """
        self._config = config
        for name in config:
            if name not in SECTIONS:
                raise settings.unknown("field of config", name, SECTIONS)
        for name in SECTIONS:
            if name not in config:
                raise settings.Invalid(f"config.{name} is missing")
        if not isinstance(config["seed"], int) or not 0 <= config["seed"] < 2**32:
            raise settings.Invalid(
                f"config.seed must be in 0..2^32-1, got {config['seed']}"
            )
        with _section("train"):
            self.train = settings.build(Train, "section", "train", config["train"])
            if together:
                self.partition: Partition = Together(together, devices)
            else:
                self.partition = Partition(self.train.partition, devices)
            self.partition.check(self.train.batch_size)
            self.eval_batch_size = self.train.eval_batch_size or self.train.batch_size
            self.partition.check(self.eval_batch_size)
        with _section("task"):
            self.task = tasks.create(config["task"])
        with _section("schedule"):
            rate = optimizers.schedule(
                config["schedule"], self.train.steps, accumulate=self.train.accumulate
            )
        with _section("optimizer"):
            self._optimizer = optimizers.create(
                config["optimizer"], rate, accumulate=self.train.accumulate
            )
        with _section("data"):
            self.dataset = data.open(config["data"])
        with _section("model"):
            self.host = self._host(config["model"], self.partition.axis)
            self._abstract = jax.eval_shape(self._init, self._seed(0))
        with _section("optimizer"):
            optimizers.check(config["optimizer"], self._abstract.params)

    def _host(self, config: Mapping[str, Any], axis: str | None) -> Any:
        chosen: dict[str, Any] = {
            "num_classes": self.dataset.num_classes,
            "dtype": jnp.dtype(self.train.dtype),
            "axis_name": axis,
        }
        return models.create(**{**chosen, **config})

    def build(self, model: Mapping[str, Any]) -> Any:
        """Another host for the same data and devices, from a section `model`."""
        with _section("model"):
            return self._host(model, self.partition.axis)

    def _seed(self, seed: int) -> np.ndarray:
        return np.asarray(seed, np.uint32)

    def _init(self, seed: jax.Array) -> State:
        image = jnp.zeros((1, *self.dataset.image_shape), jnp.float32)
        return steps.init(
            seed,
            image,
            host=self.host,
            task=self.task,
            optimizer=self._optimizer,
            average=self.train.average is not None,
        )

    @functools.cached_property
    def _compiled_init(self) -> Any:
        return jax.jit(self._init)

    @functools.cached_property
    def update(self) -> Any:
        """The compiled `(state, batch) -> (state, loss)`; the state is donated."""
        step = functools.partial(
            steps.train_step,
            host=self.host,
            task=self.task,
            optimizer=self._optimizer,
            decay=self.train.average or 0.0,
            axis=self.partition.axis,
        )
        return self.partition.update(step)

    @functools.cached_property
    def measure(self) -> Any:
        """The compiled `(variables, split batch) -> sums of the evaluation`."""
        step = functools.partial(
            steps.eval_step, host=self.host, task=self.task, axis=self.partition.axis
        )
        return self.partition.measure(step)

    def like(self) -> State:
        """The shapes and types of the state."""
        return self._abstract

    def fresh(self, seed: int) -> State:
        """The state of one training before its first step, for `partition.join`."""
        return self._compiled_init(self._seed(seed))

    def start(self, seed: int) -> State:
        """The state before the first step, on the devices."""
        return self.partition.place(self.fresh(seed))

    def on(self, config: Mapping[str, Any]) -> "Program":
        """This program on other data, with what was compiled where that fits.

        Args:
            config: what the other program is to be of; it differs in the seed and
                under `data` only.

        Raises:
            Invalid: as a program of its own would.
        """
        with _section("data"):
            dataset = data.open(config["data"])
        alike = (
            dataset.image_shape == self.dataset.image_shape
            and dataset.num_classes == self.dataset.num_classes
            and config["data"].get("composition")
            == self._config["data"].get("composition")
        )
        if not alike:
            return Program(config, self.partition.all)
        # what is compiled when it is first called must be there to be shared
        _ = self._compiled_init, self.update, self.measure, self.look, self.gates
        other = copy.copy(self)
        other.dataset, other._config = dataset, config
        return other

    def evaluate(self, state: State) -> dict[str, float]:
        """Means over the test split: "loss", "error" in percent, and "examples"."""
        (means,) = self.evaluate_each(state, [self.dataset])
        return means

    def evaluate_each(
        self, state: State, datasets: Sequence[data.Dataset]
    ) -> list[dict[str, float]]:
        """As `evaluate`, of every training in the state, each on its own dataset."""
        variables = state.variables()
        distinct = {id(dataset): dataset for dataset in datasets}
        parts = []
        for batches in zip(*map(self._tests, distinct.values()), strict=True):
            of = dict(zip(distinct, batches, strict=True))
            fed = self.partition.feed([of[id(dataset)] for dataset in datasets])
            parts.append(self.measure(variables, fed))
        found = zip(*map(self.partition.parts, parts), strict=True)
        return [_means(sums) for sums in found]

    def _tests(self, dataset: data.Dataset) -> Iterator[dict[str, np.ndarray]]:
        """What a measurement takes of each batch of the test split."""
        shard = self.partition.shard
        for batch in dataset.test(self.eval_batch_size, shard=shard):
            yield {name: batch[name] for name in ("image", "label", "weight")}

    @functools.cached_property
    def look(self) -> Any:
        """The compiled `(variables, images) -> (logits, attention maps)`."""
        return jax.jit(functools.partial(modules.capture, self.host))

    @functools.cached_property
    def gates(self) -> Any:
        """The compiled sums by class for `probes.class_gates`."""
        sums = functools.partial(class_gates.sums, classes=self.dataset.num_classes)
        return jax.jit(functools.partial(sums, self.host))

    @functools.cached_property
    def costs(self) -> dict[str, int]:
        """Parameters, and multiply-adds of one example forward, both exact."""
        image = jax.ShapeDtypeStruct((1, *self.dataset.image_shape), jnp.float32)
        apply = functools.partial(self.host.apply, train=False)
        variables = self.like().variables()
        return {
            "parameters": cost.parameters(variables),
            "macs": cost.macs(apply, variables, image),
        }


def _means(sums: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over a split, of the sums over its batches."""
    totals = {
        name: sum(float(part[name]) for part in sums)
        for name in ("loss", "error", "examples")
    }
    examples = totals.pop("examples")
    means = {name: value / examples for name, value in totals.items()}
    return means | {"examples": int(examples)}
