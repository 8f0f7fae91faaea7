"""Classification: cross-entropy with label smoothing, and the error in percent."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from attn import settings
from attn.tasks import answers
from attn.tasks.answers import Finding
from attn.tasks.base import Batch, Mean, Metric, Task

ERROR = Metric("error", "error", unit="%", kind="share")
MOST = 5  # classes that are named of a picture
NOTHING = "none"  # the class of a place without a character, in a row of classes
TOP5 = Metric("top5_error", "top-5 error", unit="%", kind="share")


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One label an image: logits [B, K] for labels [B].

    Attributes:
        label_smoothing: the share of the target spread evenly over all classes
            (Szegedy et al. 2015, arXiv 1512.00567, section 7); in training only.
        top5: whether the percentage of images whose label is not among the five
            highest logits is measured too, as papers on ImageNet do.
    """

    label_smoothing: float = 0.0
    top5: bool = False

    fields: ClassVar[tuple[str, ...]] = ("label",)
    probes: ClassVar[tuple[str, ...]] = ("attention", "class_gates", "measures")
    _labels: ClassVar[str] = "[B]"
    _logits: ClassVar[str] = "[B, K]"
    _advice: ClassVar[str] = "sequences of labels need task 'sequence'"

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise settings.Invalid(
                f"label_smoothing must lie in [0, 1), got {self.label_smoothing}"
            )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (ERROR, TOP5) if self.top5 else (ERROR,)

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        label, logits = example["label"].shape, getattr(outputs, "shape", ())
        if len(label) != self._labels.count(",") + 1 or logits[:-1] != label:
            raise settings.Invalid(
                f"task {type(self).__name__.lower()!r} takes logits {self._logits} for"
                f" labels {self._labels}, got {logits or type(outputs).__name__} for"
                f" {label}: {self._advice}"
            )
        classes = facts.get("num_classes", logits[-1])
        if logits[-1] != classes:
            raise settings.Invalid(
                f"the model has {logits[-1]} logits for {classes} classes of the data"
            )

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", and the "error" in percent."""
        targets = jax.nn.one_hot(batch["label"], outputs.shape[-1])
        targets = optax.smooth_labels(targets, self.label_smoothing)
        losses = optax.softmax_cross_entropy(outputs, targets)
        return {"loss": _mean(losses), "error": _percent(_wrong(outputs, batch))}

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss" without smoothing, the "error", and "top5_error" if asked for."""
        label = batch["label"]
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, label)
        found = {"loss": _mean(losses), "error": _percent(_wrong(outputs, batch))}
        if self.top5:
            own = jnp.take_along_axis(outputs, label[..., None], axis=-1)
            # ties count against the model: a constant output knows nothing
            beyond = jnp.sum(outputs < own, axis=-1) < outputs.shape[-1] - 5
            found["top5_error"] = _percent(_any_place(beyond))
        return found

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        """Captions "label → prediction"."""
        del self
        names = facts["class_names"]
        taken = np.argmax(outputs, axis=-1)
        pairs = [
            (_text(own, names), _text(said, names))
            for own, said in zip(batch["label"], taken, strict=True)
        ]
        return [
            (f"{own} \N{RIGHTWARDS ARROW} {said}", own != said) for own, said in pairs
        ]

    def recognise(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[list[Finding]]:
        """The classes of highest probability, or the most probable row of classes."""
        del batch
        names = facts["class_names"]
        weights = np.asarray(jax.nn.softmax(np.asarray(outputs, np.float32)))
        if np.isnan(weights).any():
            raise answers.broken()
        if weights.ndim == 3:  # of rows of classes, whose places are independent
            rows = weights.argmax(axis=-1)
            shares = weights.max(axis=-1).prod(axis=-1).tolist()
            pairs = zip(rows, shares, strict=True)
            return [[Finding(_text(row, names), share)] for row, share in pairs]
        best = np.argsort(-weights, axis=-1, kind="stable")[:, :MOST]
        return [
            [Finding(names[label], float(row[label])) for label in labels.tolist()]
            for row, labels in zip(weights, best, strict=True)
        ]


def _text(labels: np.ndarray, names: Sequence[str]) -> str:
    """A class by its name; a row of classes as one word, without those named none."""
    if np.ndim(labels) == 0:
        return names[labels]
    return "".join(names[i] for i in labels if names[i] != NOTHING) or NOTHING


def _any_place(wrong: jax.Array) -> jax.Array:
    """Whether any place of an example is wrong: [B] or [B, n] -> [B]."""
    return jnp.any(wrong.reshape(len(wrong), -1), axis=1)


def _wrong(logits: jax.Array, batch: Batch) -> jax.Array:
    return _any_place(jnp.argmax(logits, axis=-1) != batch["label"])


def _mean(losses: jax.Array) -> Mean:
    """One of each example, itself a mean over its places."""
    losses = losses.reshape(len(losses), -1).mean(axis=1)
    return Mean(losses, jnp.ones_like(losses))


def _percent(wrong: jax.Array) -> Mean:
    return Mean(100.0 * wrong, jnp.ones(wrong.shape))
