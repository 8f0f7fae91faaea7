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

import jax
import jax.numpy as jnp

from attn.modules.card import Card, Paper
from attn.modules.token import _kernel
from attn.modules.token.base import Call, Heads
from attn.ops import kernel_features
from attn.settings import Count, Positive

KERNELS = {
    "softmax": kernel_features.softmax_features,
    "relu": kernel_features.relu_features,
}


class Performer(Heads):
    """Token attention in linear time: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    W follows from `seed` alone: it is no variable, is the same in all heads and in all
    steps, and a checkpoint fits as long as the seed stays. Features and sums are
    float32. Decoding keeps one state of M x D numbers a head, whatever the length.

    Attributes:
        num_features: M; the released code has 256 (for D of 64). None is D ln D rounded
            up, the order that theorem 4 of the paper asks for.
        kernel: "softmax", or "relu" for phi(x) = relu(W x) + 0.001, the generalized
            attention that the paper found better on long sequences.
        orthogonal: whether rows of W are orthogonal in blocks; False draws each by
            itself.
        seed: from which W is made, at least 0. Layers of one network should have
            different ones.
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    num_features: Positive | None = 256
    kernel: Literal["softmax", "relu"] = "softmax"
    orthogonal: bool = True
    seed: Count = 0

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        projection = self._projection(self.head_shape(call.q.shape[-1])[1])
        features = functools.partial(KERNELS[self.kernel], projection=projection)
        return _kernel.attend(self, call, features)

    def _projection(self, dim: int) -> jax.Array:
        """W, [M, D]."""
        features = self.num_features or max(1, math.ceil(dim * math.log(dim)))
        matrix = kernel_features.random_projection(
            features, dim, seed=self.seed, orthogonal=self.orthogonal
        )
        return jnp.asarray(matrix)


def _parameters(module: Performer, shape: tuple[int, ...]) -> int:
    return module.count(shape[-1])


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
    maps=("factors", "token_matrix"),
    supports=frozenset({"any resolution", "cross", "kv_mask", "causal", "decode"}),
    note=(
        "4 C^2 + 4 C parameters; the random matrix follows from the seed and is none."
        " The released code redraws it (a setting there) and adds 1e-6 to the features;"
        " here it stays, and sums are kept in range by factors that cancel. In"
        " causal order it records the matrix, not factors."
    ),
)
