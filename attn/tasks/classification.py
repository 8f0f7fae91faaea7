"""Classification: cross-entropy with label smoothing, and the error in percent."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from attn import settings

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Classification:
    """One label an image.

    Attributes:
        label_smoothing: the share of the target spread evenly over all classes
            (Szegedy et al. 2015, arXiv 1512.00567, section 7); in training only.
    """

    label_smoothing: float = 0.0

    metrics: ClassVar[tuple[str, ...]] = ("loss", "error")

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise settings.Invalid(
                f"label_smoothing must lie in [0, 1), got {self.label_smoothing}"
            )

    def loss(
        self, logits: jax.Array, batch: Mapping[str, jax.Array]
    ) -> tuple[jax.Array, Metrics]:
        """The mean loss of logits [B, K], and what to log: loss, error in percent.

        Raises:
            Invalid: labels that are not [B], or logits of another shape.
        """
        _fits(logits, batch["label"])
        targets = jax.nn.one_hot(batch["label"], logits.shape[-1])
        targets = optax.smooth_labels(targets, self.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        error = 100 * jnp.mean(jnp.argmax(logits, axis=-1) != batch["label"])
        return loss, {"loss": loss, "error": error}

    def sums(self, logits: jax.Array, batch: Mapping[str, jax.Array]) -> Metrics:
        """What one batch adds to an evaluation; examples of weight 0 add nothing."""
        _fits(logits, batch["label"])
        weight = batch["weight"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        wrong = jnp.argmax(logits, axis=-1) != batch["label"]
        return {
            "loss": jnp.sum(weight * losses),
            "error": 100 * jnp.sum(weight * wrong),
            "examples": jnp.sum(weight),
        }


def _fits(logits: jax.Array, label: jax.Array) -> None:
    if label.ndim != 1 or logits.shape[:-1] != label.shape:
        raise settings.Invalid(
            "task 'classification' takes logits [B, K] for labels [B], got"
            f" {logits.shape} for {label.shape}: sequences of labels need task"
            " 'sequence', and a model of several heads too"
        )
