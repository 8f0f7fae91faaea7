"""Global context: every position is given the same vector, read from all of them.

Cao, Xu, Lin, Wei, Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and
Beyond", ICCV workshops 2019, https://arxiv.org/abs/1904.11492, equations 4 and 5.
Released code: https://github.com/xvjiarui/GCNet.

Non-local blocks attend almost alike from every position; so one map of attention is
made for all, with the bottleneck of squeeze-and-excitation behind it.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.channel.squeeze_excite import hidden_channels
from attn.ops.shapes import as_map
from attn.settings import Positive


class GlobalContext(nn.Module):
    """Adds a vector to all positions: [B, H, W, C] -> x + W2 relu(LN(W1 z)).

    z = sum_j softmax_j(w . x_j) x_j, [B, C], over the H W positions. The softmax, z and
    what is made of it are float32. Where the vector is added the block is the identity
    at initialisation. `card` tells the paper, the count of parameters and the variants.

    Attributes:
        reduction: r, by which W1 makes z narrower, max(1, C // r); the paper uses 16,
            and 4 for its best results.
        pool: how z is read; "avg" is the mean of all positions, without weights.
        fuse: what becomes of the vector t: "add" x + t, or "scale" x * sigmoid(t).
        epsilon: of the layer norm.
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
    """

    reduction: Positive = 16
    pool: Literal["attention", "avg"] = "attention"
    fuse: Literal["add", "scale"] = "add"
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    card: ClassVar[Card]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train  # the same in training and evaluation
        x = as_map(x, self.dtype)
        channels = x.shape[-1]
        hidden = hidden_channels(channels, self.reduction)
        kinds = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        t = nn.Dense(hidden, name="squeeze", **kinds)(self._context(x))
        # the mean of squares minus the squared mean is inexact for few channels
        exact = {"use_fast_variance": False, **kinds}
        t = nn.relu(nn.LayerNorm(epsilon=self.epsilon, name="norm", **exact)(t))
        start = nn.initializers.lecun_normal()
        if self.fuse == "add":
            start = nn.initializers.zeros_init()
        t = nn.Dense(channels, kernel_init=start, name="excite", **kinds)(t)
        if self.fuse == "add":
            return x + t[:, None, None].astype(x.dtype)
        gate = nn.sigmoid(t)
        sow(self, "channel_gate", gate)
        return x * gate[:, None, None].astype(x.dtype)

    def _context(self, x: jax.Array) -> jax.Array:
        """z, [B, C] in float32."""
        if self.pool == "avg":
            return jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        kinds = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        start = nn.initializers.he_normal()
        logits = nn.Dense(1, kernel_init=start, name="attend", **kinds)(x)[..., 0]
        weights = jax.nn.softmax(logits, axis=(1, 2))
        sow(self, "spatial_map", weights)
        return jnp.einsum("bhw,bhwc->bc", weights, x.astype(jnp.float32))


def _parameters(module: GlobalContext, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    hidden = hidden_channels(channels, module.reduction)
    pooled = (channels + 1) * (module.pool == "attention")
    return pooled + 2 * channels * hidden + hidden + 2 * hidden + channels


GlobalContext.card = Card(
    family="non_local",
    contract="map",
    paper=Paper(
        title=("GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond"),
        authors="Cao, Xu, Lin, Wei, Hu",
        year=2019,
        arxiv="1904.11492",
    ),
    formula="x + W2 relu(LN(W1 sum_j softmax_j(w x_j) x_j))",
    complexity="2 HWC + 2 C^2 / r (scale: 3 HWC)",
    parameters=_parameters,
    maps=("spatial_map", "channel_gate"),
    variants={
        "paper": {},
        "released_scale": {"fuse": "scale"},
        "timm": {"reduction": 8, "epsilon": 1e-6},
        "timm_scale": {"reduction": 8, "fuse": "scale", "epsilon": 1e-6},
    },
    note=(
        "The paper and its code add (default), and the code can scale as well. So do"
        " timm's attentions 'gca', that of its gcresnets, and 'gc', at r = 8 and with"
        " an epsilon of 1e-6; timm rounds C / 8 to the nearest integer. The bias of the"
        " map of attention, which both have, has no effect: the softmax cancels it."
    ),
)
