"""Class attention: the class token alone asks, all tokens are asked.

Touvron, Cord, Sablayrolles, Synnaeve, Jegou, "Going deeper with Image Transformers"
(CaiT), ICCV 2021, https://arxiv.org/abs/2103.17239, section 3:

    Q = W_q x_class + b_q, K = W_k z + b_k, V = W_v z + b_v, z = [x_class, x_patches],
    W_o softmax(Q K^T / sqrt(D)) V + b_o.

Letters used in shapes:
    B batch, T tokens, S sources, C channels, N heads, D channels of one head.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from attn import ops
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Heads


class ClassAttention(Heads):
    """Token attention of one query: cost and memory are linear in the sources.

    With `kv` it is the paper's: q [B, 1, C], the class token (or several), reads from
    kv [B, S, C], which are all tokens with it: -> [B, 1, C]. Without `kv` the first
    token of q [B, T, C] reads from all of q: -> [B, T, C].

    Attributes:
        others: what the tokens after the first become without `kv`: "keep" hands them
            on unchanged, "zero" makes them 0, so that inside a residual branch, such as
            the mixer of a ViT, they stay as they are.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    others: Literal["keep", "zero"] = "keep"

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        alone = not call.cross  # the first token is the only one with a query
        mask = call.mask
        if alone:
            place = call.q_position
            place = place if place is None else place[:, :1]
            call = dataclasses.replace(call, q=call.q[:, :1], q_position=place)
            mask = mask if mask is None else mask[:, :, :1]
        query, made = self.project(call)
        key, value = made["key"], made["value"]

        def weights():
            row = ops.attention_weights(query, key, mask=mask)
            return self._whole(row) if alone else row

        sow(self, "token_matrix", weights, grid=call.grid)
        y = ops.dot_product_attention(query, key, value, mask=mask)
        y = self.merge(y, call.q.shape[-1])
        if not alone:
            return y
        rest = call.kv[:, 1:].astype(y.dtype)
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
    return module.count(shape[-1])


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
    supports=frozenset({"any resolution", "mask", "kv_mask"}),
    note=(
        "4 C^2 + 4 C parameters. CaiT calls it with kv, its class token inside, in"
        " blocks of their own. Takes kv and masks of the sources; without kv the other"
        " tokens attend to nothing, so that it is no mixer of all of them."
    ),
)
