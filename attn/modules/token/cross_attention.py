"""Cross-attention: tokens read from other tokens, of a width of their own.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, section 3.2.3, first item. The norm of the sources:
Jaegle et al., "Perceiver: General Perception with Iterative Attention", ICML 2021,
https://arxiv.org/abs/2103.03206.

Letters used in shapes:
    B batch, T targets, S sources, C channels, E channels of the sources, N heads, D
    channels of one head.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax

from attn import ops, settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Heads
from attn.settings import Positive


class CrossAttention(Heads):
    """Token attention: q [B, T, C], kv [B, S, E] -> [B, T, C].

    softmax(Q K^T / sqrt(D)) V in N heads, between linear maps, with Q from `q`, K and V
    from `kv`. Without `kv` the tokens are their own sources, which is multi-head
    self-attention; then E is C.

    Attributes:
        kv_channels: E, for sources of another width than the tokens; other ones are
            refused. None takes what comes first.
        kv_norm: whether sources pass through a layer norm of their own, as in the
            Perceiver, where they are another modality.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    kv_channels: Positive | None = None
    kv_norm: bool = False

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        call = self._normed(call)
        query, made = self.project(call)
        arrays, visible = self.sources(call, made)
        key, value = arrays["key"], arrays["value"]

        def weights():
            return ops.attention_weights(query, key, **visible._asdict())

        sow(self, "token_matrix", weights, grid=call.grid)
        y = ops.dot_product_attention(query, key, value, **visible._asdict())
        return self.merge(y, call.q.shape[-1])

    def _normed(self, call: Call) -> Call:
        """The call with sources that are E wide, and normed if asked for."""
        kv = call.kv
        if kv is None:
            return call
        if self.kv_channels not in (None, kv.shape[-1]):
            raise settings.Invalid(
                f"kv_channels={self.kv_channels}, but the sources have {kv.shape[-1]}"
                " channels"
            )
        if not self.kv_norm:
            return call
        kv = nn.LayerNorm(use_fast_variance=False, name="kv_ln", **self.dtypes(call.q))(
            kv
        )
        return dataclasses.replace(call, kv=kv)


def _parameters(module: CrossAttention, shape: tuple[int, ...]) -> int:
    width = module.kv_channels or shape[-1]
    maps = module.count(shape[-1], width)
    return maps + 2 * width * module.kv_norm


CrossAttention.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="Attention Is All You Need",
        authors=(
            "Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin"
        ),
        year=2017,
        arxiv="1706.03762",
    ),
    formula="concat_n(softmax(Q_n K_n^T / sqrt(D)) V_n) W_O; Q from q; K, V from kv",
    complexity="2 T C^2 + 2 S C E + 2 T S C",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=frozenset(
        {"any resolution", "cross", "mask", "kv_mask", "causal", "decode"}
    ),
    note=(
        "2 C^2 + 2 C E + 4 C parameters, and 2 E of the norm. Without kv it is"
        " self-attention. The Perceiver's queries, learned latents, are the model's."
    ),
)
