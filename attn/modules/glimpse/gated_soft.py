"""Gated soft attention: each target also says how much it wants to see at all.

Xu et al., "Show, Attend and Tell", ICML 2015, https://arxiv.org/abs/1502.03044, section
4.2.1: z_t = beta_t sum_s a_ts kv_s with beta_t = sigmoid(f_beta(h_t-1)).

Letters: B batch, T targets, S sources, C channels.
"""

from typing import ClassVar

import flax.linen as nn
import jax

from attn.modules.card import Card
from attn.modules.glimpse.additive_soft import PAPER, SUPPORTS, AdditiveSoft, count
from attn.modules.token.base import Call


class GatedSoft(AdditiveSoft):
    """`additive_soft` times a gate: q [B, T, C], kv [B, S, C] or None -> [B, T, C].

    The gate is one number for each target, beta_t = sigmoid(v . q_t + c), by which a
    target can turn away from the image: what it reads shrinks to nothing.

    Attributes:
        hidden: as of `AdditiveSoft`.
        bias: likewise, but True, as in the code of the paper that has the gate.
        gate_bias: what c starts from. 0 is a gate that is half open, as in the paper's
            code (default). Where attention has not learnt to look yet, what it reads is
            of no use, and the gate of those targets closes, after which it cannot
            learn; a gate that starts nearly open, with 2, gives it more time.
        dtype, param_dtype: as in `Token`.
    """

    bias: bool = True
    gate_bias: float = 0.0

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        dtypes = {"dtype": self.dtype or call.q.dtype, "param_dtype": self.param_dtype}
        start = nn.initializers.constant(self.gate_bias)
        gate = nn.Dense(1, name="gate_of_query", bias_init=start, **dtypes)(call.q)
        return super().attend(call) * nn.sigmoid(gate)


def _parameters(module: GatedSoft, shape: tuple[int, ...]) -> int:
    return count(module, shape) + shape[-1] + 1


GatedSoft.card = Card(
    family="glimpse",
    contract="token",
    paper=PAPER,
    formula="z_t = sigmoid(v . q_t) sum_s softmax_s(w . tanh(W_q q_t + W_k k_s)) k_s",
    complexity="(T + S) C A + T S A + T S C",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=SUPPORTS,
    note=(
        "The scores are those of 'additive_soft', with the bias of the paper's code"
        " (default). The paper gates by the state of its decoder, which is the query"
        " here. The map is that of the weights, before the gate."
    ),
)
