"""The contract of a task: losses, metrics, predictions and their scores.

A task owns everything that depends on what a model is trained for. Training, its
checkpoints and the report know the contract only, so that a task is a file that is
added: a dataclass derived from `Task`, in `attn.tasks.TASKS` or by
"package.file:Class".

Whatever is counted is a `Mean`, a total and a weight, which are summed over examples
and devices before they are divided. So a mean over tokens or objects is right however
they are spread over batches and devices.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from attn import settings
from attn.tasks.answers import Answer, Finding

Batch = Mapping[str, jax.Array]
Direction = Literal["lower", "higher"]
Kind = Literal["share", "mean", "corpus"]


class Mean(NamedTuple):
    """A mean still to be divided: the total of what was counted, and its weight.

    Both have the same shape: [] for a batch, [B] for one of each example.
    """

    total: jax.Array
    weight: jax.Array


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a figure of an evaluation is called, written and compared.

    Attributes:
        name: the key under which `evaluate` or `score` returns it.
        label: its name in tables and on axes, such as "error".
        unit: "%", "dB" or nothing.
        better: whether the "lower" or the "higher" value is the better one.
        digits: decimals in tables.
        kind: "share" for a percentage of examples, each of which is 0 or 100;
            "mean" for another mean over examples; "corpus" for a score of the whole
            split, which is no mean over examples, such as BLEU.
        note: what a reader must know to compare it with other figures, such as the
            signature of the library that computes it; kept in the record.
    """

    name: str
    label: str
    unit: str = ""
    better: Direction = "lower"
    digits: int = 2
    kind: Kind = "mean"
    note: str = ""

    def text(self, value: float) -> str:
        """The label with a value: "error 2.10 %"."""
        return f"{self.label} {value:.{self.digits}f} {self.unit}".rstrip()


class Task:
    """What training, evaluation and report ask of a task.

    A subclass is a frozen dataclass; its fields are the settings of a config's
    section `task`. A fact of the data set is given to a task that has a field of its
    name, as it is to models.

    Attributes:
        metrics: of an evaluation. The first is the headline: it ranks the rows of a
            table and selects checkpoints.
        fields: of a batch that the task reads, beside the inputs of the model.
        optional: fields that it reads too where the data set has them.
        scoring: those of both that `score` reads, which are kept of a whole split; None
            for all.
        kept: numbers that the task keeps from step to step, such as a moving average,
            by name, and their first values; see `keep`.
        minimised: names of the losses that are minimised; of several, the sum of their
            means, which is logged as "loss".
        methods: of the model, beside its call, that `predict` calls.
        probes: names of `attn.train.probes`, the artefacts that are written of a
            trained model.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    fields: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    scoring: ClassVar[tuple[str, ...] | None] = None
    kept: ClassVar[Mapping[str, float]] = {}
    minimised: ClassVar[tuple[str, ...]] = ("loss",)
    methods: ClassVar[tuple[str, ...]] = ()
    probes: ClassVar[tuple[str, ...]] = ("attention",)

    def attach(self, trained: Callable[[str], tuple[nn.Module, Any]]) -> "Task":
        """The task with the trained models that it needs, such as a teacher.

        Args:
            trained: from the directory of a run to its model and variables.
        """
        del trained
        return self

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        """Refuses a model or data set that does not fit, before anything is trained.

        Args:
            outputs: shapes and types of the model's outputs for a batch of one.
            example: those of the batch.
            facts: of the data set, such as "num_classes".

        Raises:
            settings.Invalid: they do not fit; says how.
        """

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """Losses of a training batch, by name; all are logged.

        Args:
            outputs: of the model, called with `train=True`.
            batch: the fields that the model and the task read, [B, ...] each.

        Returns:
            "loss", or all that `minimised` names, and what else is to be logged.
            Totals and weights may have any shape; they are summed.
        """
        raise NotImplementedError

    def keep(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """The numbers of `kept` behind a step of training, float32 scalars.

        Before the step they are fields of the batch, here and in `loss`. The mean over
        all devices is what is kept.

        Args:
            outputs, batch: as in `loss`.
        """
        raise NotImplementedError

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """Evaluation of each example of a batch: totals and weights, [B] each.

        Padded examples are left out by whoever calls it.

        Args:
            outputs: of the model, called with `train=False`.
            batch: as in `loss`.
        """
        raise NotImplementedError

    def derive(self, values: Mapping[str, float]) -> dict[str, float]:
        """Figures that are functions of the means of an evaluation.

        Args:
            values: the means of what `evaluate` counts, over the split.
        """
        del values
        return {}

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        """A caption of each example for the report, and whether the model is wrong.

        Args:
            outputs: of the model, NumPy arrays.
            batch: the fields of the examples.
            facts: of the data set.
        """
        del outputs, facts
        return [("", False)] * len(next(iter(batch.values())))

    @property
    def scored(self) -> bool:
        """Whether a score of predictions belongs to the evaluation."""
        return type(self).predict is not Task.predict

    def predict(
        self, model: nn.Module, variables: Any, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Predictions for each example of a batch, on the devices: [B, ...] each.

        This is where decoding is done. Those of all machines are gathered for `score`.

        Args:
            model, variables: what predicts.
            batch: as in `evaluate`.
            key: for whatever is drawn.
        """
        raise NotImplementedError

    def score(
        self,
        predictions: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ) -> dict[str, float]:
        """Scores of the predictions for a whole split, by a library, on one machine.

        Args:
            predictions: as `predict` made them, of all examples, without padding.
            batch: the task's own fields of these examples; what is needed of others,
                such as the size of an image, belongs to the predictions.
            facts: of the data set.
        """
        raise NotImplementedError

    def respond(
        self,
        model: nn.Module,
        variables: Any,
        lines: Iterable[str],
        facts: Mapping[str, Any],
        *,
        most: int,
    ) -> Iterator[Answer]:
        """The answers of a trained model to lines of text, one each, in their order.

        Args:
            model, variables: what answers.
            lines: read as far as they are needed.
            facts: of the data set that it was trained on.
            most: lines that are answered together.

        Raises:
            settings.Invalid: the task answers no text, or the data set has no
                tokenizer.
        """
        raise settings.Invalid(f"task {type(self).__name__} answers no lines of text")

    def recognise(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[list[Finding]]:
        """What the model finds in pictures, the most probable first.

        Args:
            outputs: of the model, NumPy arrays.
            batch: the images, and "image_mask" where they are padded.
            facts: of the data set that the model was trained on.

        Raises:
            settings.Invalid: the task finds nothing in pictures.
        """
        raise settings.Invalid(f"task {type(self).__name__} is not about pictures")

    def outputs(self, apply: Callable[[Batch], Any], batch: Batch) -> Any:
        """What `restore` makes pictures of, on the devices: the outputs of the model.

        Args:
            apply: from a batch to the outputs of the model, without training.
            batch: what the model reads.
        """
        return apply(batch)

    def restore(
        self, outputs: Any, batch: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:
        """The pictures that the model makes of pictures, uint8 [H, W, C] each.

        Args:
            outputs: as of `outputs`, NumPy arrays.
            batch: the images, and "image_mask" where they are padded.

        Raises:
            settings.Invalid: the task makes none.
        """
        raise settings.Invalid(f"task {type(self).__name__} makes no pictures")


def divide(means: Mapping[str, Mean]) -> dict[str, float]:
    """The quotients of totals by weights, summed in float64; NaN by no weight at all.

    Args:
        means: totals and weights of any shape, NumPy arrays.
    """
    found = {}
    for name, mean in means.items():
        total, weight = (float(np.sum(part, dtype=np.float64)) for part in mean)
        found[name] = total / weight if weight else float("nan")
    return found
