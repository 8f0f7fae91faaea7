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

from attn import ops
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token._projections import head_shape


class TalkingHeads(nn.Module):
    """Token attention: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    The matrices of all heads exist at once, so that memory grows with N T S. What is
    recorded are the weights W of the heads, before they are mixed: mixed ones may be
    negative, and their rows need not sum to 1.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        qkv_bias: whether queries, keys and values have biases.
        mix_bias: whether the two maps over the heads have biases; CaiT's have, those
            of the paper have none.
        attention_dropout: rate at which single mixed weights are dropped in training.
        output_dropout: rate at which outputs are dropped in training.
        dtype: computation type; None takes the type of the input. Logits, softmax and
            both maps over the heads are float32.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = True
    mix_bias: bool = True
    attention_dropout: float = 0.0
    output_dropout: float = 0.0
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
            kv: tokens that are asked, [B, S, C]; None takes `q`.
            mask: boolean, True = may attend, broadcastable to [B, N, T, S]. What it
                hides is hidden from mixed weights too, whatever their bias.
            grid: (rows, columns) on which the S sources lie, for the record only.
            train: whether to drop; draws from the random stream "dropout".

        Raises:
            Invalid: heads do not divide C, or `mask` does not fit.
        """
        dtype, channels = self.dtype or q.dtype, q.shape[-1]
        kinds = {"dtype": dtype, "param_dtype": self.param_dtype}
        heads = head_shape(channels, self.num_heads, self.head_dim)
        tokens = {"query": q, "key": q if kv is None else kv}
        tokens["value"] = tokens["key"]
        query, key, value = (
            nn.DenseGeneral(heads, use_bias=self.qkv_bias, name=name, **kinds)(x)
            for name, x in tokens.items()
        )
        weights = self._weights(query, key, mask, grid)
        drop = nn.Dropout(self.attention_dropout, deterministic=not train)
        y = jnp.einsum(
            "btsn,bsnd->btnd",
            drop(weights).astype(dtype),
            value,
            preferred_element_type=jnp.float32,
        ).astype(dtype)
        y = nn.DenseGeneral(channels, axis=(-2, -1), name="out", **kinds)(y)
        return nn.Dropout(self.output_dropout, deterministic=not train)(y)

    def _weights(self, query, key, mask, grid) -> jax.Array:
        """The mixed weights, [B, T, S, N], float32."""
        heads, dim = query.shape[-2:]
        kinds = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        mix = lambda name, x: nn.Dense(
            heads, use_bias=self.mix_bias, name=name, **kinds
        )(x)
        logits = jnp.einsum(
            "btnd,bsnd->btsn", query, key, preferred_element_type=jnp.float32
        )
        logits = mix("mix_logits", dim**-0.5 * logits)
        weights = ops.masked_softmax(jnp.moveaxis(logits, -1, 1), mask)
        sow(self, "token_matrix", weights, grid=grid)
        mixed = mix("mix_weights", jnp.moveaxis(weights, 1, -1))
        if mask is None:
            return mixed
        mask = jnp.reshape(mask, (1,) * (4 - mask.ndim) + mask.shape)
        return jnp.where(jnp.moveaxis(mask, 1, -1), mixed, 0.0)


def _parameters(module: TalkingHeads, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads, dim = head_shape(channels, module.num_heads, module.head_dim)
    inner = heads * dim
    mixing = 2 * (heads**2 + heads * module.mix_bias)
    return 4 * channels * inner + 3 * inner * module.qkv_bias + channels + mixing


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
    supports=("any resolution", "mask", "cross"),
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
