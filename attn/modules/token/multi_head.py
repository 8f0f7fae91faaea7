"""Multi-head attention over tokens: N softmax attentions on slices of the channels.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, section 3.2.2. The norm of queries and keys: Dehghani
et al., "Scaling Vision Transformers to 22 Billion Parameters", 2023,
https://arxiv.org/abs/2302.05442, equation 1.

Letters used in shapes:
    B batch, T targets, S sources, C channels, N heads, D channels of one head.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import record
from attn.modules.card import Card, Paper
from attn.ops import dot_product


def head_shape(
    channels: int, num_heads: int | None, head_dim: int | None
) -> tuple[int, int]:
    """Number of heads N and channels of one head D, given either or both.

    With one of them the other is C divided by it, with neither there are 4 heads;
    with both, N D need not be C.

    Raises:
        ValueError: one is below 1, or the one that is given does not divide C.
    """
    for name, value in (("num_heads", num_heads), ("head_dim", head_dim)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if num_heads is not None and head_dim is not None:
        return num_heads, head_dim
    name, parts = "num_heads", 4 if num_heads is None else num_heads
    if head_dim is not None:
        name, parts = "head_dim", head_dim
    if channels % parts:
        raise ValueError(f"{name}={parts} must divide channels={channels}")
    rest = channels // parts
    return (rest, parts) if head_dim is not None else (parts, rest)


class MultiHead(nn.Module):
    """Token attention: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    Softmax(Q K^T / sqrt(D)) V in N heads, between linear maps. Without `kv` the
    tokens attend to each other. There is no residual and no position inside: it
    commutes with permutations of the tokens. `card` tells the count of parameters.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads. With both, the inner
            width N D may differ from C.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        qk_norm: whether queries and keys pass through a layer norm (without bias)
            in each head, which bounds the logits; ViT-22B does.
        attention_dropout: rate at which single weights are dropped in training.
        output_dropout: rate at which outputs are dropped in training.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = True
    out_bias: bool = True
    qk_norm: bool = False
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
            mask: boolean, True = may attend, broadcastable to [B, N, T, S].
            grid: (rows, columns) on which the S sources lie, for the record only.
            train: whether to drop; draws from the random stream "dropout".

        Raises:
            ValueError: heads do not divide C, or `mask` does not fit.
        """
        dtype, channels = self.dtype or q.dtype, q.shape[-1]
        kv = q if kv is None else kv
        query, key, value = self._project(q, kv)
        weights = lambda: dot_product.attention_weights(query, key, mask=mask)
        record(self, "token_matrix", weights, grid=grid)
        if train and self.attention_dropout > 0:
            drop = nn.Dropout(self.attention_dropout, deterministic=False)
            y = dot_product.read(drop(weights()), value)
        else:
            y = dot_product.dot_product_attention(query, key, value, mask=mask)
        y = nn.DenseGeneral(
            channels,
            axis=(-2, -1),
            use_bias=self.out_bias,
            dtype=dtype,
            param_dtype=self.param_dtype,
            name="out",
        )(y)
        return nn.Dropout(self.output_dropout, deterministic=not train)(y)

    def _project(self, q, kv):
        """Queries [B, T, N, D], keys and values [B, S, N, D]."""
        heads = head_shape(q.shape[-1], self.num_heads, self.head_dim)
        kinds = {"dtype": self.dtype or q.dtype, "param_dtype": self.param_dtype}
        tokens = {"query": q, "key": kv, "value": kv}
        query, key, value = (
            nn.DenseGeneral(heads, use_bias=self.qkv_bias, name=name, **kinds)(x)
            for name, x in tokens.items()
        )
        if self.qk_norm:
            # The mean of squares minus the squared mean is inexact for few channels.
            kinds |= {"use_bias": False, "use_fast_variance": False}
            query = nn.LayerNorm(name="query_ln", **kinds)(query)
            key = nn.LayerNorm(name="key_ln", **kinds)(key)
        return query, key, value


def _parameters(module: MultiHead, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads, dim = head_shape(channels, module.num_heads, module.head_dim)
    inner = heads * dim
    biases = 3 * inner * module.qkv_bias + channels * module.out_bias
    return 4 * channels * inner + biases + 2 * dim * module.qk_norm


MultiHead.card = Card(
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
    formula="concat_n(softmax(Q_n K_n^T / sqrt(D)) V_n) W_O",
    complexity="2 T C^2 + 2 S C^2 + 2 T S C",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=("any resolution", "mask", "cross"),
    variants={
        "biases": {},
        "paper": {"qkv_bias": False, "out_bias": False},
        "vit_22b": {"qk_norm": True, "qkv_bias": False},
    },
    note=(
        "The four linear maps have biases by default, as in torch, timm and ViT,"
        " 4 C^2 + 4 C parameters; the formula of the paper has none. A token that may"
        " attend to nothing reads zeros."
    ),
)
