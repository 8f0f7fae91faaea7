"""Cross-attention: tokens read from other tokens, of a width of their own.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, section 3.2.3, first item. The norm of the sources:
Jaegle et al., "Perceiver: General Perception with Iterative Attention", ICML 2021,
https://arxiv.org/abs/2103.03206.

Letters used in shapes:
    B batch, T targets, S sources, C channels, E channels of the sources, N heads, D
    channels of one head.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops, settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token import _projections
from attn.settings import Positive


class CrossAttention(nn.Module):
    """Token attention: q [B, T, C], kv [B, S, E] -> [B, T, C].

    softmax(Q K^T / sqrt(D)) V in N heads, between linear maps, with Q from `q`, K and V
    from `kv`. Without `kv` the tokens are their own sources, which is multi-head
    self-attention; then E is C.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        kv_channels: E, for sources of another width than the tokens; other ones are
            refused. None takes what comes first.
        kv_norm: whether sources pass through a layer norm of their own, as in the
            Perceiver, where they are another modality.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    kv_channels: Positive | None = None
    kv_norm: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(
        self,
        q: jax.Array,
        kv: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        grid: tuple[int, int] | None = None,
        train: bool,
    ) -> jax.Array:
        """Attends.

        Args:
            q: tokens that ask, [B, T, C].
            kv: tokens that are asked, [B, S, E]; None takes `q`.
            mask: boolean, True = may attend, broadcastable to [B, N, T, S].
            grid: (rows, columns) on which the S sources lie, for the record only.
            train: without effect here.

        Raises:
            Invalid: heads do not divide C, sources are not E wide, or `mask` does
                not fit.
        """
        del train  # the same in training and evaluation
        kv = q if kv is None else kv
        if self.kv_channels not in (None, kv.shape[-1]):
            raise settings.Invalid(
                f"kv_channels={self.kv_channels}, but the sources have {kv.shape[-1]}"
                " channels"
            )
        if self.kv_norm:
            kv = nn.LayerNorm(
                dtype=self.dtype or q.dtype,
                param_dtype=self.param_dtype,
                use_fast_variance=False,
                name="kv_ln",
            )(kv)
        query, key, value = _projections.project(self, q, kv)
        weights = lambda: ops.attention_weights(query, key, mask=mask)
        sow(self, "token_matrix", weights, grid=grid)
        y = ops.dot_product_attention(query, key, value, mask=mask)
        return _projections.merge(self, y, q)


def _parameters(module: CrossAttention, shape: tuple[int, ...]) -> int:
    width = module.kv_channels or shape[-1]
    maps = _projections.parameters(module, shape[-1], width)
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
    supports=("any resolution", "mask", "cross"),
    note=(
        "2 C^2 + 2 C E + 4 C parameters, and 2 E of the norm. Without kv it is"
        " self-attention. The Perceiver's queries, learned latents, are the host's."
    ),
)
