"""Linformer: keys and values projected along the sequence to a few rows.

Wang, Li, Khabsa, Fang, Ma, "Linformer: Self-Attention with Linear Complexity", 2020,
https://arxiv.org/abs/2006.04768, equation 7 and section 4:

    softmax(Q (E K)^T / sqrt(D)) (F V),   E and F of R x S.

Letters used in shapes:
    B batch, T targets, S sources, C channels, N heads, D channels of one head, R rows
    to which the sources are projected, L sources that E and F have columns for.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops, settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token import _projections
from attn.ops.padding import source_mask
from attn.settings import Positive


class Linformer(nn.Module):
    """Token attention in linear time: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    E and F belong to places of the sequence, so that variables fit one length, the one
    given to `init`, and order matters.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        rank: R. The paper has 128 and 256 for 512 and 1024 tokens; ours is about as
            large a share of the 197 of a ViT.
        share: "headwise" has one E and one F for all heads, "none" one for each head,
            "key_value" one matrix for keys and values of all heads. Sharing over layers
            is not here: a slot fills each layer with a module of its own.
        max_length: L; shorter sequences use the first S columns of E and F. None is the
            S given to `init`, and no other will do.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    rank: Positive = 64
    share: Literal["headwise", "none", "key_value"] = "headwise"
    max_length: Positive | None = None
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
            kv: tokens that are asked, [B, S, C]; None takes `q`.
            mask: boolean, True = may attend, broadcastable to [B, N, 1, S]: the other
                sources are left out of the projections.
            grid: (rows, columns) on which the S sources lie, for the record only.
            train: without effect here.

        Raises:
            Invalid: heads do not divide C, S is not what E and F are made for, or
                `mask` does not fit or tells targets apart.
        """
        del train  # the same in training and evaluation
        query, key, value = _projections.project(self, q, q if kv is None else kv)
        e = self._sequence_map("key_rows", key)
        shared = self.share == "key_value"
        f = e if shared else self._sequence_map("value_rows", value)
        seen = None
        if mask is not None:
            batch, sources, heads, _ = key.shape
            seen = source_mask(mask, (batch, heads, q.shape[1], sources))
        key, value = _rows(e, key, seen), _rows(f, value, seen)
        factors = lambda: _factors(ops.attention_weights(query, key), f, seen)
        sow(self, "factors", factors, grid=grid)
        y = ops.dot_product_attention(query, key, value)
        return _projections.merge(self, y, q)

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


def _rows(rows: jax.Array, x: jax.Array, seen: jax.Array | None) -> jax.Array:
    """Projects x [B, S, N, D] by [N or 1, R, S]: [B, R, N, D].

    Sources that are not `seen`, [B or 1, N or 1, S], count as zeros.
    """
    if seen is not None:
        x = jnp.where(seen.swapaxes(1, 2)[..., None], x, 0)
    rows = rows.astype(x.dtype)
    form, rows = ("rs", rows[0]) if len(rows) == 1 else ("nrs", rows)
    y = jnp.einsum(f"{form},bsnd->brnd", rows, x, preferred_element_type=jnp.float32)
    return y.astype(x.dtype)


def _factors(
    weights: jax.Array, rows: jax.Array, seen: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Weights [B, N, T, R], and F as [B, N, R, S] without what is not `seen`."""
    rows = rows.astype(jnp.float32)[None]
    if seen is not None:
        rows = jnp.where(seen[:, :, None], rows, 0)
    return weights, jnp.broadcast_to(rows, (*weights.shape[:2], *rows.shape[2:]))


def _parameters(module: Linformer, shape: tuple[int, ...]) -> int:
    *_, tokens, channels = shape
    heads, _ = _projections.head_shape(channels, module.num_heads, module.head_dim)
    matrices = {"headwise": 2, "none": 2 * heads, "key_value": 1}[module.share]
    length = module.max_length or tokens
    return _projections.parameters(module, channels) + matrices * module.rank * length


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
    supports=(),
    note=(
        "4 C^2 + 4 C + 2 R T parameters (R T with 'key_value', 2 N R T with 'none')."
        " One length, or lengths up to max_length. E and F start as normals of variance"
        " 1 / S; the released code has biases in them and shares headwise, as here. The"
        " second factor of its map is F, so that rows need not sum to 1. Takes kv, but"
        " does not commute with permutations. A mask may leave out sources, alike for"
        " all targets."
    ),
)
