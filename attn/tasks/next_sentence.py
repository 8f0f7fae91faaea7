"""Next sentence: whether a second text follows a first one, or is from elsewhere.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", NAACL 2019, https://arxiv.org/abs/1810.04805, section 3.1, task 2.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from attn import settings
from attn.tasks import tokens
from attn.tasks.base import Batch, Mean, Metric, Task

FIELD = "is_next"  # of the outputs, and of the batch
ACCURACY = Metric(
    "next_accuracy", "next-sentence accuracy", unit="%", better="higher", kind="share"
)
ANSWERS = ("from elsewhere", "follows")


@dataclasses.dataclass(frozen=True)
class NextSentence(Task):
    """Logits [B, 2], the output "is_next" of a model, for "is_next" [B], 1 if it is.

    `masked_language` has it beside its own loss.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY,)
    fields: ClassVar[tuple[str, ...]] = (FIELD,)

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        del facts
        check_output(outputs, FIELD, (*example[FIELD].shape, 2))

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", and the "next_accuracy" in percent."""
        logits, right = outputs[FIELD], batch[FIELD]
        losses = tokens.cross_entropy(logits, right)
        one = jnp.ones_like(losses)
        accuracy = Mean(100.0 - tokens.wrong(logits, right), one)
        return {"loss": Mean(losses, one), "next_accuracy": accuracy}

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The same, of each example."""
        return self.loss(outputs, batch)

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        """Captions "follows → from elsewhere"."""
        del facts
        said = np.argmax(outputs[FIELD], axis=-1)
        return [
            (
                f"{ANSWERS[right]} \N{RIGHTWARDS ARROW} {ANSWERS[answer]}",
                answer != right,
            )
            for right, answer in zip(batch[FIELD].tolist(), said.tolist(), strict=True)
        ]


def check_output(outputs: Any, name: str, shape: Sequence[int]) -> None:
    """Refuses outputs of a model without logits of this name and shape.

    Raises:
        settings.Invalid: they are missing, or of another shape.
    """
    if not isinstance(outputs, Mapping) or name not in outputs:
        found = ", ".join(outputs) if isinstance(outputs, Mapping) else "no names"
        raise settings.Invalid(
            f"the task needs the output {name!r} of a model, such as 'bert' has with"
            f" that head; this one has {found}"
        )
    if outputs[name].shape != tuple(shape):
        raise settings.Invalid(
            f"the output {name!r} of the model must be of shape {tuple(shape)}, got"
            f" {outputs[name].shape}"
        )
