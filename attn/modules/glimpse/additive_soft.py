"""Additive soft attention: a small network scores each pair, a softmax weighs them.

Bahdanau, Cho, Bengio, "Neural Machine Translation by Jointly Learning to Align and
Translate", ICLR 2015, https://arxiv.org/abs/1409.0473, equations 5, 6 and appendix
A.1.2. Xu et al., "Show, Attend and Tell", ICML 2015, https://arxiv.org/abs/1502.03044,
equations 4, 5 and 13, which brought it to images.

Letters used in shapes:
    B batch, T targets (queries), S sources (annotations), C channels, A hidden width.
"""

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Token
from attn.ops import dot_product
from attn.ops.additive import additive_logits
from attn.settings import Positive


class Scored(NamedTuple):
    """What additive scores say of the sources of a call."""

    logits: jax.Array
    """[B, 1, T, S], float32"""
    mask: jax.Array | None
    """which of them count, [B, 1, T, S] of which any axis may be 1, or None"""
    sources: jax.Array
    """kv as it is, [B, S, C]"""


class AdditiveSoft(Token):
    """Soft selection: q [B, T, C], kv [B, S, C] or None -> sum_s a_ts kv_s, [B, T, C].

    a_ts = softmax_s(w . tanh(W_q q_t + W_k kv_s + b)), so weights lie in [0, 1] and
    sum to 1 over the sources. The annotations kv are read as they are, without a
    projection; they may have other channels than the queries. Without `kv` the tokens
    attend to each other. The softmax is float32.

    Attributes:
        hidden: A, width of the scoring network; None is C. Bahdanau et al. use 1000,
            the code of Show, Attend and Tell the width of the annotations.
        bias: whether the scoring network has b. The formula of the first paper has
            none; the code of the second has one.
        dtype, param_dtype: as in `Token`.
    """

    hidden: Positive | None = None
    bias: bool = False

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        scored = self.score(call)
        weights = dot_product.masked_softmax(scored.logits, scored.mask)
        return self.read(call, weights, scored.sources)

    def score(self, call: Call) -> Scored:
        """The logits of all pairs."""
        dtypes = {"dtype": self.dtype or call.q.dtype, "param_dtype": self.param_dtype}
        q = call.queries.astype(dtypes["dtype"])
        hidden = self.hidden or q.shape[-1]
        layer = nn.Dense(hidden, use_bias=self.bias, name="query", **dtypes)
        asked = layer(call.queries.astype(q.dtype))
        made = None
        if call.kv is not None:
            found = nn.Dense(hidden, use_bias=False, name="key", **dtypes)(call.keys)
            made = {"key": found, "value": call.kv.astype(dtypes["dtype"])}
        arrays, visible = self.sources(call, made)
        found, kv = arrays["key"], arrays["value"]
        start = nn.initializers.normal(hidden**-0.5)
        score = self.param("score", start, (hidden,), self.param_dtype)
        logits = additive_logits(asked, found, score.astype(asked.dtype))
        mask = visible.matrix(q.shape[1], kv.shape[1])
        return Scored(logits[:, None], mask, kv)

    def read(self, call: Call, weights: jax.Array, kv: jax.Array) -> jax.Array:
        """The sources by weights [B, 1, T, S], which are recorded: [B, T, C]."""
        sow(self, "token_matrix", weights, grid=call.grid)
        return dot_product.read(weights, kv[:, :, None])[:, :, 0]


def count(module: AdditiveSoft, shape: tuple[int, ...]) -> int:
    """Number of parameters of the scoring network."""
    hidden = module.hidden or shape[-1]
    return 2 * shape[-1] * hidden + hidden * module.bias + hidden


PAPER = Paper(
    title=(
        "Show, Attend and Tell: Neural Image Caption Generation with Visual Attention"
    ),
    authors="Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio",
    year=2015,
    arxiv="1502.03044",
)
SUPPORTS = frozenset({"any resolution", "cross", "mask", "kv_mask", "causal", "decode"})

AdditiveSoft.card = Card(
    family="glimpse",
    contract="token",
    paper=PAPER,
    formula="z_t = sum_s softmax_s(w . tanh(W_q q_t + W_k k_s)) k_s",
    complexity="(T + S) C A + T S A + T S C",
    parameters=count,
    maps=("token_matrix",),
    supports=SUPPORTS,
    variants={"bahdanau": {}, "show_attend_tell": {"bias": True}},
    note=(
        "Bahdanau et al. (arXiv 1409.0473) give the formula (default). The code of"
        " Show, Attend and Tell adds a bias inside tanh, and one after w that the"
        " softmax cancels (left out here); its gate beta is 'gated_soft'. There the"
        " queries are the states of a recurrent decoder; here they are any tokens, by"
        " default the annotations themselves. The penalty (1 - sum_t a_ts)^2 belongs to"
        " a loss, `attn.ops.doubly_stochastic_penalty`."
    ),
)
