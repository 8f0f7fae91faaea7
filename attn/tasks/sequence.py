"""Sequences: some labels an image in an order, right only if all of them are.

House numbers in the spatial-transformer paper (https://arxiv.org/abs/1506.02025,
section 4.2, after Goodfellow et al., 2014, https://arxiv.org/abs/1312.6082): a softmax
for each place, with a class for "none" after the last digit. Goodfellow et al. predict
the length apart and train the places before it only; here, as in the later paper,
every place counts.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from attn import settings
from attn.tasks.classification import Metrics


@dataclasses.dataclass(frozen=True)
class Sequence:
    """n labels an image, each one of K classes.

    Attributes:
        label_smoothing: as in `Classification`, at each place; in training only.
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
        """The mean loss of logits [B, n, K] and labels [B, n], and what to log.

        That is the loss, a mean over places too, and the error: the percentage of
        examples of which any place is wrong.

        Raises:
            Invalid: logits or labels of other shapes.
        """
        _fits(logits, batch["label"])
        targets = jax.nn.one_hot(batch["label"], logits.shape[-1])
        targets = optax.smooth_labels(targets, self.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        error = 100 * jnp.mean(_wrong(logits, batch["label"]))
        return loss, {"loss": loss, "error": error}

    def sums(self, logits: jax.Array, batch: Mapping[str, jax.Array]) -> Metrics:
        """What one batch adds to an evaluation; examples of weight 0 add nothing."""
        label, weight = batch["label"], batch["weight"]
        _fits(logits, label)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return {
            "loss": jnp.sum(weight * losses.mean(axis=-1)),
            "error": 100 * jnp.sum(weight * _wrong(logits, label)),
            "examples": jnp.sum(weight),
        }


def _wrong(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Whether any place is wrong: [B]."""
    return jnp.any(jnp.argmax(logits, axis=-1) != label, axis=-1)


def _fits(logits: jax.Array, label: jax.Array) -> None:
    if label.ndim != 2 or logits.shape[:-1] != label.shape:
        raise settings.Invalid(
            "task 'sequence' takes logits [B, n, K] for labels [B, n], got"
            f" {logits.shape} for {label.shape}: the data must give sequences, and the"
            " model as many heads"
        )
