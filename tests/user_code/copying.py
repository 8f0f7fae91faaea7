"""A user's sequence-to-sequence task: copy a sentence, decoded greedily."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from attn import modules
from attn.models.scaling import Width
from attn.tasks import Mean, Metric, Task


class Copier(nn.Module):
    """Reads the source where a learnt position of the target points to."""

    vocab_size: int
    max_length: int
    width: int = 32
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    inputs: ClassVar[tuple[str, ...]] = ("source", "source_mask", "target_in")
    streams: ClassVar[tuple[str, ...]] = ()

    @nn.compact
    def __call__(self, source, source_mask, target_in, *, train):
        del train
        embed = nn.Embed(self.vocab_size, self.width, name="embed")
        table = self.param("places", nn.initializers.normal(1.0), (64, self.width))
        keys = nn.Dense(self.width, name="key")(table[: source.shape[1]])
        queries = nn.Dense(self.width, name="query")(table[: target_in.shape[1]])
        scores = queries @ keys.T / np.sqrt(self.width)
        scores = jnp.where(source_mask[:, None], scores[None], -1e9)
        weights = nn.softmax(scores)
        modules.sow(self, "token_matrix", weights[:, None])
        read = weights @ embed(source)
        x = nn.relu(nn.Dense(self.width, name="join")(read + 0.1 * embed(target_in)))
        return nn.Dense(self.vocab_size, name="logits")(x)

    def width_settings(self):
        """The setting that scales it."""
        return {"width": Width(self.width, 1)}


@dataclasses.dataclass(frozen=True)
class Copying(Task):
    """Cross-entropy a token; the headline is the share of sentences copied whole."""

    label_smoothing: float = 0.0

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("exact", "exact match", unit="%", better="higher", kind="corpus"),
        Metric("token_error", "token error", unit="%"),
    )
    fields: ClassVar[tuple[str, ...]] = ("target", "target_mask")

    def loss(self, outputs, batch):
        targets = jax.nn.one_hot(batch["target"], outputs.shape[-1])
        targets = optax.smooth_labels(targets, self.label_smoothing)
        losses = optax.softmax_cross_entropy(outputs, targets)
        return {"loss": _over_tokens(losses, batch)}

    def evaluate(self, outputs, batch):
        wrong = 100.0 * (outputs.argmax(-1) != batch["target"])
        return {**self.loss(outputs, batch), "token_error": _over_tokens(wrong, batch)}

    def describe(self, outputs, batch, facts):
        del facts
        words = outputs.argmax(-1)
        wrong = ((words != batch["target"]) & batch["target_mask"]).any(axis=1)
        captions = [" ".join(map(str, sentence)) for sentence in words]
        return list(zip(captions, wrong.tolist(), strict=True))

    def predict(self, model, variables, batch, key):
        del key
        length = batch["target_in"].shape[1]
        target = (
            jnp.zeros_like(batch["target_in"]).at[:, 0].set(batch["target_in"][:, 0])
        )
        for place in range(length):
            inputs = (batch["source"], batch["source_mask"], target)
            logits = model.apply(variables, *inputs, train=False)
            word = logits[:, place].argmax(-1).astype(target.dtype)
            if place + 1 < length:
                target = target.at[:, place + 1].set(word)
        return {"words": jnp.concatenate([target[:, 1:], word[:, None]], axis=1)}

    def score(self, predictions, batch, facts):
        same = (predictions["words"] == batch["target"]) | ~batch["target_mask"]
        return {"exact": 100 * same.all(axis=1).mean()}


def _over_tokens(values, batch):
    mask = batch["target_mask"].astype(values.dtype)
    return Mean((values * mask).sum(axis=1), mask.sum(axis=1))
