"""Neighborhood attention (NAT, DiNAT): tokens attend to the k x k around them.

Hassani, Walton, Li, Li, Shi, "Neighborhood Attention Transformer", CVPR 2023,
https://arxiv.org/abs/2204.07143, section 3; with dilation: Hassani, Shi, "Dilated
Neighborhood Attention Transformer", 2022, https://arxiv.org/abs/2209.15001; with a
stride: Hassani et al., "Generalized Neighborhood Attention", 2025,
https://arxiv.org/abs/2504.16922:

    softmax(Q_i K_j^T / sqrt(D) + B_(i, j)) V_j over the neighbours j of i,

where B is a learned bias for each head and each difference of place.

Letters used in shapes:
    B batch, T tokens on a grid H x W, C channels, N heads, D channels of one head, k
    side of a window.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops, settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token._grid import Side, check_grid, pair
from attn.modules.token.base import Call, Heads
from attn.ops.neighborhood import (
    neighborhood_attention,
    neighborhood_mask,
    relative_places,
    windows,
)


class Neighborhood(Heads):
    """Token attention in linear time: q [B, T, C] with grid=(H, W) -> [B, T, C].

    At borders the window is moved inwards, so that each token has k x k neighbours;
    with dilation, tokens that differ by a multiple of it are a grid of their own. For
    tokens in a line the grid is (1, T), and window, dilation and stride are 1 along it.

    Attributes:
        window: k, or (rows, columns); times the dilation at most the grid. The paper
            has 7; of an even number there is one place more before than after.
        dilation: step between neighbours, or (rows, columns); 1 is NAT.
        stride: tokens in a row that share a window, that of the middle one, or (rows,
            columns); at most the window. 1 is NAT; the size of the window makes blocks
            that share one.
        causal: whether a token sees none below it or to the right, or (rows, columns);
            windows are not moved inwards then, but end at the token.
        relative_bias: whether there is B, (2 k - 1)^2 numbers a head, which start as a
            normal of 0.02 truncated at two standard deviations.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    window: Side = 7
    dilation: Side = 1
    stride: Side = 1
    causal: bool | tuple[bool, bool] = False
    relative_bias: bool = True

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        targets, sources = call.q.shape[1], call.kv.shape[1]
        grid = check_grid(type(self).__name__, call.grid, targets, sources)
        query, made = self.project(call)
        key, value = made["key"], made["value"]
        bias = self._bias(query.shape[2])
        sizes = {
            name: pair(getattr(self, name))
            for name in ("window", "dilation", "stride", "causal")
        }

        try:
            windows(grid, **sizes)
        except ValueError as error:
            raise settings.Invalid(f"neighborhood: {error}") from error

        def matrix():
            return _matrix(query, key, bias, call.mask, grid, sizes)

        sow(self, "token_matrix", matrix, grid=grid)
        on_grid = (
            x.reshape(x.shape[0], *grid, *x.shape[2:]) for x in (query, key, value)
        )
        y = neighborhood_attention(*on_grid, bias=bias, mask=call.mask, **sizes)
        return self.merge(y.reshape(query.shape), call.q.shape[-1])

    def _bias(self, num_heads: int) -> jax.Array | None:
        """B, [N, 2 k - 1, 2 k - 1]."""
        if not self.relative_bias:
            return None
        sides = (2 * k - 1 for k in pair(self.window))
        start = nn.initializers.truncated_normal(0.02)
        shape = (num_heads, *sides)
        return self.param("relative_bias", start, shape, self.param_dtype)


def _matrix(query, key, bias, mask, grid, sizes) -> jax.Array:
    """The whole matrix [B, N, T, T], 0 beyond the neighbours, for the record."""
    near = jnp.asarray(neighborhood_mask(grid, **sizes))[None, None]
    if mask is not None:
        near = near & mask
    if bias is not None:
        down, right = relative_places(grid, **sizes)
        bias = bias[:, down, right][None]  # -1 reads some entry, which `near` forbids
    return ops.attention_weights(query, key, bias=bias, mask=near)


def _parameters(module: Neighborhood, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads, _ = module.head_shape(channels)
    rows, columns = pair(module.window)
    table = heads * (2 * rows - 1) * (2 * columns - 1) * module.relative_bias
    return module.count(channels) + table


Neighborhood.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="Neighborhood Attention Transformer",
        authors="Hassani, Walton, Li, Li, Shi",
        year=2023,
        arxiv="2204.07143",
    ),
    formula="softmax(Q_i K_j^T / sqrt(D) + B_(i, j)) V_j over the k x k places near i",
    complexity=(
        "4 T C^2 + 2 T k^2 C (about twice the second term is run; about once with a"
        " stride of 4)"
    ),
    parameters=_parameters,
    maps=("token_matrix",),
    supports=frozenset({"any resolution", "grid", "mask", "kv_mask"}),
    note=(
        "4 C^2 + 4 C + (2 k - 1)^2 N parameters. NAT and DiNAT have the bias (default);"
        " later models of the authors do without. Any grid that is not smaller than the"
        " window times the dilation. DiNAT alternates dilations from block to block,"
        " which is a filling. The recorded matrix is that of the whole grid."
    ),
)
