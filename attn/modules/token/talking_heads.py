"""Talking-heads attention: heads mix their logits, and mix their weights.

Shazeer et al., "Talking-Heads Attention", 2020, https://arxiv.org/abs/2003.02436,
section 3, with as many heads at each of its three places; with biases, as in CaiT:
Touvron et al., "Going deeper with Image Transformers", ICCV 2021,
https://arxiv.org/abs/2103.17239.

    J = Q K^T / sqrt(D),  W = softmax(P_l J + b_l),  Y = (P_w W + b_w) V

where P_l and P_w are N x N maps over the heads.

Letters used in shapes:
    B batch, T targets, S sources, C channels, N heads, D channels of one head.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops, settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Heads


class TalkingHeads(Heads):
    """Token attention: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    The matrices of all heads exist at once, so that memory grows with N T S. What is
    recorded are the weights W of the heads, before they are mixed: mixed ones may be
    negative, and their rows need not sum to 1.

    Attributes:
        mix_bias: whether the two maps over the heads have biases; CaiT's have, those
            of the paper have none.
        attention_dropout: rate at which single mixed weights are dropped in training.
        output_dropout: rate at which outputs are dropped in training.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
            Logits, softmax and both maps over the heads are float32.
    """

    mix_bias: bool = True
    attention_dropout: settings.Decay = 0.0
    output_dropout: settings.Decay = 0.0

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        query, made = self.project(call)
        arrays, visible = self.sources(call, made)
        key, value = arrays["key"], arrays["value"]
        mask = visible.matrix(query.shape[1], key.shape[1])
        weights = self._weights(query, key, mask, call.grid)
        drop = nn.Dropout(self.attention_dropout, deterministic=not call.train)
        y = jnp.einsum(
            "btsn,bsnd->btnd",
            drop(weights).astype(value.dtype),
            value,
            preferred_element_type=jnp.float32,
        ).astype(value.dtype)
        y = self.merge(y, call.q.shape[-1])
        return nn.Dropout(self.output_dropout, deterministic=not call.train)(y)

    def _weights(self, query, key, mask, grid) -> jax.Array:
        """The mixed weights, [B, T, S, N], float32."""
        logits = jnp.einsum(
            "btnd,bsnd->btsn", query, key, preferred_element_type=jnp.float32
        )
        logits = self._mix("mix_logits", query.shape[-1] ** -0.5 * logits)
        weights = ops.masked_softmax(jnp.moveaxis(logits, -1, 1), mask)
        sow(self, "token_matrix", weights, grid=grid)
        mixed = self._mix("mix_weights", jnp.moveaxis(weights, 1, -1))
        return mixed if mask is None else jnp.where(jnp.moveaxis(mask, 1, -1), mixed, 0)

    def _mix(self, name: str, x: jax.Array) -> jax.Array:
        """A linear map over the heads, [B, T, S, N] -> [B, T, S, N], float32."""
        return nn.Dense(
            x.shape[-1],
            use_bias=self.mix_bias,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            name=name,
        )(x)


def _parameters(module: TalkingHeads, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads = module.head_shape(channels)[0]
    mixing = 2 * (heads**2 + heads * module.mix_bias)
    return module.count(channels) + mixing


TalkingHeads.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="Talking-Heads Attention",
        authors="Shazeer, Lan, Cheng, Ding, Hou",
        year=2020,
        arxiv="2003.02436",
    ),
    formula="(P_w softmax(P_l Q K^T / sqrt(D) + b_l) + b_w) V, P mixing heads",
    complexity="2 T C^2 + 2 S C^2 + 2 T S C + 2 T S N^2",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=frozenset(
        {"any resolution", "cross", "mask", "kv_mask", "causal", "decode"}
    ),
    variants={
        "cait": {},
        "paper": {"qkv_bias": False, "mix_bias": False},
    },
    note=(
        "4 C^2 + 4 C + 2 (N^2 + N) parameters with the biases of CaiT, whose weights"
        " are published; the paper has none. The paper may have three different numbers"
        " of heads, here they are one. A source that the mask hides gets the weight"
        " zero, also where the bias b_w would give it one."
    ),
)
