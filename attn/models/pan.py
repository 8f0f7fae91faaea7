"""PAN: a small network of super-resolution with gates of single pixels, and slots.

Zhao, Kong, He, Qiao, Dong, "Efficient Image Super-Resolution Using Pixel Attention",
ECCV Workshops 2020, https://arxiv.org/abs/2010.01073, sections 3.1, 3.3 and 3.4.
"""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.restoration import check_scale, conv, nearest
from attn.models.layers.timm import Rules
from attn.models.scaling import Width, step_of
from attn.modules.capture import sow
from attn.settings import Invalid, Positive

SLOPE = 0.2  # of leaky ReLUs below zero


class PAN(Model):
    """PAN: images [B, H, W, C] in [0, 1] -> [B, sH, sW, C], float32.

    A convolution, SC-PA blocks, a convolution and a skip over these; then U-PA: the
    map enlarged by repetition, a convolution, pixel attention, a leaky ReLU and another
    convolution, twice for a scale of 4; a last convolution, to which the image enlarged
    by bilinear interpolation is added. It takes images of any size.

    An SC-PA block halves the channels by 1x1 convolutions into two branches: a 3x3
    convolution, and two with a gate between, sigmoid(1x1 convolution), the paper's
    "self-calibrated convolution with pixel attention".

    Slots, which keep the shape of their maps:

        block.residual  the end of the residual branch of each SC-PA block; may be
                        narrowed, "block0/block.residual"
        enlarge.gate    after the first convolution of each U-PA, `pixel_attention`
                        unless it is filled

    Attributes:
        scale: s, 2, 3 or 4; a fact of the data.
        width: channels of the blocks, an even number.
        enlarged_width: channels after the first enlargement.
        depth: SC-PA blocks.
        gated: whether the second branch of a block has its gate.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a scale or size that cannot be, or a slot, attention
            or setting that does not exist.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = {"block.residual": 1, "enlarge.gate": 1}
    usual_fill: ClassVar = {"enlarge.gate": "pixel_attention"}

    released: ClassVar[Rules] = (
        (r"^block(\d+)/split_", r"SCPA_trunk.\1.conv1_"),
        (r"^block(\d+)/conv_a\b", r"SCPA_trunk.\1.k1.0"),
        (r"^block(\d+)/gate\b", r"SCPA_trunk.\1.PAConv.k2"),
        (r"^block(\d+)/conv_b1\b", r"SCPA_trunk.\1.PAConv.k3"),
        (r"^block(\d+)/conv_b2\b", r"SCPA_trunk.\1.PAConv.k4"),
        (r"^block(\d+)/merge\b", r"SCPA_trunk.\1.conv3"),
        (r"^enlarge(\d)/gate/excite\b", lambda m: f"att{int(m[1]) + 1}.conv"),
        (r"^enlarge(\d)/conv1\b", lambda m: f"upconv{int(m[1]) + 1}"),
        (r"^enlarge(\d)/conv2\b", lambda m: f"HRconv{int(m[1]) + 1}"),
        (r"^head\b", "conv_first"),
        (r"^body\b", "trunk_conv"),
        (r"^tail\b", "conv_last"),
    )

    scale: Positive
    width: Positive = 40
    enlarged_width: Positive = 24
    depth: Positive = 16
    gated: bool = True

    def __post_init__(self):
        check_scale(self, (2, 3, 4))
        if self.width % 2:
            raise Invalid(f"width of PAN must be even, got {self.width}")
        super().__post_init__()

    def scopes(self) -> dict[str, dict]:
        """Blocks and enlargements, counting from 0."""
        return numbered("block", self.depth) | numbered("enlarge", len(self._steps()))

    def width_settings(self) -> dict[str, Width]:
        """The channels of blocks and of enlarged maps."""
        step = step_of(self.fill, self.given())
        return {
            "width": Width(self.width, math.lcm(2, step)),
            "enlarged_width": Width(self.enlarged_width, step),
        }

    def _steps(self) -> tuple[int, ...]:
        return (2, 2) if self.scale == 4 else (self.scale,)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        image = image.astype(self.dtype or image.dtype)
        first = conv(self, "head", image, self.width)
        x = first
        for index in range(self.depth):
            x = Block(self.gated, **self.within(f"block{index}"))(x, train=train)
        x = conv(self, "body", x, self.width) + first
        for index, step in enumerate(self._steps()):
            within = self.within(f"enlarge{index}")
            x = Enlarge(step, self.enlarged_width, **within)(x, train=train)
        x = conv(self, "tail", x, image.shape[-1]).astype(jnp.float32)
        return x + jax.image.resize(image.astype(jnp.float32), x.shape, "bilinear")


class Block(Slotted):
    """An SC-PA block: [B, H, W, C] -> [B, H, W, C]."""

    gated: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = x.shape[-1] // 2
        plain = _leaky(conv(self, "split_a", x, half, 1, bias=False))
        plain = _leaky(conv(self, "conv_a", plain, half, bias=False))
        y = _leaky(conv(self, "split_b", x, half, 1, bias=False))
        z = conv(self, "conv_b1", y, half, bias=False)
        if self.gated:
            gate = nn.sigmoid(conv(self, "gate", y, half, 1))
            sow(self, "pixel_gate", gate)
            z = z * gate
        z = _leaky(conv(self, "conv_b2", z, half, bias=False))
        y = jnp.concatenate([plain, z], axis=-1)
        y = conv(self, "merge", y, x.shape[-1], 1, bias=False)
        return x + slots.attend(self, "block.residual", y, train=train)


class Enlarge(Slotted):
    """U-PA: [B, H, W, C] -> [B, sH, sW, features]."""

    scale: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = conv(self, "conv1", nearest(x, self.scale), self.features)
        x = _leaky(slots.attend(self, "enlarge.gate", x, train=train))
        return _leaky(conv(self, "conv2", x, self.features))


def _leaky(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, SLOPE)
