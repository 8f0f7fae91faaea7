"""Class attention: the class token alone asks, all tokens are asked.

Touvron, Cord, Sablayrolles, Synnaeve, Jegou, "Going deeper with Image Transformers"
(CaiT), ICCV 2021, https://arxiv.org/abs/2103.17239, section 3:

    Q = W_q x_class + b_q, K = W_k z + b_k, V = W_v z + b_v, z = [x_class, x_patches],
    W_o softmax(Q K^T / sqrt(D)) V + b_o.

Letters used in shapes:
    B batch, T tokens, S sources, C channels, N heads, D channels of one head.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token import _projections


class ClassAttention(nn.Module):
    """Token attention of one query: cost and memory are linear in the sources.

    With `kv` it is the paper's: q [B, 1, C], the class token (or several), reads from
    kv [B, S, C], which are all tokens with it: -> [B, 1, C]. Without `kv` the first
    token of q [B, T, C] reads from all of q: -> [B, T, C].

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        others: what the tokens after the first become without `kv`: "keep" hands them
            on unchanged, "zero" makes them 0, so that inside a residual branch, such as
            the mixer of a ViT, they stay as they are.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    others: Literal["keep", "zero"] = "keep"
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
            q: class tokens, [B, 1, C]; or all tokens, [B, T, C], without `kv`.
            kv: all tokens, [B, S, C]; None takes `q`, of which the first asks.
            mask: boolean, True = may attend, broadcastable to [B, N, 1, S] ([B, N, T,
                S] with `kv`).
            grid: (rows, columns) on which the S sources lie, for the record only.
            train: without effect here.

        Raises:
            Invalid: heads do not divide C, or `mask` does not fit.
        """
        del train  # the same in training and evaluation
        asks = q if kv is not None else q[:, :1]
        query, key, value = _projections.project(self, asks, q if kv is None else kv)
        weights = lambda: ops.attention_weights(query, key, mask=mask)
        matrix = weights if kv is not None else lambda: self._whole(weights())
        sow(self, "token_matrix", matrix, grid=grid)
        y = ops.dot_product_attention(query, key, value, mask=mask)
        y = _projections.merge(self, y, q)
        if kv is not None:
            return y
        rest = q[:, 1:].astype(y.dtype)
        rest = rest if self.others == "keep" else jnp.zeros_like(rest)
        return jnp.concatenate([y, rest], axis=1)

    def _whole(self, row: jax.Array) -> jax.Array:
        """[B, N, 1, T] with a row for each other token, which reads itself or nothing.

        Returns:
            [B, N, T, T].
        """
        tokens = row.shape[-1]
        rest = jnp.eye(tokens, dtype=row.dtype)[None, None, 1:]
        rest = rest if self.others == "keep" else jnp.zeros_like(rest)
        rest = jnp.broadcast_to(rest, (*row.shape[:2], tokens - 1, tokens))
        return jnp.concatenate([row, rest], axis=2)


def _parameters(module: ClassAttention, shape: tuple[int, ...]) -> int:
    return _projections.parameters(module, shape[-1])


ClassAttention.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="Going deeper with Image Transformers",
        authors="Touvron, Cord, Sablayrolles, Synnaeve, Jegou",
        year=2021,
        arxiv="2103.17239",
    ),
    formula="W_o softmax(Q K^T / sqrt(D)) V, Q of the class token, K and V of all",
    complexity="2 C^2 + 2 S C^2 + 2 S C",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=("any resolution",),
    note=(
        "4 C^2 + 4 C parameters. CaiT calls it with kv, its class token inside, in"
        " blocks of their own. Takes kv and masks of the sources; without kv the other"
        " tokens attend to nothing, so that it is no mixer of all of them."
    ),
)
