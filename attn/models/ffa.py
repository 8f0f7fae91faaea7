"""FFA-Net: dehazing by gates of channels and pixels in every block, with slots.

Qin, Wang, Bai, Xie, Jia, "FFA-Net: Feature Fusion Attention Network for Single Image
Dehazing", AAAI 2020, https://arxiv.org/abs/1911.07559, sections 3.1 to 3.3, and the
code that the authors published.
"""

import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.restoration import conv
from attn.models.layers.timm import Rules
from attn.models.scaling import Width, step_of
from attn.modules.capture import sow
from attn.settings import Invalid, Positive

# Of the published training, by which images are normalised.
MEAN, DEVIATION = (0.64, 0.6, 0.58), (0.14, 0.15, 0.152)
# Channels, then pixels; in the published code all hidden layers are an eighth.
PAIR = (
    {"name": "squeeze_excite", "reduction": 8},
    {"name": "pixel_attention", "variant": "ffa", "reduction": 8},
)
FUSED = 16  # by which the hidden layer of the fusion is narrower than a group


class FFA(Model):
    """FFA-Net: images [B, H, W, 3] in [0, 1] -> [B, H, W, 3], float32.

    A convolution; groups of residual blocks, each with a convolution at its end and a
    skip over the group; gates of the channels of all groups from their means, by which
    groups are summed; a gate of pixels; and two convolutions, to which the image is
    added. It takes images of any size.

    Slots, which keep the shape of their maps:

        block.residual  the end of the residual branch of each block, a list of
                        `squeeze_excite` and `pixel_attention` unless it is filled; may
                        be narrowed, "group0/block0/block.residual"
        fused           the sum of the groups, `pixel_attention` unless it is filled

    Attributes:
        width: channels; the gate of the groups has a 16th of them.
        groups: of blocks.
        depth: blocks of a group.
        skip: what is added at the end: the "normalised" image that the network reads,
            as in the published code, or the "image" itself, from which a network that
            is trained shortly starts nearer to the truth.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a size that cannot be, or a slot, attention or setting
            that does not exist; when it is called, images of other than 3 channels.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = {"block.residual": 2, "fused": 0}
    usual_fill: ClassVar = {"block.residual": list(PAIR), "fused": PAIR[1]}
    released: ClassVar[Rules] = (
        (r"^group(\d+)/block(\d+)/", lambda m: f"g{int(m[1]) + 1}.gp.{m[2]}/"),
        (r"\bresidual0/squeeze\b", "calayer.ca.0"),
        (r"\bresidual0/excite\b", "calayer.ca.2"),
        (r"\bresidual1/squeeze\b", "palayer.pa.0"),
        (r"\bresidual1/excite\b", "palayer.pa.2"),
        (r"^fused/squeeze\b", "palayer.pa.0"),
        (r"^fused/excite\b", "palayer.pa.2"),
        (r"^fuse1\b", "ca.1"),
        (r"^fuse2\b", "ca.3"),
        (r"^head\b", "pre.0"),
        (r"^tail(\d)\b", r"post.\1"),
    )

    width: Positive = 64
    groups: Positive = 3
    depth: Positive = 19
    skip: Literal["normalised", "image"] = "normalised"

    def scopes(self) -> dict[str, dict]:
        """Groups and the blocks in them, counting from 0."""
        blocks = numbered("block", self.depth)
        return {f"group{index}": blocks for index in range(self.groups)}

    def released_rules(self) -> Rules:
        """The convolution at the end of a group follows its blocks."""
        end = lambda m: f"g{int(m[1]) + 1}.gp.{self.depth}"
        return ((r"^group(\d+)/end\b", end), *self.released)

    def width_settings(self) -> dict[str, Width]:
        """The channels."""
        step = math.lcm(FUSED, step_of(self.fill, self.given()))
        return {"width": Width(self.width, step)}

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        if image.shape[-1] != 3:
            raise Invalid(f"FFA reads images of 3 channels, got {image.shape[-1]}")
        image = image.astype(self.dtype or image.dtype)
        mean, deviation = (
            jnp.asarray(one, image.dtype).reshape(1, 1, 1, 3)
            for one in (MEAN, DEVIATION)
        )
        given = (image - mean) / deviation
        x = conv(self, "head", given, self.width)
        groups = []
        for index in range(self.groups):
            x = Group(self.depth, **self.within(f"group{index}"))(x, train=train)
            groups.append(x)
        x = slots.attend(self, "fused", self._fused(groups), train=train)
        x = conv(self, "tail0", x, self.width)
        x = conv(self, "tail1", x, image.shape[-1]).astype(jnp.float32)
        skip = given if self.skip == "normalised" else image
        return x + skip.astype(jnp.float32)

    def _fused(self, groups: list[jax.Array]) -> jax.Array:
        """The groups, [B, H, W, C] each, summed with a gate of each channel."""
        means = jnp.mean(jnp.concatenate(groups, -1), axis=(1, 2), dtype=jnp.float32)
        kinds = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        hidden = max(1, self.width // FUSED)
        gate = nn.relu(nn.Dense(hidden, name="fuse1", **kinds)(means))
        gate = nn.sigmoid(nn.Dense(means.shape[-1], name="fuse2", **kinds)(gate))
        sow(self, "channel_gate", gate)
        gates = jnp.split(gate[:, None, None].astype(groups[0].dtype), len(groups), -1)
        return sum(g * x for g, x in zip(gates, groups, strict=True))


class Group(Slotted):
    """Blocks, a convolution, and a skip over them: [B, H, W, C] -> [B, H, W, C]."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x
        for index in range(self.depth):
            y = Block(**self.within(f"block{index}"))(y, train=train)
        return x + conv(self, "end", y, x.shape[-1])


class Block(Slotted):
    """Two convolutions with a skip over each part: [B, H, W, C] -> [B, H, W, C]."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x + nn.relu(conv(self, "conv1", x, x.shape[-1]))
        y = conv(self, "conv2", y, x.shape[-1])
        return x + slots.attend(self, "block.residual", y, train=train)
