"""Hard attention: each target reads one source, which is drawn.

Xu et al., "Show, Attend and Tell", ICML 2015, https://arxiv.org/abs/1502.03044, section
4.1, equations 8 to 12: stochastic attention, trained by REINFORCE. Jang, Gu, Poole,
"Categorical Reparameterization with Gumbel-Softmax", ICLR 2017,
https://arxiv.org/abs/1611.01144, section 2.2: the straight-through draw instead.

Letters: B batch, T targets, S sources, C channels.
"""

from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp

from attn import settings
from attn.modules import choices
from attn.modules.card import Card
from attn.modules.glimpse.additive_soft import (
    PAPER,
    SUPPORTS,
    AdditiveSoft,
    Scored,
    count,
)
from attn.modules.token.base import Call
from attn.ops import dot_product
from attn.ops.gumbel import draw_one_hot, straight_through_gumbel

Share = Annotated[float, settings.Range("a number in [0, 1]", 0, 1)]


class HardAttention(AdditiveSoft):
    """Hard selection: q [B, T, C], kv [B, S, C] or None -> kv_s(t), [B, T, C].

    In training s(t) is drawn by the softmax of the scores of `additive_soft`, from the
    random stream "sample". With "reinforce" the draw passes no gradient to the scores;
    its log-probability and the entropy, [B, T] each, are noted for the model
    (`attn.modules.choices`), so that its task can reward them; in a model that does not
    hand them on (of ours `captioner` and `recurrent_attention` do), only what reads
    the expectation teaches the scores. With "gumbel" the gradient is that of a relaxed
    draw, and nothing else is needed.

    Attributes:
        hidden, bias: as of `AdditiveSoft`.
        estimator: "reinforce" or "gumbel", whose draw is straight-through.
        temperature: of the relaxed draw of "gumbel".
        expectation: how often in training all targets of an example read the
            expectation, as soft attention does, instead of what is drawn. Those count
            for no reward. The paper's is 0.5.
        evaluation: what is read in evaluation: the "expectation", or the most probable
            source, "argmax".
        dtype, param_dtype: as in `Token`.
    """

    estimator: Literal["reinforce", "gumbel"] = "reinforce"
    temperature: settings.PositiveFloat = 1.0
    expectation: Share = 0.5
    evaluation: Literal["expectation", "argmax"] = "expectation"

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        scored = self.score(call)
        weights = dot_product.masked_softmax(scored.logits, scored.mask)
        if call.train:
            weights = self._drawn(scored, weights)
        elif self.evaluation == "argmax":
            highest = jnp.argmax(weights, axis=-1)
            one_hot = jax.nn.one_hot(highest, weights.shape[-1])
            # what is no number stays none
            weights = jnp.where(weights <= 0, 0.0, one_hot + 0 * weights)
        return self.read(call, weights, scored.sources)

    def _drawn(self, scored: Scored, weights: jax.Array) -> jax.Array:
        """What training reads by, [B, 1, T, S]: one-hot, or the expectation."""
        key, keep = jax.random.split(self.make_rng("sample"))
        shape = (weights.shape[0], 1, 1, 1)
        averaged = jax.random.bernoulli(keep, self.expectation, shape)
        if self.estimator == "gumbel":
            chosen = straight_through_gumbel(
                key, scored.logits, scored.mask, temperature=self.temperature
            )
        else:
            chosen = draw_one_hot(key, scored.logits, scored.mask)
            log_prob = _log(jnp.sum(chosen * weights, axis=-1))
            choice = choices.Choice(
                log_prob=jnp.where(averaged[..., 0], 0.0, log_prob)[:, 0],
                entropy=-jnp.sum(weights * _log(weights), axis=-1)[:, 0],
            )
            choices.note(self, choice)
        return jnp.where(averaged, weights, chosen)


def _log(x: jax.Array) -> jax.Array:
    """The logarithm, and 0 of 0, also in gradients."""
    return jnp.log(jnp.where(x > 0, x, 1.0))


HardAttention.card = Card(
    family="glimpse",
    contract="token",
    paper=PAPER,
    formula="z_t = k_s, s ~ softmax_s(w . tanh(W_q q_t + W_k k_s))",
    complexity="(T + S) C A + T S A + T S C",
    parameters=count,
    maps=("token_matrix",),
    supports=SUPPORTS,
    variants={"reinforce": {}, "gumbel": {"estimator": "gumbel", "expectation": 0.0}},
    note=(
        "The paper trains by REINFORCE (default) with a moving-average baseline and an"
        " entropy term, which are the task's; straight-through Gumbel is of 2017 (arXiv"
        " 1611.01144). The paper takes the expectation for half of the images, and for"
        " all their words; here the draw is one of a call, so that a recurrent decoder"
        " draws at each step. In evaluation it reads the expectation unless told"
        " otherwise."
    ),
)
