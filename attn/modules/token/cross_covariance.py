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
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.token import _projections
from attn.ops.cross_covariance import cross_covariance_read, cross_covariance_weights


class CrossCovariance(nn.Module):
    """Token attention in linear time: q [B, T, C], kv [B, T, C] or None -> [B, T, C].

    Channels of a head attend to each other by their cosines over all tokens, times a
    learned temperature for each head. Each token is mixed by the same matrix.

    Attributes:
        num_heads: N, which must divide C. None is C / head_dim, or 4 heads.
        head_dim: D, which must divide C. None is C / num_heads.
        qkv_bias: whether queries, keys and values have biases; XCiT's have.
        out_bias: whether the last linear map has one.
        dtype: computation type; None takes the type of the input. Lengths of channels
            and the softmax are float32.
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
            q: tokens, [B, T, C].
            kv: tokens that keys and values come from, one for each of `q`, [B, T, C];
                None takes `q`.
            mask: boolean, broadcastable to [B, N, 1, T]: tokens that are False are left
                out of the covariance; their own outputs are made as all others.
            grid: without effect here; the matrix has no places.
            train: without effect here.

        Raises:
            Invalid: heads do not divide C, `kv` has another number of tokens, or
                `mask` does not fit or tells targets apart.
        """
        del train, grid
        query, key, value = _projections.project(self, q, q if kv is None else kv)
        start = nn.initializers.ones_init()
        temperature = self.param(
            "temperature", start, query.shape[2:3], self.param_dtype
        )
        weights = cross_covariance_weights(query, key, temperature, mask=mask)
        sow(self, "channel_matrix", weights)
        return _projections.merge(self, cross_covariance_read(weights, value), q)


def _parameters(module: CrossCovariance, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    heads, _ = _projections.head_shape(channels, module.num_heads, module.head_dim)
    return _projections.parameters(module, channels) + heads


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
    supports=("any resolution",),
    note=(
        "4 C^2 + 4 C + N parameters. The paper divides by tau; the released code and"
        " timm multiply by a temperature that starts at 1, as here (some ports take its"
        " exponential, which starts at e). Without the local patch interaction of XCiT,"
        " which is the host's, tokens meet only in the covariance. A mask may leave"
        " tokens out of it."
    ),
)
