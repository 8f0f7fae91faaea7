"""Additive soft attention: a small network scores each pair, a softmax weighs them.

Bahdanau, Cho, Bengio, "Neural Machine Translation by Jointly Learning to Align and
Translate", ICLR 2015, https://arxiv.org/abs/1409.0473, equations 5, 6 and appendix
A.1.2. Xu et al., "Show, Attend and Tell", ICML 2015, https://arxiv.org/abs/1502.03044,
equations 4, 5, 13 and section 4.2.1, which brought it to images.

Letters used in shapes:
    B batch, T targets (queries), S sources (annotations), C channels, A hidden width.
"""

from typing import ClassVar

import flax.linen as nn
import jax

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Token
from attn.ops import dot_product
from attn.ops.additive import additive_logits
from attn.settings import Positive


class AdditiveSoft(Token):
    """Soft selection: q [B, T, C], kv [B, S, C] or None -> sum_s a_ts kv_s, [B, T, C].

    a_ts = softmax_s(w . tanh(W_q q_t + W_k kv_s + b)), so weights lie in [0, 1] and
    sum to 1 over the sources. The annotations kv are read as they are, without a
    projection. Without `kv` the tokens attend to each other. The softmax is float32.

    Attributes:
        hidden: A, width of the scoring network; None is C. Bahdanau et al. use 1000,
            the code of Show, Attend and Tell the width of the annotations.
        bias: whether the scoring network has b. The formula of the first paper has
            none; the code of the second has one.
        gate: whether each target's result is multiplied by
            beta_t = sigmoid(v . q_t + c), by which a target can turn away from the
            image (Show, Attend and Tell, section 4.2.1).
        dtype, param_dtype: as in `Token`.
    """

    hidden: Positive | None = None
    bias: bool = False
    gate: bool = False

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        dtypes = {"dtype": self.dtype or call.q.dtype, "param_dtype": self.param_dtype}
        q = call.q.astype(dtypes["dtype"])
        hidden = self.hidden or q.shape[-1]
        asked = nn.Dense(hidden, use_bias=self.bias, name="query", **dtypes)(q)
        made = None
        if call.kv is not None:
            found = nn.Dense(hidden, use_bias=False, name="key", **dtypes)(call.kv)
            made = {"key": found, "value": call.kv.astype(dtypes["dtype"])}
        arrays, visible = self.sources(call, made)
        found, kv = arrays["key"], arrays["value"]
        start = nn.initializers.normal(hidden**-0.5)
        score = self.param("score", start, (hidden,), self.param_dtype)
        logits = additive_logits(asked, found, score.astype(asked.dtype))
        mask = visible.matrix(q.shape[1], kv.shape[1])
        weights = dot_product.masked_softmax(logits[:, None], mask)
        sow(self, "token_matrix", weights, grid=call.grid)
        z = dot_product.read(weights, kv[:, :, None])[:, :, 0]
        if self.gate:
            z = z * nn.sigmoid(nn.Dense(1, name="gate_of_query", **dtypes)(q))
        return z


def _parameters(module: AdditiveSoft, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    hidden = module.hidden or channels
    score = 2 * channels * hidden + hidden * module.bias + hidden
    return score + (channels + 1) * module.gate


AdditiveSoft.card = Card(
    family="glimpse",
    contract="token",
    paper=Paper(
        title=(
            "Show, Attend and Tell: Neural Image Caption Generation with Visual"
            " Attention"
        ),
        authors="Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio",
        year=2015,
        arxiv="1502.03044",
    ),
    formula="z_t = sum_s softmax_s(w . tanh(W_q q_t + W_k k_s)) k_s",
    complexity="(T + S) C A + T S A + T S C",
    parameters=_parameters,
    maps=("token_matrix",),
    supports=frozenset(
        {"any resolution", "cross", "mask", "kv_mask", "causal", "decode"}
    ),
    variants={
        "bahdanau": {},
        "show_attend_tell": {"bias": True, "gate": True},
    },
    note=(
        "Bahdanau et al. (arXiv 1409.0473) give the formula (default). The code of"
        " Show, Attend and Tell adds a bias inside tanh, one after w that the softmax"
        " cancels (left out here), and the gate beta. There the queries are the states"
        " of a recurrent decoder; here they are any tokens, by default the annotations"
        " themselves. The penalty (1 - sum_t a_ts)^2 belongs to a loss, not here."
    ),
)
