"""Linformer: keys and values projected along the sequence to a few rows.

Wang, Li, Khabsa, Fang, Ma, "Linformer: Self-Attention with Linear Complexity", 2020,
https://arxiv.org/abs/2006.04768, equation 7 and section 4:

    softmax(Q (E K)^T / sqrt(D)) (F V),   E and F of R x S.

Letters used in shapes:
    B batch, T targets, S sources, C channels, N heads, D channels of one head, R rows
    to which the sources are projected, L sources that E and F have columns for.
"""

import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops, settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Heads
from attn.settings import Positive


class Linformer(Heads):
    """Token attention in linear time: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    E and F belong to places of the sequence, so that variables fit one length, the one
    given to `init`, and order matters.

    Attributes:
        rank: R. The paper has 128 and 256 for 512 and 1024 tokens; ours is about as
            large a share of the 197 of a ViT.
        share: "headwise" has one E and one F for all heads, "none" one for each head,
            "key_value" one matrix for keys and values of all heads. Sharing over layers
            is not here: a slot fills each layer with a module of its own.
        max_length: L; shorter sequences use the first S columns of E and F. None is the
            S given to `init`, and no other will do.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    rank: Positive = 64
    share: Literal["headwise", "none", "key_value"] = "headwise"
    max_length: Positive | None = None

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        query, made = self.project(call)
        key, value = made["key"], made["value"]
        e = self._sequence_map("key_rows", key)
        shared = self.share == "key_value"
        f = e if shared else self._sequence_map("value_rows", value)
        key, value = _rows(e, key, call.kv_mask), _rows(f, value, call.kv_mask)

        def factors():
            return _factors(ops.attention_weights(query, key), f, call.kv_mask)

        sow(self, "factors", factors, grid=call.grid)
        y = ops.dot_product_attention(query, key, value)
        return self.merge(y, call.q.shape[-1])

    def _sequence_map(self, name: str, x: jax.Array) -> jax.Array:
        """E or F for x [B, S, N, D]: [N or 1, R, S]."""
        sources, heads = x.shape[1:3]
        length = self.max_length or sources
        if self.has_variable("params", name):
            length = self.get_variable("params", name).shape[-1]
        if sources > length or (self.max_length is None and sources != length):
            most = "up to " * (self.max_length is not None)
            raise settings.Invalid(
                f"the projections of this Linformer are for {most}{length} sources, got"
                f" {sources}"
            )
        count = heads if self.share == "none" else 1
        # Sources are the fan in: rows of E K are as large as single keys.
        start = nn.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=-1, out_axis=-2, batch_axis=0
        )
        shape = (count, self.rank, length)
        rows = self.param(name, start, shape, self.param_dtype)
        return rows[:, :, :sources]


def _rows(rows: jax.Array, x: jax.Array, kv_mask: jax.Array | None) -> jax.Array:
    """Projects x [B, S, N, D] by [N or 1, R, S]: [B, R, N, D]; padding is zeros."""
    if kv_mask is not None:
        x = jnp.where(kv_mask[:, :, None, None], x, 0)
    rows = rows.astype(x.dtype)
    form, rows = ("rs", rows[0]) if len(rows) == 1 else ("nrs", rows)
    y = jnp.einsum(f"{form},bsnd->brnd", rows, x, preferred_element_type=jnp.float32)
    return y.astype(x.dtype)


def _factors(
    weights: jax.Array, rows: jax.Array, kv_mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Weights [B, N, T, R], and F as [B, N, R, S] without padding."""
    rows = rows.astype(jnp.float32)[None]
    if kv_mask is not None:
        rows = jnp.where(kv_mask[:, None, None], rows, 0)
    return weights, jnp.broadcast_to(rows, (*weights.shape[:2], *rows.shape[2:]))


def _parameters(module: Linformer, shape: tuple[int, ...]) -> int:
    *places, channels = shape
    tokens = math.prod(places)
    heads, _ = module.head_shape(channels)
    matrices = {"headwise": 2, "none": 2 * heads, "key_value": 1}[module.share]
    length = module.max_length or tokens
    return module.count(channels) + matrices * module.rank * length


Linformer.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="Linformer: Self-Attention with Linear Complexity",
        authors="Wang, Li, Khabsa, Fang, Ma",
        year=2020,
        arxiv="2006.04768",
    ),
    formula="softmax(Q (E K)^T / sqrt(D)) (F V), E and F of R x S",
    complexity="2 T C^2 + 2 S C^2 + 2 S R C + 2 T R C",
    parameters=_parameters,
    maps=("factors",),
    supports=frozenset({"kv_mask"}),
    note=(
        "4 C^2 + 4 C + 2 R T parameters (R T with 'key_value', 2 N R T with 'none')."
        " One length, or lengths up to max_length. E and F start as normals of variance"
        " 1 / S; the released code has biases in them and shares headwise, as here. The"
        " second factor of its map is F, so that rows need not sum to 1. Takes kv, but"
        " does not commute with permutations."
    ),
)
