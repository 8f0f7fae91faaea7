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
        reward: of each draw: 1 if its answer is right and 0 if not, "correct", as in
            the paper; or log p of the right answer, "log_prob", as in Show, Attend and
            Tell.
        baseline: what the reward is compared with: the "learnt" one of the model, as in
            the paper; the mean of the "others" of M draws; or "none".
        reward_weight: of REINFORCE, beside the cross-entropy.
        entropy_weight: of the entropy of what is drawn, which is maximised; for models
            that return it.
    """

    reward: Literal["correct", "log_prob"] = "correct"
    baseline: Literal["learnt", "others", "none"] = "learnt"
    reward_weight: settings.NotNegative = 1.0
    entropy_weight: settings.NotNegative = 0.0

    probes: ClassVar[tuple[str, ...]] = ("attention",)

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        """Refuses a model that lacks logits of draws and glimpses, or the baseline.

        Raises:
            Invalid: as of `Classification`, or a baseline that is not there.
        """
        logits = outputs.get("logits") if hasattr(outputs, "get") else outputs
        shape = getattr(logits, "shape", ())
        if not hasattr(outputs, "get") or len(shape) != 4:
            raise settings.Invalid(
                "task 'recurrent_attention' takes a model whose outputs have logits"
                f" [B, M, T, K], such as 'recurrent_attention', got {shape}"
            )
        super().check(self._average(outputs), example, facts)
        lacks = "log_prob" in outputs and "baseline" not in outputs
        if lacks and self.baseline == "learnt":
            raise settings.Invalid(
                "baseline 'learnt' is the model's, and this one has none: take 'others'"
                " or 'none'"
            )

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", and of what it consists: "cross_entropy" and "reinforce"."""
        last = outputs["logits"][:, :, -1]
        targets = jax.nn.one_hot(batch["label"], last.shape[-1])[:, None]
        targets = optax.smooth_labels(targets, self.label_smoothing)
        targets = jnp.broadcast_to(targets, last.shape)
        parts = {"cross_entropy": optax.softmax_cross_entropy(last, targets)}
        wrong = jnp.argmax(last, axis=-1) != batch["label"][:, None]
        if "log_prob" in outputs:
            parts |= self._rewarded(outputs, 1.0 - wrong, -parts["cross_entropy"])
        parts = {name: part.mean(axis=1) for name, part in parts.items()}
        found = {
            "loss": sum(parts.values()),
            **parts,
            "error": 100 * wrong.mean(axis=1),
        }
        return {name: Mean(part, jnp.ones_like(part)) for name, part in found.items()}

    def _rewarded(
        self, outputs: Any, correct: jax.Array, log_likelihood: jax.Array
    ) -> dict[str, jax.Array]:
        """The losses of places, [B, M] each, given what is gained by each draw."""
        gained = correct if self.reward == "correct" else log_likelihood
        reward = jax.lax.stop_gradient(gained)[..., None]
        parts = {}
        compared: jax.Array | float = 0.0
        if self.baseline == "learnt":
            compared = outputs["baseline"]
            off = score_function.baseline_loss(compared, reward)
            parts["baseline"] = off.mean(axis=-1)
        elif self.baseline == "others":
            if reward.shape[1] < 2:
                raise settings.Invalid(
                    "baseline 'others' compares draws of one image: it needs a model"
                    f" with samples of at least 2, got {reward.shape[1]}"
                )
            compared = score_function.leave_one_out(reward[..., 0])[..., None]
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

    @staticmethod
    def _average(outputs: Any) -> Any:
        """The log of the probabilities after the last glimpse, averaged over draws."""

        def averaged(logits: jax.Array) -> jax.Array:
            logs = jax.nn.log_softmax(logits[:, :, -1])
            return jax.nn.logsumexp(logs, axis=1) - np.log(logs.shape[1])

        if isinstance(outputs["logits"], jax.ShapeDtypeStruct):
            return jax.eval_shape(averaged, outputs["logits"])
        return averaged(jnp.asarray(outputs["logits"]))
