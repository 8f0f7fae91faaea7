"""Cross-covariance attention (XCA): a softmax over channels instead of tokens.

El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021,
https://arxiv.org/abs/2106.09681, equation 2:

    V softmax(K_hat^T Q_hat / tau), each channel of K_hat and Q_hat of length 1.

Letters used in shapes:
    B batch, T tokens, C channels, N heads, D channels of one head.
"""

from typing import ClassVar

import flax.linen as nn
import jax

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token.base import Call, Heads
from attn.ops.cross_covariance import cross_covariance_read, cross_covariance_weights


class CrossCovariance(Heads):
    """Token attention in linear time: q [B, T, C], kv [B, T, C] or None -> [B, T, C].

    Channels of a head attend to each other by their cosines over all tokens, times a
    learned temperature for each head. Each token is mixed by the same matrix.

    Attributes:
        num_heads, head_dim, qkv_bias, out_bias, kernel_init, dtype, param_dtype: as in
            `Heads`.
    """

    card: ClassVar[Card]

    def attend(self, call: Call) -> jax.Array:
        query, made = self.project(call)
        start = nn.initializers.ones_init()
        temperature = self.param(
            "temperature", start, query.shape[2:3], self.param_dtype
        )
        weights = cross_covariance_weights(
            query, made["key"], temperature, kv_mask=call.kv_mask
        )
        sow(self, "channel_matrix", weights)
        y = cross_covariance_read(weights, made["value"])
        return self.merge(y, call.q.shape[-1])


def _parameters(module: CrossCovariance, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads, _ = module.head_shape(channels)
    return module.count(channels) + heads


CrossCovariance.card = Card(
    family="token",
    contract="token",
    paper=Paper(
        title="XCiT: Cross-Covariance Image Transformers",
        authors=(
            "El-Nouby, Touvron, Caron, Bojanowski, Douze, Joulin, Laptev, Neverova,"
            " Synnaeve, Verbeek, Jegou"
        ),
        year=2021,
        arxiv="2106.09681",
    ),
    formula="V softmax(tau K_hat^T Q_hat), channels of K_hat and Q_hat of length 1",
    complexity="4 T C^2 + 2 T C D",
    parameters=_parameters,
    maps=("channel_matrix",),
    supports=frozenset({"any resolution", "kv_mask"}),
    note=(
        "4 C^2 + 4 C + N parameters. The paper divides by tau; the released code and"
        " timm multiply by a temperature that starts at 1, as here (some ports take its"
        " exponential, which starts at e). Without the local patch interaction of XCiT,"
        " which is the model's, tokens meet only in the covariance. A mask may leave"
        " tokens out of it."
    ),
)
