"""Translation: the words of a target, one after the other, given a source.

Sutskever et al., "Sequence to Sequence Learning with Neural Networks", NeurIPS 2014,
https://arxiv.org/abs/1409.3215. The source may be anything that a model encodes, so
that captions are translations of images.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn import decoding, settings
from attn.tasks import answers, bleu, tokens
from attn.tasks.answers import Answer
from attn.tasks.base import Batch, Mean, Metric, Task

SOURCE = ("source", "source_mask")
TARGET = "target_in"  # the input of a model that is no source
FIGURES = (
    Metric("log_perplexity", "log perplexity", unit="nats/token", digits=3),
    Metric("perplexity", "perplexity", kind="corpus"),
    Metric("token_error", "token error", unit="%"),
)
EXACT = Metric("exact", "exact match", unit="%", better="higher", kind="corpus")
LABELS = {"bleu": "BLEU", "chrf": "chrF"}


@dataclasses.dataclass(frozen=True)
class Translation(Task):
    """Cross-entropy a token; BLEU, chrF and exact match of what is decoded.

    Logits [B, T, V] of a model that reads "target_in" [B, T], the start and the words,
    for "target", the words and the end. The model has `encode` and `decode`, as
    `attn.decoding` says. Sentences that the model gives NaN are empty.

    Attributes:
        label_smoothing: the share of the target spread evenly over all words, in
            training only; 0.1 in "Attention Is All You Need" (Vaswani et al. 2017).
        beams: of the search; 1 is greedy.
        length_penalty: alpha of `attn.decoding.length_penalty`, 0.6 there.
        extra_length: tokens of a translation at most, beyond those of the source, 50
            there; a model with positions for fewer tokens says fewer.
        start, end, pad: tokens before and behind a target; facts of the data.
    """

    label_smoothing: settings.Decay = 0.1
    beams: settings.Positive = decoding.BEAMS
    length_penalty: settings.NotNegative = decoding.ALPHA
    extra_length: settings.Positive = 50
    start: settings.Count | None = None
    end: settings.Count | None = None
    pad: settings.Count = 0

    called: ClassVar[str] = "translation"  # in errors
    fields: ClassVar[tuple[str, ...]] = (TARGET, "target", "target_mask")
    methods: ClassVar[tuple[str, ...]] = ("encode", "decode")
    probes: ClassVar[tuple[str, ...]] = ("attention", "translations")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        scores = (
            Metric(
                name,
                LABELS[name],
                better="higher",
                kind="corpus",
                note=bleu.signature(name),
            )
            for name in bleu.SCORES
        )
        return (*FIGURES, *scores, EXACT)

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        target = example["target"].shape
        logits = getattr(self.logits(outputs), "shape", ())
        if logits[:-1] != target or len(logits) != 3:
            raise settings.Invalid(
                f"task {self.called!r} takes logits [B, T, V] for targets {target}, got"
                f" {logits or type(outputs).__name__}"
            )
        words = facts.get("vocab_size", logits[-1])
        if logits[-1] != words:
            raise settings.Invalid(
                f"the model has {logits[-1]} logits for {words} words of the data"
            )
        if self.start is None or self.end is None:
            raise settings.Invalid(
                f"task {self.called!r} needs the tokens 'start' and 'end', which the"
                " data set does not tell"
            )
        decoding.check(self.beams, words)

    def logits(self, outputs: Any) -> Any:
        """The logits among the outputs of a model."""
        return outputs

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", and the "token_error" in percent."""
        logits = self.logits(outputs)
        losses = tokens.cross_entropy(logits, batch["target"], self.label_smoothing)
        return {
            "loss": tokens.over(losses, batch["target_mask"]),
            "token_error": _token_error(logits, batch),
        }

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "log_perplexity", the loss without smoothing, and the "token_error"."""
        logits = self.logits(outputs)
        losses = tokens.cross_entropy(logits, batch["target"])
        mean = tokens.over(losses, batch["target_mask"])
        error = _token_error(logits, batch)
        return {"loss": mean, "log_perplexity": mean, "token_error": error}

    def derive(self, values: Mapping[str, float]) -> dict[str, float]:
        """The "perplexity"."""
        return {"perplexity": perplexity(values["log_perplexity"])}

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        """Captions "target → the likeliest words", each given the right ones before."""
        mask = batch["target_mask"]
        said = np.where(mask, np.argmax(self.logits(outputs), axis=-1), self.pad)
        right = np.where(mask, batch["target"], self.pad)
        wrong = (said != right).any(axis=1)
        pairs = zip(self.texts(right, facts), self.texts(said, facts), strict=True)
        captions = [f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in pairs]
        return list(zip(captions, wrong.tolist(), strict=True))

    def predict(
        self, model: nn.Module, variables: Any, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """The "words" of the best translation, int32 [B, L], its end among them."""
        words = self.search(model, variables, batch, key).tokens[:, 0]
        # once at least, as batches of unlike length are put together with zeros behind
        return {"words": jnp.pad(words, ((0, 0), (0, 1)), constant_values=self.pad)}

    def search(
        self, model: nn.Module, variables: Any, batch: Batch, key: jax.Array
    ) -> decoding.Found:
        """The translations of the fields of a batch that a model reads as sources.

        Args:
            model, variables: what translates.
            batch: the model's inputs, but for the target.
            key: for a model that draws in an evaluation.
        """
        names = [name for name in model.inputs if name != TARGET]
        most, limits = self.room(model, batch)
        return decoding.generate(
            model,
            variables,
            [batch[name] for name in names],
            start=self.start,
            end=self.end,
            length=most,
            limits=limits,
            pad=self.pad,
            beams=self.beams,
            penalty=decoding.length_penalty(self.length_penalty),
            never=[n for n in (self.pad, self.start) if n != self.end],
            rngs={"sample": key},
        )

    def room(self, model: nn.Module, batch: Batch) -> tuple[int, jax.Array | None]:
        """Tokens that may be said: of all examples at most, and of each, [B]."""
        most, limits = getattr(model, "max_length", None), None
        if "source_mask" in batch:
            limits = batch["source_mask"].sum(axis=1) + self.extra_length
            longest = batch["source_mask"].shape[1] + self.extra_length
            most = min(most or longest, longest)
        if most is None:
            most = batch[TARGET].shape[1] + self.extra_length
        return most, limits

    def score(
        self,
        predictions: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ) -> dict[str, float]:
        """BLEU, chrF, and the percentage of sentences that are right as a whole."""
        said = self.texts(predictions["words"], facts)
        references = self.references(batch, facts)
        same = [a == b for a, b in zip(said, references, strict=True)]
        return {**bleu.corpus(said, references), "exact": 100 * float(np.mean(same))}

    def respond(
        self,
        model: nn.Module,
        variables: Any,
        lines: Iterable[str],
        facts: Mapping[str, Any],
        *,
        most: int,
    ) -> Iterator[Answer]:
        """The translation of each line.

        Raises:
            settings.Invalid: the data set has no tokenizer, or the model reads more
                than a text, or its scores are NaN.
        """
        words = answers.tokenizer(facts)
        if tuple(model.inputs) != (*SOURCE, TARGET):
            raise settings.Invalid(
                f"a model that translates lines reads {', '.join((*SOURCE, TARGET))};"
                f" this one reads {', '.join(model.inputs)}"
            )
        search = jax.jit(functools.partial(self.search, model))
        room = facts["max_length"]

        def of(group: list[str]) -> list[Answer]:
            rows, notes = zip(
                *(
                    answers.cut(words.encode(line), facts["max_length"])
                    for line in group
                ),
                strict=True,
            )
            batch = dict(zip(SOURCE, answers.padded(rows, room, self.pad), strict=True))
            found = jax.device_get(search(variables, batch, jax.random.key(0)))
            if np.isnan(found.scores[:, 0]).any():
                raise answers.broken()
            said = map(answers.one_line, self.texts(found.tokens[:, 0], facts))
            return [Answer(*pair) for pair in zip(said, notes, strict=True)]

        return answers.by_group(lines, most, of)

    def references(
        self, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[str]:
        """The targets of a batch as texts."""
        right = np.where(batch["target_mask"], batch["target"], self.pad)
        return self.texts(right, facts)

    def texts(self, sentences: np.ndarray, facts: Mapping[str, Any]) -> list[str]:
        """Sentences [n, L] as texts, by the tokenizer, or else the numbers of words."""
        decode = getattr(facts.get("tokenizer"), "decode", _numbers)
        return [decode(self.until_end(sentence)) for sentence in sentences]

    def until_end(self, sentence: Sequence[int] | np.ndarray) -> list[int]:
        """The words of a sentence [L] up to its end or padding."""
        words = np.asarray(sentence)
        ends = np.flatnonzero((words == self.end) | (words == self.pad))
        return words[: ends[0] if len(ends) else None].tolist()


def perplexity(nats: float) -> float:
    """Of a mean cross-entropy in nats; infinite where it is too large for a float."""
    return math.exp(nats) if nats < 700 else math.inf


def _token_error(logits: jax.Array, batch: Batch) -> Mean:
    return tokens.over(tokens.wrong(logits, batch["target"]), batch["target_mask"])


def _numbers(words: Sequence[int]) -> str:
    return " ".join(map(str, words))
