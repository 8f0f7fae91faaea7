"""Distillation: classification by labels and by what a trained model says.

Touvron et al., "Training data-efficient image transformers & distillation through
attention", ICML 2021, https://arxiv.org/abs/2012.12877, section 4: the label loss is
that of one head, the teacher's that of the other, where a model has two.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from attn import settings
from attn.tasks.base import Batch, Mean
from attn.tasks.classification import Classification

WEIGHTS = {"hard": 0.5, "soft": 0.1}  # of the paper


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation(Classification):
    """Labels [B] and a teacher, for logits [B, K] or, in training, for two heads.

    With the weight w, cross-entropy CE, and the logits z of the labels' head and z' of
    the teacher's head ("logits" and "distilled", as `deit` has them with
    `distilled_training`; a model with one head has z' = z), the loss is

        hard    (1 - w) CE(z, y) + w CE(z', argmax t)                     equation 3
        soft    (1 - w) CE(z, y) + w T^2 KL(softmax(t / T), softmax(z' / T))
                                                                          equation 2

    where t are the teacher's logits on the same images and T is the temperature. The
    released code divides the soft loss by the number of classes, too. Evaluation is
    that of classification.

    Attributes:
        teacher: directory of a finished run, "WORKDIR/POINT", whose last checkpoint is
            the teacher. Its weights become part of the compiled step.
        kind: "hard" learns the teacher's decision, "soft" its probabilities.
        weight: w; None is the paper's, 0.5 if hard and 0.1 if soft.
        temperature: T.
        label_smoothing, top5: as in classification; the smoothing is of labels alone.
    """

    teacher: str
    kind: Literal["hard", "soft"] = "hard"
    weight: float | None = None
    temperature: settings.PositiveFloat = 3.0

    _read: ClassVar[Callable[[Batch], jax.Array] | None] = None
    _inputs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise settings.Invalid(f"weight must lie in [0, 1], got {self.weight}")

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("label", *self._inputs)))

    def attach(self, trained: Callable[[str], tuple[nn.Module, Any]]) -> "Distillation":
        """The task with its teacher."""
        try:
            model, variables = trained(self.teacher)
        except settings.Invalid as error:
            raise settings.Invalid(f"teacher: {error}") from error
        inputs = tuple(getattr(model, "inputs", ("image",)))

        def read(batch: Batch) -> jax.Array:
            values = (batch[name] for name in inputs)
            rngs = {"sample": jax.random.key(0)}
            logits = model.apply(variables, *values, train=False, rngs=rngs)
            return jax.lax.stop_gradient(logits)

        taught = copy.copy(self)
        object.__setattr__(taught, "_read", read)  # a frozen dataclass
        object.__setattr__(taught, "_inputs", inputs)
        return taught

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        super().check(outputs, example, facts)
        logits = jax.eval_shape(self._read, example)
        shape = getattr(logits, "shape", f"none, but {type(logits).__name__}")
        if shape != outputs.shape:
            raise settings.Invalid(
                f"the teacher has logits of shape {shape}, the model {outputs.shape}"
            )

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", its two parts, and the "error" of the mean of both heads."""
        if isinstance(outputs, Mapping):
            own, distilled = outputs["logits"], outputs["distilled"]
        else:
            own = distilled = outputs
        found = super().loss((own + distilled) / 2, batch)
        labels = super().loss(own, batch)["loss"]
        teacher = self._of_teacher(distilled, self._read(batch))
        weight = WEIGHTS[self.kind] if self.weight is None else self.weight
        total = (1 - weight) * labels.total + weight * teacher
        return {
            **found,
            "loss": Mean(total, labels.weight),
            "label_loss": labels,
            "teacher_loss": Mean(teacher, labels.weight),
        }

    def _of_teacher(self, logits: jax.Array, teacher: jax.Array) -> jax.Array:
        """The loss of each example against the teacher's logits, [B]."""
        if self.kind == "hard":
            said = jnp.argmax(teacher, axis=-1)
            return optax.softmax_cross_entropy_with_integer_labels(logits, said)
        own = jax.nn.log_softmax(logits / self.temperature)
        said = jax.nn.log_softmax(teacher / self.temperature)
        divergence = jnp.sum(jnp.exp(said) * (said - own), axis=-1)
        return self.temperature**2 * divergence
