"""Captioning: the words of an image, one after the other, and where each was seen.

Xu et al., "Show, Attend and Tell", ICML 2015, https://arxiv.org/abs/1502.03044,
equations 11, 12 and 14. The weight of the entropy of hard attention is that of the code
which the authors published. Losses are divided by the words of the global batch, where
the paper has a sum over the captions: the same gradient, times a number. A reward of
each draw by its own word, and a baseline that is learnt, are not the paper's.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn import explain, ops, settings
from attn.tasks import bleu, tokens
from attn.tasks.base import Batch, Mean, Metric
from attn.tasks.translation import EXACT, FIGURES, TARGET, Translation

BASELINE = "reward_average"
# What stands for unknown words where captions are scored: it counts as a word, and one
# that is said is none of those that are meant, as the words themselves would be none.
SAID, MEANT = "\N{DOUBLE QUESTION MARK}", "\N{QUESTION EXCLAMATION MARK}"
ENTROPY = Metric("attention_entropy", "entropy of the attention", unit="%")
GROUNDED = (
    Metric("inside", "attention inside", unit="%", better="higher"),
    Metric("pointing", "pointing game", unit="%", better="higher"),
)
TRUTH = (
    Metric("true", "true captions", unit="%", better="higher", kind="corpus"),
    Metric("things", "things named", unit="%", better="higher", kind="corpus"),
    Metric("relations", "relations right", unit="%", better="higher", kind="corpus"),
)


@dataclasses.dataclass(frozen=True)
class Captioning(Translation):
    """Cross-entropy a word, penalty and reward of the attention; BLEU-1 to 4, truth.

    A model returns "logits" [B, T, V] and, where it can, "attention" [B, T, h, w],
    what each word read of the image, and "log_prob" and "entropy" [B, T] of what it
    drew in training, perhaps with the "baseline" [B, T] that it learns. `encode` and
    `decode` are as in `Translation`, of which the loss of words, the search and the
    exact match are.

    The "attention_entropy" is in percent of that of an even map. Of data that say so
    (the fact `grounded`), "inside" is the share of the attention inside the box of the
    thing that a word names while it was written, the words before it being right;
    "pointing" is whether its highest point lies there. Of data that have `claims`,
    a caption is "true" if it claims what the right one does, in any order; "things"
    and "relations" are how many of them are right, of those that are said or should
    be, whichever are more.

    Attributes:
        penalty: lambda of the doubly stochastic penalty, 1 in the paper.
        reward: weight of the surrogate loss of REINFORCE, for attention that draws.
        credit: what a draw is rewarded by: the log-probability of the whole "caption",
            as in the paper, or of the "word" that was written after it. The latter
            varies less and sees no further.
        baseline: what the reward is compared with: its moving "average", as in the
            paper, or what the model has "learnt" to expect.
        entropy: weight of the entropy of what it drew from.
        decay: of the moving average of rewards that is the baseline, 0.9 in the paper.
        label_smoothing, beams, length_penalty: as of `Translation`; the paper has no
            smoothing and tells of no length penalty.
        extra_length: tokens of a caption at most, beyond the longest of the data.
        start, end, pad, max_length, claims, grounded: facts of the data.
    """

    penalty: settings.NotNegative = 1.0
    reward: settings.NotNegative = 1.0
    credit: Literal["caption", "word"] = "caption"
    baseline: Literal["average", "learnt"] = "average"
    entropy: settings.NotNegative = 0.002
    decay: settings.Decay = 0.9
    label_smoothing: settings.Decay = 0.0
    length_penalty: settings.NotNegative = 0.0
    extra_length: settings.Count = 0
    max_length: settings.Positive | None = None
    claims: Any = None
    grounded: bool = False

    called: ClassVar[str] = "captioning"
    optional: ClassVar[tuple[str, ...]] = (
        *("boxes", "boxes_mask", "named"),
        *("references", "references_mask"),
    )
    kept: ClassVar[Mapping[str, float]] = {BASELINE: 0.0}
    probes: ClassVar[tuple[str, ...]] = ("captions",)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        scores = (
            Metric(
                name,
                f"BLEU-{name[-1]}",
                better="higher",
                kind="corpus",
                note=bleu.signature(name),
            )
            for name in reversed(bleu.ORDERS)
        )
        truth = TRUTH if self.claims is not None else ()
        where = GROUNDED if self.grounded else ()
        return (*FIGURES, *scores, *truth, EXACT, *where, ENTROPY)

    def logits(self, outputs: Any) -> Any:
        return _named(outputs).get("logits")

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        """Refuses a model whose outputs do not fit.

        Raises:
            Invalid: as of `Translation`, or a baseline that is not there or not read.
        """
        super().check(outputs, example, facts)
        if self.baseline == "learnt" and "baseline" not in _named(outputs):
            raise settings.Invalid(
                "task.baseline='learnt' is the model's, and this one has none: set"
                " model.baseline=True, or task.baseline='average'"
            )
        if self.baseline == "average" and "baseline" in _named(outputs):
            raise settings.Invalid(
                "model.baseline=True learns what task.baseline='average' does not read:"
                " set task.baseline='learnt', or model.baseline=False"
            )

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", and of its parts those that mean something by themselves.

        Raises:
            Invalid: a baseline is learnt, and nothing is drawn.
        """
        found = super().loss(outputs, batch)
        total, words = found["loss"]
        outputs, mask = _named(outputs), batch["target_mask"]
        ones = jnp.ones(len(mask))
        if "attention" in outputs:
            weights = outputs["attention"].reshape(*mask.shape, -1)
            penalty = ops.doubly_stochastic_penalty(weights, mask)
            found["penalty"] = Mean(penalty, ones)
            total += self.penalty * penalty
        if "baseline" in outputs and "log_prob" not in outputs:
            raise settings.Invalid(
                "model.baseline=True expects the reward of what is drawn, and the"
                " attention of this model draws nothing: set model.baseline=False and"
                " task.baseline='average'"
            )
        if "log_prob" in outputs:
            reward, parts = self._rewarded(outputs, batch)
            found["reward"] = Mean(reward.sum(axis=1), ones)
            total += sum(parts)
        return {**found, "loss": Mean(total, words)}

    def _rewarded(
        self, outputs: Mapping[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, list[jax.Array]]:
        """The rewards, [B, 1] or [B, T], and the losses of what was drawn, [B] each."""
        mask, reward = batch["target_mask"], self._reward(outputs, batch)
        over = lambda values: jnp.where(mask, values, 0.0).sum(axis=1)
        parts = [-self.entropy * over(outputs["entropy"])]
        compared = batch[BASELINE]
        if self.baseline == "learnt":
            compared = outputs["baseline"]
            parts.append(over(ops.baseline_loss(compared, reward)))
        lost = ops.score_function_loss(outputs["log_prob"], reward, compared)
        return reward, [*parts, self.reward * over(lost)]

    def keep(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """The moving average of rewards, where there are any.

        With credit="word" each device's mean over its words counts alike.
        """
        outputs, average = _named(outputs), batch[BASELINE]
        if "log_prob" not in outputs:
            return {BASELINE: average}
        reward = self._reward(outputs, batch)
        if self.credit == "word":  # of real words
            mask = batch["target_mask"]
            reward = reward.sum() / jnp.maximum(mask.sum(), 1)
        return {BASELINE: ops.moving_average(average, reward, self.decay)}

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """What `Translation` has, and where the attention was."""
        found = super().evaluate(outputs, batch)
        outputs, mask = _named(outputs), batch["target_mask"]
        none = Mean(jnp.zeros(len(mask)), jnp.zeros(len(mask)))
        names = [ENTROPY.name, *(one.name for one in GROUNDED if self.grounded)]
        if "attention" not in outputs:
            return found | dict.fromkeys(names, none)
        maps = outputs["attention"]
        spread = explain.entropy(maps.reshape(-1, *maps.shape[2:]))
        found[ENTROPY.name] = tokens.over(100 * spread.reshape(mask.shape), mask)
        return {**found, **(_grounded(maps, batch) if self.grounded else {})}

    def room(self, model: nn.Module, batch: Batch) -> tuple[int, jax.Array | None]:
        longest = self.max_length or batch[TARGET].shape[1]
        return longest + self.extra_length, None

    def score(
        self,
        predictions: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ) -> dict[str, float]:
        """BLEU-1 to 4, exact match with a reference, and truth.

        A word that is unknown to the vocabulary is like no other.
        """
        said = self.texts(predictions["words"], facts)
        right = self.references(batch, facts)
        several = [[text] for text in right]
        if "references" in batch:
            several = self._several(batch, facts)
        unknown = getattr(facts.get("tokenizer"), "unknown", "")
        if unknown:
            said = _marked(said, unknown, SAID)
            several = [_marked(texts, unknown, MEANT) for texts in several]
        pairs = list(zip(said, several, strict=True))
        exact = 100 * float(np.mean([text in known for text, known in pairs]))
        found = {**bleu.orders(said, several), "exact": exact}
        return found | (truth(self.claims, said, right) if self.claims else {})

    def _several(
        self, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[list[str]]:
        """All references of each image, [n, R, L], without those that are empty."""
        words = np.where(batch["references_mask"], batch["references"], self.pad)
        texts = self.texts(words.reshape(-1, words.shape[-1]), facts)
        there = batch["references_mask"].any(axis=-1)
        count = words.shape[1]
        return [
            [text for text, real in zip(texts[i * count :], row, strict=False) if real]
            for i, row in enumerate(there)
        ]

    def _reward(self, outputs: Mapping[str, jax.Array], batch: Batch) -> jax.Array:
        """The log-probability of each word, [B, T], or of each caption, [B, 1]."""
        losses = tokens.cross_entropy(outputs["logits"], batch["target"])
        words = -jnp.where(batch["target_mask"], losses, 0.0)
        return words if self.credit == "word" else words.sum(axis=1, keepdims=True)


def _named(outputs: Any) -> Mapping[str, Any]:
    """The outputs of a model by name; those of one that has no names are logits."""
    return outputs if isinstance(outputs, Mapping) else {"logits": outputs}


def truth(claims: Any, said: Sequence[str], right: Sequence[str]) -> dict[str, float]:
    """How much of what captions claim is right, by kind, and how many are "true".

    Args:
        claims: of the data: from a caption to counts of what it claims, by kind.
        said: captions.
        right: those that are true.
    """
    pairs = [(claims(a), claims(b)) for a, b in zip(said, right, strict=True)]
    found = {"true": 100 * float(np.mean([a == b for a, b in pairs]))}
    for metric in TRUTH[1:]:
        sides = [(a[metric.name], b[metric.name]) for a, b in pairs]
        both = sum(_size(a & b) for a, b in sides)
        most = sum(max(_size(a), _size(b)) for a, b in sides)
        found[metric.name] = 100 * both / max(most, 1)
    return found


def _marked(texts: Sequence[str], unknown: str, mark: str) -> list[str]:
    """Texts with a mark in the place of each unknown word."""
    return [
        " ".join(mark if word == unknown else word for word in text.split(" "))
        for text in texts
    ]


def _size(counts: Counter) -> int:
    return sum(counts.values())


def _grounded(maps: jax.Array, batch: Batch) -> dict[str, Mean]:
    """Whether maps [B, T, h, w] lie on the things that the words name.

    Of the first word that names each thing.
    """
    things = jnp.arange(batch["boxes"].shape[1])[None, :, None]
    naming = batch["named"][:, None] == things  # [B, N, T]
    naming &= batch["target_mask"][:, None]
    place = jnp.argmax(naming, axis=-1)
    there = batch["boxes_mask"] & naming.any(axis=-1)
    own = jnp.take_along_axis(maps, place[:, :, None, None], axis=1)
    size = batch["image"].shape[1:3]
    inside = _boxes(batch["boxes"], size).reshape(-1, *size)
    own = explain.spread(explain.normalise(own.reshape(-1, *own.shape[2:])), size)
    scores = {
        "inside": explain.share_inside(own, inside),
        "pointing": explain.pointing_game(own, inside),
    }
    return {
        name: tokens.over(100 * values.reshape(there.shape), there)
        for name, values in scores.items()
    }


def _boxes(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Boxes [B, N, 4] in pixels as masks of these pixels, bool [B, N, H, W]."""
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)[..., None]
    rows, columns = ((jnp.arange(side) + 0.5)[None, None] for side in size)
    upright = (rows > y0) & (rows < y1)
    return upright[..., :, None] & ((columns > x0) & (columns < x1))[..., None, :]
