"""EDSR: a plain residual network of super-resolution, with slots.

Lim, Son, Kim, Nah, Lee, "Enhanced Deep Residual Networks for Single Image
Super-Resolution", CVPR Workshops 2017, https://arxiv.org/abs/1707.02921, section 3.
The defaults are the authors' baseline; their large network has 32 blocks of 256
channels and a residual scale of 0.1.

Not the paper's: the skip by interpolation, and a scale of 1.
"""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops
from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.restoration import check_scale, conv, enlarge, mean_colour
from attn.models.layers.timm import Rules
from attn.models.scaling import Width, step_of
from attn.settings import Positive, PositiveFloat


class EDSR(Model):
    """EDSR: images [B, H, W, C] in [0, 1] -> [B, sH, sW, C], float32.

    A convolution, residual blocks of two with a ReLU between and no normalisation, a
    convolution and a skip over all of these, sub-pixel convolutions, and a last
    convolution. The mean colour of DIV2K is subtracted and added again. It takes
    images of any size.

    Slots, which keep the shape of their maps:

        block.residual  the end of the residual branch of each block, before it is
                        scaled; may be narrowed, "block0/block.residual"
        body.end        what all blocks made, before the last convolution of the body

    Attributes:
        scale: s, 1, 2, 3, 4 or 8; a fact of the data.
        width: channels.
        depth: blocks.
        residual_scale: by which residual branches are multiplied.
        skip: "bicubic" adds the image enlarged by bicubic interpolation, so that the
            network has to make the difference only, and learns sooner; or "none".
        units: by which images in [0, 1] are multiplied inside: 1, or 255 as in the
            published code, for its weights.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a scale or size that cannot be, or a slot, attention
            or setting that does not exist.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = {"block.residual": 1, "body.end": 0}

    released: ClassVar[Rules] = (
        (r"^head\b", "head.0"),
        (r"^block(\d+)/conv1\b", r"body.\1.body.0"),
        (r"^block(\d+)/conv2\b", r"body.\1.body.2"),
        (r"^enlarge(\d)\b", lambda m: f"tail.0.{2 * int(m[1])}"),
        (r"^tail/", "tail.1/"),
    )

    scale: Positive
    width: Positive = 64
    depth: Positive = 16
    residual_scale: PositiveFloat = 1.0
    skip: Literal["none", "bicubic"] = "none"
    units: PositiveFloat = 1.0

    def __post_init__(self):
        check_scale(self)
        super().__post_init__()

    def scopes(self) -> dict[str, dict]:
        """The blocks, counting from 0."""
        return numbered("block", self.depth)

    def released_rules(self) -> Rules:
        """The last convolution of the body follows its blocks."""
        return ((r"^body\b", f"body.{self.depth}"), *self.released)

    def width_settings(self) -> dict[str, Width]:
        """The channels."""
        return {"width": Width(self.width, step_of(self.fill, self.given()))}

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        image = image.astype(self.dtype or image.dtype)
        mean = mean_colour(image)
        first = conv(self, "head", self.units * (image - mean), self.width)
        x = first
        for index in range(self.depth):
            block = Block(self.residual_scale, **self.within(f"block{index}"))
            x = block(x, train=train)
        x = slots.attend(self, "body.end", x, train=train)
        x = conv(self, "body", x, self.width) + first
        x = enlarge(self, "enlarge", x, self.scale)
        x = conv(self, "tail", x, image.shape[-1]).astype(jnp.float32) / self.units
        if self.skip == "none":
            return x + mean.astype(jnp.float32)
        return x + ops.imresize(image.astype(jnp.float32), self.scale)


class Block(Slotted):
    """A residual block: [B, H, W, C] -> [B, H, W, C]."""

    residual_scale: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.relu(conv(self, "conv1", x, x.shape[-1]))
        y = conv(self, "conv2", y, x.shape[-1])
        y = slots.attend(self, "block.residual", y, train=train)
        return x + self.residual_scale * y
