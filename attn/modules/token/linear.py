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

import jax

from attn.modules.card import Card, Paper
from attn.modules.token import _kernel
from attn.modules.token.base import Call, Heads
from attn.ops.kernel_features import elu_features


class LinearAttention(Heads):
    """Token attention in linear time: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    There is no scale: the features are no exponentials. Features and sums are float32.
    Decoding keeps one state of D x D numbers a head, whatever the length.

    Attributes:
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        return _kernel.attend(self, call, elu_features)


def _parameters(module: LinearAttention, shape: tuple[int, ...]) -> int:
    return module.count(shape[-1])


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
    maps=("factors", "token_matrix"),
    supports=frozenset({"any resolution", "cross", "kv_mask", "causal", "decode"}),
    note=(
        "4 C^2 + 4 C parameters. The released code adds 1e-6 to the denominator; here"
        " sums are kept in range by factors that cancel, so that rows sum to 1. In"
        " causal order it records the matrix, not factors."
    ),
)
