"""Neighborhood attention (NAT, DiNAT): tokens attend to the k x k around them.

Hassani, Walton, Li, Li, Shi, "Neighborhood Attention Transformer", CVPR 2023,
https://arxiv.org/abs/2204.07143, section 3; with dilation: Hassani, Shi, "Dilated
Neighborhood Attention Transformer", 2022, https://arxiv.org/abs/2209.15001:

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
from attn.modules.token import _projections
from attn.ops.neighborhood import (
    neighborhood_attention,
    neighborhood_mask,
    relative_places,
)
from attn.settings import Positive

Size = Positive | tuple[Positive, Positive]


class Neighborhood(nn.Module):
    """Token attention in linear time: q [B, T, C] with grid=(H, W) -> [B, T, C].

    At borders the window is moved inwards, so that each token has k x k neighbours;
    with dilation, tokens that differ by a multiple of it are a grid of their own.

    Attributes:
        window: k, odd, or (rows, columns); times the dilation at most the grid. The
            paper has 7.
        dilation: step between neighbours, or (rows, columns); 1 is NAT.
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        relative_bias: whether there is B, (2 k - 1)^2 numbers a head, which start as a
            normal of 0.02 truncated at two standard deviations.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    window: Size = 7
    dilation: Size = 1
    num_heads: int | None = None
    head_dim: int | None = None
    relative_bias: bool = True
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
            q: tokens of a grid, row by row, [B, T, C].
            kv: tokens of the same grid that are asked, [B, T, C]; None takes `q`.
            mask: boolean, True = may attend, broadcastable to [B, N, T, T].
            grid: (rows, columns) on which the tokens lie.
            train: without effect here.

        Raises:
            Invalid: no grid, one that is not T, a window that is even or larger than
                the grid, heads that do not divide C, or a mask that does not fit.
        """
        del train  # the same in training and evaluation
        kv = q if kv is None else kv
        grid = _check_grid(grid, q.shape[1], kv.shape[1])
        query, key, value = _projections.project(self, q, kv)
        bias = self._bias(query.shape[2])
        sizes = {"window": _pair(self.window), "dilation": _pair(self.dilation)}
        matrix = lambda: _matrix(query, key, bias, mask, grid, sizes)
        sow(self, "token_matrix", matrix, grid=grid)
        lie = lambda x: x.reshape(len(x), *grid, *x.shape[2:])
        y = neighborhood_attention(
            lie(query), lie(key), lie(value), bias=bias, mask=mask, **sizes
        )
        return _projections.merge(self, y.reshape(query.shape), q)

    def _bias(self, num_heads: int) -> jax.Array | None:
        """B, [N, 2 k - 1, 2 k - 1]."""
        if not self.relative_bias:
            return None
        sides = (2 * k - 1 for k in _pair(self.window))
        start = nn.initializers.truncated_normal(0.02)
        shape = (num_heads, *sides)
        return self.param("relative_bias", start, shape, self.param_dtype)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _check_grid(
    grid: tuple[int, int] | None, tokens: int, sources: int
) -> tuple[int, int]:
    if grid is None:
        raise settings.Invalid(
            f"neighborhood attention needs grid=(rows, columns) of its {tokens} tokens;"
            " a class token does not lie on one, a ViT with pool='mean' has none"
        )
    places = grid[0] * grid[1]
    if places != tokens or places != sources:
        count = tokens if places != tokens else sources
        raise settings.Invalid(
            f"a grid of {grid[0]} x {grid[1]} has {places} places, but there are"
            f" {count} tokens"
        )
    return tuple(grid)


def _matrix(query, key, bias, mask, grid, sizes) -> jax.Array:
    """The whole matrix [B, N, T, T], 0 beyond the neighbours, for the record."""
    near = jnp.asarray(neighborhood_mask(grid, **sizes))[None, None]
    if mask is not None:
        near = near & mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    if bias is not None:
        down, right = relative_places(grid, **sizes)
        bias = bias[:, down, right][None]  # -1 reads some entry, which `near` forbids
    return ops.attention_weights(query, key, bias=bias, mask=near)


def _parameters(module: Neighborhood, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads, _ = _projections.head_shape(channels, module.num_heads, module.head_dim)
    rows, columns = _pair(module.window)
    table = heads * (2 * rows - 1) * (2 * columns - 1) * module.relative_bias
    return _projections.parameters(module, channels) + table


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
    complexity="4 T C^2 + 2 T k^2 C (about twice the second term is run)",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=("any resolution", "mask", "grid"),
    note=(
        "4 C^2 + 4 C + (2 k - 1)^2 N parameters. NAT and DiNAT have the bias (default);"
        " later models of the authors do without. Any grid that is not smaller than the"
        " window times the dilation. DiNAT alternates dilations from block to block,"
        " which is a filling. The recorded matrix is that of the whole grid."
    ),
)
