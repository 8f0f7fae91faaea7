"""Masked language: the words at masked places of a text, after Taylor's cloze, 1953.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", NAACL 2019, https://arxiv.org/abs/1810.04805, section 3.1, task 1. Which
words are masked, and what stands in their place, is the data's; and so it is where next
words are to be predicted instead, of which the figures are then.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import numpy as np

from attn import settings
from attn.tasks import answers, tokens
from attn.tasks.answers import Answer
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
GUESSES = 5  # for a mask in an answer


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

    probes: ClassVar[tuple[str, ...]] = ("attention", "masked_words")
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

    def respond(
        self,
        model: nn.Module,
        variables: Any,
        lines: Iterable[str],
        facts: Mapping[str, Any],
        *,
        most: int,
    ) -> Iterator[Answer]:
        """Each line with its "[MASK]"s filled, and behind tabs the five best for each.

        Raises:
            settings.Invalid: the data set has no tokenizer, or the scores of the model
                are NaN.
        """
        words = answers.tokenizer(facts)
        apply = jax.jit(functools.partial(_masked, model))
        room = facts["max_length"] - 2  # for the first token and the last

        def of(group: list[str]) -> list[Answer]:
            # sentences are encoded behind a space, as in the data
            coded = (words.encode(f" {line}", special=True) for line in group)
            rows, notes = zip(*(answers.cut(row, room) for row in coded), strict=True)
            rows = [[facts["cls"], *row, facts["sep"]] for row in rows]
            batch = _batch(rows, facts)
            logits = np.asarray(apply(variables, batch))
            found = []
            for row, note, own in zip(rows, notes, logits, strict=True):
                text, why = _filled(row, own, facts)
                found.append(Answer(text, ", ".join(filter(None, (note, why)))))
            return found

        return answers.by_group(lines, most, of)


def _masked(model: nn.Module, variables: Any, batch: Batch) -> jax.Array:
    given = (batch[name] for name in model.inputs)
    rngs = {"sample": jax.random.key(0)}
    return model.apply(variables, *given, train=False, rngs=rngs)[HEAD]


def _batch(rows: Sequence[Sequence[int]], facts: Mapping[str, Any]) -> Batch:
    """What a model reads of rows of tokens, one segment each, and where masks are.

    Of next words these are the places before the masks.
    """
    values, mask = answers.padded(rows, facts["max_length"], facts["pad"])
    before = int(facts.get("causal", False))
    masked = [
        (np.flatnonzero(row == facts["mask"]) - before).tolist() for row in values
    ]
    places, _ = answers.padded(masked, facts["max_length"], 0)
    segments = np.zeros_like(values)
    names = ("tokens", "tokens_mask", "segments", "places")
    return dict(zip(names, (values, mask, segments, places), strict=True))


def _filled(
    row: Sequence[int], logits: np.ndarray, facts: Mapping[str, Any]
) -> tuple[str, str]:
    """A row with its masks filled, what else they could be, and a note."""
    words = facts["tokenizer"]
    places = np.flatnonzero(np.asarray(row) == facts["mask"])
    best, chances = guesses(logits[: len(places)], GUESSES)
    if np.isnan(chances).any():
        raise answers.broken()
    whole = np.array(row)
    whole[places] = best[:, 0]
    parts = [answers.one_line(words.decode(whole)).strip()]
    for some, own in zip(best, chances, strict=True):
        named = zip(words.words(some), own, strict=True)
        parts.append(
            ", ".join(f"{word} {100 * chance:.0f} %" for word, chance in named)
        )
    return "\t".join(parts), "" if len(places) else "it has no [MASK]"


def guesses(logits: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest words by logits [..., V], the best first, and probabilities."""
    best = np.argsort(-logits, axis=-1)[..., :most]
    own = np.take_along_axis(logits, best, axis=-1).astype(np.float64)
    high = logits.max(axis=-1, keepdims=True)
    total = np.exp(logits - high, dtype=np.float64).sum(axis=-1, keepdims=True)
    return best, np.exp(own - high) / total


def word_names(facts: Mapping[str, Any]) -> Any:
    """The function from tokens to what they are called: their pieces, or numbers."""
    numbers = lambda ids: [str(int(i)) for i in ids]
    return getattr(facts.get("tokenizer"), "words", numbers)
