"""recurrent_attention: classification by places that are rewarded (RAM).

Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014,
https://arxiv.org/abs/1406.6247, section 3.2: the hybrid loss, cross-entropy for what is
said after the last glimpse and REINFORCE for the places.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from attn import settings
from attn.ops import score_function
from attn.tasks.answers import Finding
from attn.tasks.base import Batch, Mean
from attn.tasks.classification import Classification


@dataclasses.dataclass(frozen=True)
class RecurrentAttention(Classification):
    """One label an image, for models that draw where they look.

    The model returns a mapping (`attn.models.recurrent_attention`): "logits"
    [B, M, T, K] of M draws and T glimpses, of which the last count; and if its places
    are learnt by reward "log_prob" [B, M, T], perhaps with "baseline" or "entropy" of
    that shape. An evaluation averages the probabilities of the M draws.

    Attributes:
        label_smoothing, top5: as of `Classification`.
        answers: whether the cross-entropy is that of the "last" answer, as in the
            paper, or the mean of those after "every" glimpse.
        reward: of a draw, and of all of its places: 1 if the last answer is right and 0
            if not, "correct", as in the paper; or its log p of the right one,
            "log_prob", as in Show, Attend and Tell. Or of each place by itself, by how
            much log p rose by what was seen there, "gain": it varies less and sees no
            further.
        baseline: what the reward is compared with: the "learnt" one of the model, as in
            the paper; the mean of the "others" of M draws; or "none".
        reward_weight: of REINFORCE, beside the cross-entropy.
        entropy_weight: of the entropy of what is drawn, which is maximised; for models
            that return it.
    """

    answers: Literal["last", "every"] = "last"
    reward: Literal["correct", "log_prob", "gain"] = "correct"
    baseline: Literal["learnt", "others", "none"] = "learnt"
    reward_weight: settings.NotNegative = 1.0
    entropy_weight: settings.NotNegative = 0.0

    probes: ClassVar[tuple[str, ...]] = ("attention", "glimpses")

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        """Refuses a model that lacks logits of draws and glimpses.

        Raises:
            Invalid: as of `Classification`.
        """
        logits = outputs.get("logits") if hasattr(outputs, "get") else outputs
        shape = getattr(logits, "shape", ())
        if not hasattr(outputs, "get") or len(shape) != 4:
            raise settings.Invalid(
                "task 'recurrent_attention' takes a model whose outputs have logits"
                f" [B, M, T, K], such as 'recurrent_attention', got {shape}"
            )
        super().check(self._average(outputs), example, facts)

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", and of what it consists: "cross_entropy" and "reinforce"."""
        logits = outputs["logits"]
        targets = jax.nn.one_hot(batch["label"], logits.shape[-1])[:, None, None]
        smooth = optax.smooth_labels(targets, self.label_smoothing)
        smooth = jnp.broadcast_to(smooth, logits.shape)
        entropy = optax.softmax_cross_entropy(logits, smooth)
        last = self.answers == "last"
        parts = {"cross_entropy": entropy[..., -1] if last else entropy.mean(axis=-1)}
        wrong = jnp.argmax(logits[:, :, -1], axis=-1) != batch["label"][:, None]
        if "log_prob" in outputs:
            reward = self._reward(logits, targets, wrong)
            parts |= self._rewarded(outputs, jax.lax.stop_gradient(reward))
        parts = {name: part.mean(axis=1) for name, part in parts.items()}
        found = {
            "loss": sum(parts.values()),
            **parts,
            "error": 100 * wrong.mean(axis=1),
        }
        return {name: Mean(part, jnp.ones_like(part)) for name, part in found.items()}

    def _reward(
        self, logits: jax.Array, targets: jax.Array, wrong: jax.Array
    ) -> jax.Array:
        """What each place is rewarded by, [B, M, T], or all of a draw, [B, M, 1]."""
        if self.reward == "correct":
            return 1.0 - wrong[..., None]
        targets = jnp.broadcast_to(targets, logits.shape)
        log_prob = -optax.softmax_cross_entropy(logits, targets)
        if self.reward == "log_prob":
            return log_prob[..., -1:]
        nothing = jnp.full_like(log_prob[..., :1], -np.log(logits.shape[-1]))
        return jnp.diff(log_prob, prepend=nothing)

    def _rewarded(self, outputs: Any, reward: jax.Array) -> dict[str, jax.Array]:
        """The losses of places, [B, M] each.

        Raises:
            Invalid: a baseline that is not there, or of others where there are none.
        """
        parts = {}
        compared: jax.Array | float = 0.0
        if self.baseline == "learnt":
            if "baseline" not in outputs:
                raise settings.Invalid(
                    "baseline 'learnt' is the model's, and this one has none: take"
                    " 'others' or 'none'"
                )
            compared = outputs["baseline"]
            off = score_function.baseline_loss(compared, reward)
            parts["baseline"] = off.mean(axis=-1)
        elif self.baseline == "others":
            if reward.shape[1] < 2:
                raise settings.Invalid(
                    "baseline 'others' compares draws of one image: it needs a model"
                    f" with samples of at least 2, got {reward.shape[1]}"
                )
            others = score_function.leave_one_out(jnp.swapaxes(reward, 1, 2))
            compared = jnp.swapaxes(others, 1, 2)
        lost = score_function.score_function_loss(outputs["log_prob"], reward, compared)
        parts["reinforce"] = self.reward_weight * lost.sum(axis=-1)
        if "entropy" in outputs and self.entropy_weight:
            spread = outputs["entropy"].sum(axis=-1)
            parts["entropy"] = -self.entropy_weight * spread
        return parts

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        return super().evaluate(self._average(outputs), batch)

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        return super().describe(np.asarray(self._average(outputs)), batch, facts)

    def recognise(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[list[Finding]]:
        return super().recognise(np.asarray(self._average(outputs)), batch, facts)

    @staticmethod
    def _average(outputs: Any) -> Any:
        """The log of the probabilities after the last glimpse, averaged over draws."""

        def averaged(logits: jax.Array) -> jax.Array:
            logs = jax.nn.log_softmax(logits[:, :, -1])
            return jax.nn.logsumexp(logs, axis=1) - np.log(logs.shape[1])

        if isinstance(outputs["logits"], jax.ShapeDtypeStruct):
            return jax.eval_shape(averaged, outputs["logits"])
        return averaged(jnp.asarray(outputs["logits"]))
