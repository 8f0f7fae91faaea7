"""From a config to what can be run: model, task, optimizer, compiled steps, costs.

One program serves all seeds of a config: the seed is in the state.
"""

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from attn import data, models, modules, settings, tasks
from attn.models import cost
from attn.ops import dot_product
from attn.train import averaging
from attn.train import optimizer as optimizers
from attn.train import step as steps
from attn.train.partition import Mode, Partition, Stacked
from attn.train.state import State
from attn.train.store import trained
from attn.train.store.weights import Weights, replaced

SECTIONS = ("seed", "data", "model", "task", "optimizer", "schedule", "train")


@dataclasses.dataclass(frozen=True)
class Train:
    """The settings under `config.train`.

    Attributes:
        steps: batches to take.
        batch_size: examples in one batch, over all devices and machines.
        eval_batch_size: the same for the evaluation, rounded up to a multiple of the
            devices, as padding weighs nothing; None takes `batch_size`.
        log_every: steps between two lines of training metrics, each a mean over them.
        eval_every: steps between two evaluations on the validation split, or on the
            test split where there is none; the last step is always followed by one.
        score_every: steps between two evaluations whose predictions are scored, for
            tasks that do so; None for one at the end only, as decoding is expensive.
        select: which state is tested at the end: the "last", or the "best" of the
            checkpoints by the headline metric on the validation split, which has to
            be evaluated where there are some before the last.
        snapshot_every: steps between two snapshots of the attention maps, from before
            the first step to after the last; None for one at the end only.
        save_every: steps between two checkpoints; there is always one at the end.
        accumulate: batches whose gradients make one update; at most `steps`. Those
            after the last whole update change nothing.
        average: decay, at each update, of the moving average of the parameters with
            which the model is evaluated; None for no average.
        average_last: instead, how many of the last checkpoints the model is evaluated
            with the mean of, see `attn.train.averaging`.
        dtype: type of the computation; parameters and statistics are float32.
        partition: how a step is spread over the devices.
    """

    steps: settings.Positive
    batch_size: settings.Positive = 128
    eval_batch_size: settings.Positive | None = None
    log_every: settings.Positive = 50
    eval_every: settings.Positive = 500
    score_every: settings.Positive | None = None
    select: Literal["last", "best"] = "last"
    save_every: settings.Positive = 500
    snapshot_every: settings.Positive | None = None
    accumulate: settings.Positive = 1
    average: settings.Decay | None = None
    average_last: settings.Positive | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    partition: Literal["pmap", "mesh"] = "pmap"


@contextlib.contextmanager
def _section(name: str) -> Iterator[None]:
    """Says in which section of a config a wrong value stands."""
    try:
        yield
    except settings.Invalid as error:
        raise settings.Invalid(f"config.{name}: {error}") from error


def _check_sections(config: Mapping[str, Any]) -> None:
    """Refuses a config with other sections than SECTIONS, or of another kind."""
    for name in config:
        if name not in SECTIONS:
            raise settings.unknown("field of config", name, SECTIONS)
    for name in SECTIONS:
        if name not in config:
            raise settings.Invalid(f"config.{name} is missing")
        # a ConfigDict is no collections Mapping
        if name != "seed" and not hasattr(config[name], "items"):
            raise settings.Invalid(
                f"config.{name} must be a mapping with its settings, got"
                f" {config[name]!r}"
            )
    if not isinstance(config["seed"], int) or not 0 <= config["seed"] < 2**32:
        raise settings.Invalid(
            f"config.seed must be in 0..2^32-1, got {config['seed']}"
        )


def check(config: Mapping[str, Any]) -> Train:
    """Refuses a config that is wrong whatever the data and the devices are.

    Settings of model and task are looked at when they are built, with what the data
    set tells them, as is a class at "package.file:Class".

    Returns:
        Its section `train`.

    Raises:
        settings.Invalid: as of `Program`.
    """
    _check_sections(config)
    with _section("train"):
        train = settings.build(Train, "section", "train", config["train"])
    _averaging(train)
    _optimizer(config, train)
    with _section("data"):
        data.check(config["data"])
    for section, known in (("task", tasks.TASKS), ("model", models.MODELS)):
        name = config[section].get("name")
        ours = isinstance(name, str) and (name in known or ":" in name)
        if not ours:
            with _section(section):
                raise settings.unknown(section, name, known)
    return train


def _averaging(train: Train) -> Any:
    with _section("train"):
        return averaging.create(
            moving=train.average,
            last=train.average_last,
            steps=train.steps,
            save_every=train.save_every,
        )


def _optimizer(
    config: Mapping[str, Any], train: Train, held: Sequence[str] = ()
) -> Any:
    with _section("schedule"):
        rate = optimizers.schedule(
            config["schedule"], train.steps, accumulate=train.accumulate
        )
    with _section("optimizer"):
        return optimizers.create(
            config["optimizer"], rate, accumulate=train.accumulate, held=held
        )


class Program:
    """What the training of one config consists of, but for its seed.

    Attributes:
        train: the settings under `config.train`.
        dataset: the data.
        model: the network.
        weights: that a training starts with; one that goes on does without.
        task: what it is trained for.
        partition: how it is spread over devices.
        fields: of a batch that model and task read.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        devices: Sequence[jax.Device] | None = None,
        mode: Mode | None = None,
    ):
        """Builds everything and compiles nothing.

        Args:
            config: as an experiment file gives it, without anything missing.
            devices: to run on; None takes all there are.
            mode: how several runs train in this program; None for one run.

        Raises:
            settings.Invalid: a field, name or value that does not exist or does not
                fit, beginning with the section of the config where it stands.
        """
        self._config = config
        self._compiled: dict[str, Any] = {}
        self.train = check(config)  # what is wrong is said before data are read
        self._average = _averaging(self.train)
        with _section("train"):
            if mode:
                self.partition: Partition = Stacked(mode, devices)
            else:
                self.partition = Partition(self.train.partition, devices)
            self.partition.check(self.train.batch_size)
            self.eval_batch_size = self.partition.rounded(
                self.train.eval_batch_size or self.train.batch_size
            )
        with _section("data"):
            self.dataset = data.open(config["data"])
        with _section("task"):
            task = tasks.create(config["task"], self.dataset.facts)
            self.task = task.attach(functools.partial(trained.model, Program))
        with _section("train"):
            if self.train.select == "best":
                self._check_selection()
        with _section("model"):
            self.model = self.build(config["model"])
        held = getattr(self.model, "held", ())
        self._optimizer = _optimizer(config, self.train, held)
        self._check_fields()
        self.fields = tuple(dict.fromkeys((*self.inputs, *self.task_fields)))
        with _section("model"):
            variables = self._variables(self.model)
            path = config["model"].get("weights")
            self.weights = Weights(path, self.model, variables)
        with _section("task"):
            self._check_outputs(variables)
            self._losses = steps.losses(
                self.model, self.task, variables, self.example(), self.partition.axis
            )
        self._abstract = jax.eval_shape(self._start, self._seed(0), variables)
        with _section("optimizer"):
            optimizers.check(config["optimizer"], self._abstract.params)

    def _check_selection(self) -> None:
        """Refuses to select the best where only the last checkpoint has a figure."""
        if "validation" not in self.dataset.splits:
            raise settings.Invalid(
                "select='best' needs a validation split, and config.data.validation"
                " names none"
            )
        train, headline = self.train, self.task.metrics[0]
        scored = self.task.scored and headline.kind == "corpus"
        name = "score_every" if scored else "eval_every"
        every = (train.score_every if scored else train.eval_every) or train.steps
        both = math.lcm(every, train.save_every)  # steps between two with both
        multiple = both in (every, train.save_every)
        if train.save_every < train.steps and not (multiple and both < train.steps):
            raise settings.Invalid(
                f"select='best' needs checkpoints at the steps where {headline.name} is"
                f" evaluated: one of save_every and {name} a multiple of the other, and"
                f" both below steps={train.steps}, got save_every={train.save_every}"
                f" and {name}={getattr(train, name)}"
            )

    def build(self, section: Mapping[str, Any]) -> Any:
        """A model for the data and devices of this program, from a section `model`.

        It is told the facts of the data set, such as the number of classes, for which
        it has a field, and in a field `masked` whether images have padding. "weights"
        in the section are not of the model, see `init_state`.

        Raises:
            settings.Invalid: as `models.create` says.
        """
        offered = {
            **self.dataset.facts,
            "masked": "image_mask" in self.dataset.example(),
            "dtype": jnp.dtype(self.train.dtype),
            "axis_name": self.partition.axis,
        }
        section = {k: v for k, v in section.items() if k != "weights"}
        fields = dataclasses.fields(models.find(section.get("name")))
        known = {f.name: offered[f.name] for f in fields if f.name in offered}
        return models.create(**{**known, **section})

    def _check_fields(self) -> None:
        """Refuses data that lack a field which is read, and a model a method."""
        there = self.dataset.example()
        wanted = {"model": self.inputs, "task": self.task.fields}
        for who, names in wanted.items():
            for name in names:
                if name not in there:
                    raise settings.Invalid(
                        f"config.data: the {who} reads the field {name!r}, and the data"
                        f" set has {', '.join(there)}"
                    )
        for name in self.task.methods:
            if not hasattr(self.model, name):
                raise settings.Invalid(
                    f"config.model: the task calls the method {name!r} of a model, and"
                    f" {type(self.model).__name__} has none"
                )

    def _variables(self, model: Any) -> Any:
        """Shapes and types of the variables of a model for the data."""
        start = functools.partial(steps.variables, model)
        return jax.eval_shape(start, jax.random.key(0), self.example())

    def _check_outputs(self, variables: Any) -> None:
        batch = self.example()
        outputs = jax.eval_shape(self.apply, variables, batch)
        self.task.check(outputs, batch, self.dataset.facts)

    def example(self, batch_size: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of the fields of a batch that model and task read."""
        there = self.dataset.example()
        return {
            name: jax.ShapeDtypeStruct((batch_size, *there[name].shape), dtype)
            for name in self.fields
            for dtype in [jax.dtypes.canonicalize_dtype(there[name].dtype)]
        }

    def apply(self, variables: Any, batch: Mapping[str, Any]) -> Any:
        """The model's outputs for a batch, without training; not compiled."""
        return steps.evaluated(self.model, variables, batch, jax.random.key(0))

    def _seed(self, seed: int) -> np.ndarray:
        return np.asarray(seed, np.uint32)

    def _init(self, seed: jax.Array, given: Mapping[str, jax.Array]) -> State:
        batch = {n: jnp.zeros(a.shape, a.dtype) for n, a in self.example().items()}
        variables = steps.variables(self.model, jax.random.key(seed), batch)
        return self._start(seed, replaced(variables, given))

    def _start(self, seed: jax.Array, variables: Any) -> State:
        return steps.start(
            seed,
            variables,
            losses=self._losses,
            task=self.task,
            optimizer=self._optimizer,
            average=self._average is not None,
        )

    @functools.cached_property
    def _compiled_init(self) -> Any:
        return jax.jit(self._init)

    @functools.cached_property
    def train_step(self) -> Any:
        """The compiled `(state, batch) -> (state, loss)`; the state is donated."""
        step = functools.partial(
            steps.train_step,
            model=self.model,
            task=self.task,
            optimizer=self._optimizer,
            average=self._average,
            axis=self.partition.axis,
        )
        return self.partition.train_step(step)

    @functools.cached_property
    def eval_step(self) -> Any:
        """The compiled `steps.eval_step`, without predictions."""
        return self._eval_step(predict=False)

    @functools.cached_property
    def predict_step(self) -> Any:
        """The compiled `steps.eval_step`, with the task's predictions."""
        return self._eval_step(predict=True)

    def _eval_step(self, *, predict: bool) -> Any:
        step = functools.partial(
            steps.eval_step,
            model=self.model,
            task=self.task,
            predict=predict,
            axis=self.partition.axis,
        )
        return self.partition.eval_step(step)

    @functools.cached_property
    def capture(self) -> Any:
        """The compiled `(variables, batch) -> (outputs, attention maps)`."""

        def captured(variables: Any, batch: Mapping[str, Any]) -> Any:
            rngs = steps.streams(self.model, jax.random.key(0))
            given = (batch[name] for name in self.inputs)
            return modules.capture(self.model, variables, *given, rngs=rngs)

        return jax.jit(captured)

    def compiled(self, name: str, function: Any) -> Any:
        """A function compiled once for all seeds and data of this program.

        Args:
            name: by which it is known, for whoever asks again.
            function: what is compiled, if it is not yet.
        """
        return self._compiled.setdefault(name, jax.jit(function))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the fields that the model is called with."""
        return steps.inputs(self.model)

    @property
    def curve_split(self) -> str:
        """The split that is looked at during the training."""
        return self.dataset.splits[0]

    @functools.cached_property
    def task_fields(self) -> tuple[str, ...]:
        """Names of the fields that the task reads."""
        there = self.dataset.example()
        optional = (name for name in self.task.optional if name in there)
        return (*self.task.fields, *optional)

    def abstract_state(self) -> State:
        """Shapes and types of the state."""
        return self._abstract

    def zero_state(self) -> State:
        """Zeros in the place of a state that another machine holds."""
        return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), self._abstract)

    def init_state(self, seed: int) -> State:
        """The state of one training before its first step, for `partition.stack`.

        Its variables are drawn, but for those of `weights`.

        Raises:
            settings.Invalid: as `Weights.check` says.
        """
        return self._compiled_init(self._seed(seed), self.weights.read())

    def with_data(self, config: Mapping[str, Any]) -> "Program":
        """This program on other data, with what was compiled where that fits.

        Args:
            config: what the other program is to be of; it differs in the seed and
                under `data` only.

        Raises:
            settings.Invalid: as a program of its own would.
        """
        with _section("data"):
            dataset = data.open(config["data"])
        alike = (
            dataset.example() == self.dataset.example()
            and dict(dataset.facts) == dict(self.dataset.facts)
            and dataset.splits == self.dataset.splits
        )
        if not alike:
            return Program(config, self.partition.all)
        # what is compiled when it is first called must be there to be shared
        _ = self._compiled_init, self.train_step, self.eval_step, self.predict_step
        _ = self.capture
        other = copy.copy(self)
        other.dataset, other._config = dataset, config
        return other

    @functools.cached_property
    def costs(self) -> dict[str, int]:
        """Parameters, and multiply-adds of one example forward, both exact."""
        return self.costs_of(self.model)

    def costs_of(self, model: Any) -> dict[str, int]:
        """As `costs`, of another model for the same data; compiles nothing."""
        batch = self.example()
        key = jax.random.key(0)
        variables = jax.eval_shape(
            functools.partial(steps.variables, model, key), batch
        )
        forward = functools.partial(steps.evaluated, model, key=key)
        with dot_product.limited(None):  # no blocks are measured where nothing runs
            macs = cost.macs(forward, variables, batch)
        return {"parameters": cost.parameters(variables), "macs": macs}
