"""Performer: softmax attention estimated by positive orthogonal random features.

Choromanski et al., "Rethinking Attention with Performers", ICLR 2021,
https://arxiv.org/abs/2009.14794, lemma 1 and sections 2.2 to 2.4 (FAVOR+):

    y_t = phi(q_t)^T sum_s phi(k_s) v_s^T / phi(q_t)^T sum_s phi(k_s),
    phi(x) = exp(W x' - |x'|^2 / 2) / sqrt(M), x' = x / D^(1/4),

with M random rows in W, orthogonal in blocks of D, so that phi(q) . phi(k) is
exp(q . k / sqrt(D)) on average.

Letters used in shapes:
    B batch, T targets, S sources, C channels, N heads, D channels of one head, M random
    features.
"""

import functools
import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token import _projections
from attn.ops import kernel_features
from attn.ops.linear_attention import linear_attention, linear_factors
from attn.settings import Positive

KERNELS = {
    "softmax": kernel_features.softmax_features,
    "relu": kernel_features.relu_features,
}


class Performer(nn.Module):
    """Token attention in linear time: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    Not causal. W follows from `seed` alone: it is no variable, is the same in all heads
    and in all steps, and a checkpoint fits as long as the seed stays.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        num_features: M; the released code has 256 (for D of 64). None is D ln D rounded
            up, the order that theorem 4 of the paper asks for.
        kernel: "softmax", or "relu" for phi(x) = relu(W x) + 0.001, the generalized
            attention that the paper found better on long sequences.
        orthogonal: whether rows of W are orthogonal in blocks; False draws each by
            itself.
        seed: from which W is made, at least 0. Layers of one network should have
            different ones.
        qkv_bias: whether queries, keys and values have biases.
        out_bias: whether the last linear map has one.
        dtype: computation type; None takes the type of the input. Features and sums
            are float32.
        param_dtype: type in which parameters are kept.
    """

    num_heads: int | None = None
    head_dim: int | None = None
    num_features: Positive | None = 256
    kernel: Literal["softmax", "relu"] = "softmax"
    orthogonal: bool = True
    seed: int = 0
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
        phi = functools.partial(
            KERNELS[self.kernel], projection=self._projection(query.shape[-1])
        )
        factors = lambda: linear_factors(query, key, phi, mask=mask)
        sow(self, "factors", factors, grid=grid)
        y = linear_attention(query, key, value, phi, mask=mask)
        return _projections.merge(self, y, q)

    def _projection(self, dim: int) -> jax.Array:
        """W, [M, D]."""
        features = self.num_features or max(1, math.ceil(dim * math.log(dim)))
        matrix = kernel_features.random_projection(
            features, dim, seed=self.seed, orthogonal=self.orthogonal
        )
        return jnp.asarray(matrix)


def _parameters(module: Performer, shape: tuple[int, ...]) -> int:
    return _projections.parameters(module, shape[-1])


Performer.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="Rethinking Attention with Performers",
        authors=(
            "Choromanski, Likhosherstov, Dohan, Song, Gane, Sarlos, Hawkins, Davis,"
            " Mohiuddin, Kaiser, Belanger, Colwell, Weller"
        ),
        year=2021,
        arxiv="2009.14794",
    ),
    formula=(
        "phi(Q) (phi(K)^T V) / (phi(Q) sum_s phi(K_s)),"
        " phi(x) = exp(W x - |x|^2 / 2) / sqrt(M)"
    ),
    complexity="2 T C^2 + 2 S C^2 + 2 (T + S) M C",
    parameters=_parameters,
    maps=("factors",),
    supports=("any resolution", "cross"),
    note=(
        "4 C^2 + 4 C parameters; the random matrix follows from the seed and is none."
        " The released code redraws it (a setting there) and adds 1e-6 to the features;"
        " here it stays, and sums are kept in range by factors that cancel. A mask may"
        " leave out sources, alike for all targets. The causal form is not here."
    ),
)
