"""Convolutional block attention: a gate for channels, then one for positions.

Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018,
https://arxiv.org/abs/1807.06521, equations 1 to 3 and the ablations of its Tables 1
to 3. Released code: https://github.com/Jongchan/attention-module.
"""

import functools
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.modules.convolution import Conv
from attn.ops.pool import largest
from attn.ops.shapes import as_map
from attn.settings import Positive

POOLS = {"avg": (jnp.mean,), "max": (largest,), "avg_max": (jnp.mean, largest)}
DESCRIPTORS = {"official": (largest, jnp.mean), "timm": (jnp.mean, largest)}
# What flax keeps of the old statistics: one minus the momentum of torch.
MOMENTUM = {"official": 0.99, "timm": 0.9}


def hidden_channels(channels: int, reduction: int, variant: str) -> int:
    """Width of the shared bottleneck: C / r rounded down, by timm to the nearest."""
    return max(1, int(channels / reduction + (0.5 if variant == "timm" else 0.0)))


class CBAM(nn.Module):
    """Gates channels and positions: [B, H, W, C] -> x * Mc(x) * Ms(x * Mc(x)).

    Mc = sigmoid(sum over pools of MLP(pool_HW(x))) with one MLP for all pools, and
    Ms = sigmoid(BN(conv([max_C; mean_C]))). There is no residual inside. Pooled
    statistics, Mc and the norm are in float32. `card` tells the count of parameters.

    Attributes:
        variant: "official" is the released code: the MLP has biases, the descriptor
            is [max, mean], and the norm keeps 0.99 of its statistics. "timm" is
            timm's CbamModule: no biases, [mean, max], 0.9, and a hidden width
            rounded to the nearest integer instead of down.
        reduction: r, by which the bottleneck is narrower; the paper uses 16.
        channel_pool: what the MLP sees (the paper's Table 1; best and default
            "avg_max"). "avg" is squeeze-and-excitation; "none" leaves the gate of
            channels out, which the paper does not try.
        spatial: descriptor of positions (Table 2): "avg_max" over channels, best and
            default, a learnt "conv1x1" to one channel (without bias), or "none" for
            no spatial gate.
        order: which gate comes first (Table 3). In "parallel" both see the input,
            and both multiply it.
        kernel_size: side of the convolution that makes the spatial gate (Table 2).
        dtype: computation type; None takes the type of the input.
        param_dtype: type in which parameters are kept.
        axis_name: pmap axis over which batch statistics are averaged.

    Raises:
        Invalid: neither channels nor positions are gated.
    """

    variant: Literal["official", "timm"] = "official"
    reduction: Positive = 16
    channel_pool: Literal["avg", "max", "avg_max", "none"] = "avg_max"
    spatial: Literal["avg_max", "conv1x1", "none"] = "avg_max"
    order: Literal["channel_spatial", "spatial_channel", "parallel"] = "channel_spatial"
    kernel_size: Positive = 7
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    card: ClassVar[Card]

    def __post_init__(self):
        if self.channel_pool == self.spatial == "none":
            raise settings.Invalid(
                "cbam with channel_pool='none' and spatial='none' gates nothing"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = as_map(x, self.dtype)
        gates = []
        if self.channel_pool != "none":
            gates.append(self._channel_gate)
        if self.spatial != "none":
            gates.append(functools.partial(self._spatial_gate, train=train))
        if self.order == "spatial_channel":
            gates.reverse()
        y = x
        for gate in gates:
            y = y * gate(x if self.order == "parallel" else y)
        return y

    def _channel_gate(self, x: jax.Array) -> jax.Array:
        """What to look at, [B, 1, 1, C]."""
        channels = x.shape[-1]
        hidden = hidden_channels(channels, self.reduction, self.variant)
        kinds = {
            "use_bias": self.variant == "official",
            "dtype": jnp.float32,
            "param_dtype": self.param_dtype,
        }
        squeeze = nn.Dense(hidden, name="squeeze", **kinds)
        excite = nn.Dense(channels, name="excite", **kinds)
        pooled = (
            pool(x.astype(jnp.float32), axis=(1, 2))
            for pool in POOLS[self.channel_pool]
        )
        gate = nn.sigmoid(sum(excite(nn.relu(squeeze(p))) for p in pooled))
        sow(self, "channel_gate", gate)
        return gate[:, None, None, :].astype(x.dtype)

    def _spatial_gate(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Where to look, [B, H, W, 1]."""
        kinds = {
            "use_bias": False,
            "dtype": x.dtype,
            "param_dtype": self.param_dtype,
        }
        if self.spatial == "conv1x1":
            seen = nn.Dense(1, name="descriptor", **kinds)(x)
        else:
            pools = DESCRIPTORS[self.variant]
            seen = jnp.stack([p(x.astype(jnp.float32), axis=-1) for p in pools], -1)
        side = (self.kernel_size, self.kernel_size)
        logits = Conv(1, side, name="spatial", **kinds)(seen)
        norm = nn.BatchNorm(
            use_running_average=not train,
            momentum=MOMENTUM[self.variant],
            epsilon=1e-5,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
            name="norm",
        )
        gate = nn.sigmoid(norm(logits)).astype(x.dtype)
        sow(self, "spatial_map", lambda: gate[..., 0])
        return gate


def _parameters(module: CBAM, shape: tuple[int, ...]) -> int:
    channels = shape[-1]
    hidden = hidden_channels(channels, module.reduction, module.variant)
    biases = (channels + hidden) * (module.variant == "official")
    descriptor = {"avg_max": 0, "conv1x1": channels}
    planes = {"avg_max": 2, "conv1x1": 1}
    mlp = 2 * channels * hidden + biases if module.channel_pool != "none" else 0
    if module.spatial == "none":
        return mlp
    kernel = planes[module.spatial] * module.kernel_size**2
    return mlp + descriptor[module.spatial] + kernel + 2


CBAM.card = Card(
    family="mixed",
    contract="map",
    paper=Paper(
        title="CBAM: Convolutional Block Attention Module",
        authors="Woo, Park, Lee, Kweon",
        year=2018,
        arxiv="1807.06521",
    ),
    formula="y = x * sigmoid(MLP(avg) + MLP(max)); y * sigmoid(BN(f7x7[max_C; avg_C]))",
    complexity="4 C^2 / r + 2 k^2 HW + 2 HWC",
    parameters=_parameters,
    maps=("channel_gate", "spatial_map"),
    variants={"official": {}, "timm": {"variant": "timm"}},
    note=(
        "The released code is the default: its MLP has biases and its descriptor is"
        " [max, mean], where the paper writes [mean; max]; both train the same, only"
        " kernels trade places. timm drops the biases, takes [mean, max] and keeps"
        " the norm after the convolution. The paper does not say how the parallel"
        " order joins the gates: here both multiply the input."
    ),
)
