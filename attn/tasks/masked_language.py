"""Masked language: the words at masked places of a text, after Taylor's cloze, 1953.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", NAACL 2019, https://arxiv.org/abs/1810.04805, section 3.1, task 1. Which
words are masked, and what stands in their place, is the data's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from attn import settings
from attn.tasks import tokens
from attn.tasks.base import Batch, Mean, Metric, Task
from attn.tasks.next_sentence import ACCURACY, FIELD, NextSentence, check_output
from attn.tasks.translation import perplexity

HEAD = "masked"  # of the outputs; of the batch, the words that were there
FIGURES = (
    Metric("log_perplexity", "log perplexity", unit="nats/word", digits=3),
    Metric("perplexity", "perplexity", kind="corpus"),
    Metric("masked_accuracy", "masked-word accuracy", unit="%", better="higher"),
)
SHOWN = 6  # words in a caption


@dataclasses.dataclass(frozen=True)
class MaskedLanguage(Task):
    """Cross-entropy at masked places, with that of the next sentence beside it.

    Logits [B, P, V], the output "masked" of a model, for the words "masked" [B, P]
    where "places_mask" says that there are any. The loss is a mean over these words;
    with `next_sentence` the mean of the other loss over examples is added, as in the
    paper.

    Attributes:
        next_sentence: whether that is trained and measured too (`NextSentence`).
    """

    next_sentence: bool = True

    _next: ClassVar[NextSentence] = NextSentence()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (*FIGURES, ACCURACY) if self.next_sentence else FIGURES

    @property
    def fields(self) -> tuple[str, ...]:
        own = (HEAD, "places_mask")
        return (*own, FIELD) if self.next_sentence else own

    @property
    def minimised(self) -> tuple[str, ...]:
        return ("masked_loss", "next_loss") if self.next_sentence else ("masked_loss",)

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        words = facts.get("vocab_size")
        if words is None:
            raise settings.Invalid(
                "task 'masked_language' needs the fact 'vocab_size' of a data set"
            )
        check_output(outputs, HEAD, (*example[HEAD].shape, words))
        if self.next_sentence:
            self._next.check(outputs, example, facts)

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "masked_loss" and "masked_accuracy", and those of the next sentence."""
        logits, words, mask = outputs[HEAD], batch[HEAD], batch["places_mask"]
        right = 100.0 - tokens.wrong(logits, words)
        found = {
            "masked_loss": tokens.over(tokens.cross_entropy(logits, words), mask),
            "masked_accuracy": tokens.over(right, mask),
        }
        if self.next_sentence:
            other = self._next.loss(outputs, batch)
            found["next_loss"] = other.pop("loss")
            found |= other
        return found

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The same, with "log_perplexity" for the loss of masked words."""
        found = self.loss(outputs, batch)
        return {"log_perplexity": found.pop("masked_loss"), **found}

    def derive(self, values: Mapping[str, float]) -> dict[str, float]:
        """The "perplexity" of masked words, and the "loss", the sum of both."""
        loss = values["log_perplexity"] + values.get("next_loss", 0.0)
        return {"perplexity": perplexity(values["log_perplexity"]), "loss": loss}

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        """Captions "word → guess" of the first masked words of each example."""
        said = np.argmax(outputs[HEAD], axis=-1)
        name = word_names(facts)
        found = []
        rows = zip(batch[HEAD], said, batch["places_mask"], strict=True)
        for right, guess, mask in rows:
            pairs = zip(
                name(right[mask][:SHOWN]), name(guess[mask][:SHOWN]), strict=True
            )
            caption = ", ".join(f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in pairs)
            found.append((caption, bool((right != guess)[mask].any())))
        return found


def word_names(facts: Mapping[str, Any]) -> Any:
    """The function from tokens to what they are called: their pieces, or numbers."""
    numbers = lambda ids: [str(int(i)) for i in ids]
    return getattr(facts.get("tokenizer"), "words", numbers)
