"""Linear attention: elu(x) + 1 in place of the exponential, so that sums come first.

Katharopoulos, Vyas, Pappas, Fleuret, "Transformers are RNNs: Fast Autoregressive
Transformers with Linear Attention", ICML 2020, https://arxiv.org/abs/2006.16236,
equations 5 and 7:

    y_t = phi(q_t)^T sum_s phi(k_s) v_s^T / phi(q_t)^T sum_s phi(k_s),
    phi(x) = elu(x) + 1.

Letters used in shapes:
    B batch, T targets, S sources, C channels, N heads, D channels of one head.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token import _projections
from attn.ops.kernel_features import elu_features
from attn.ops.linear_attention import linear_attention, linear_factors


class LinearAttention(nn.Module):
    """Token attention in linear time: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    Not causal. There is no scale: the features are no exponentials.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        dtype: computation type; None takes the type of the input. Features and sums
            are float32.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
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
            mask: boolean, True = may attend, broadcastable to [B, N, 1, S].
            grid: (rows, columns) on which the S sources lie, for the record only.
            train: without effect here.

        Raises:
            Invalid: heads do not divide C, or `mask` does not fit or tells targets
                apart, which a sum over sources cannot.
        """
        del train  # the same in training and evaluation
        query, key, value = _projections.project(self, q, q if kv is None else kv)
        factors = lambda: linear_factors(query, key, elu_features, mask=mask)
        sow(self, "factors", factors, grid=grid)
        y = linear_attention(query, key, value, elu_features, mask=mask)
        return _projections.merge(self, y, q)


def _parameters(module: LinearAttention, shape: tuple[int, ...]) -> int:
    return _projections.parameters(module, shape[-1])


LinearAttention.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title=(
            "Transformers are RNNs: Fast Autoregressive Transformers with Linear"
            " Attention"
        ),
        authors="Katharopoulos, Vyas, Pappas, Fleuret",
        year=2020,
        arxiv="2006.16236",
    ),
    formula="phi(Q) (phi(K)^T V) / (phi(Q) sum_s phi(K_s)), phi(x) = elu(x) + 1",
    complexity="2 T C^2 + 2 S C^2 + (T + S) C D",
    parameters=_parameters,
    maps=("factors",),
    supports=("any resolution", "cross"),
    note=(
        "4 C^2 + 4 C parameters. The released code adds 1e-6 to the denominator; here"
        " sums are kept in range by factors that cancel, so that rows sum to 1. A mask"
        " may leave out sources, alike for all targets. The causal form is not here."
    ),
)
