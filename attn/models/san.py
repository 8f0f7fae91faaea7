"""SAN: super-resolution whose channels are gated by how they vary together, with slots.

Dai, Cai, Zhang, Xia, Zhang, "Second-order Attention Network for Single Image
Super-Resolution", CVPR 2019, https://doi.org/10.1109/CVPR.2019.01132, and the authors'
code for training, https://github.com/daitao/SAN. What that declares and never uses is
left out here: a convolution after all groups, a channel attention beside the non-local
block, and a factor in each group, 38,044 of its 15,712,776 parameters at x2.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.restoration import check_scale, conv, enlarge, mean_colour
from attn.models.layers.timm import Rules
from attn.models.scaling import Width, step_of
from attn.settings import Invalid, Positive, PositiveFloat

LEAST = 4  # pixels on a side: a quarter has two, which `non_local` halves
REGION = {"name": "non_local", "reduction": 8, "norm": "none"}


class SAN(Model):
    """SAN: images [B, H, W, C] in [0, 1] -> [B, sH, sW, C], float32.

    A convolution; non-local attention within each quarter of the map; groups of
    residual blocks, each with second-order attention and a convolution at its end and a
    skip over it, after each of which the map before all groups is added, times a
    learnt factor that starts at zero; the same non-local attention; sub-pixel
    convolutions and a last convolution. It takes images of any size from 4x4.

    Slots, which keep the shape of their maps:

        region          attention within each quarter, before and after the groups, with
                        the same parameters; `non_local` unless it is filled
        block.residual  the end of the residual branch of each block; may be narrowed,
                        "group0/block0/block.residual"
        group.end       after the blocks of a group, `second_order_channel` unless it is
                        filled; may be narrowed, "group0/group.end"

    Attributes:
        scale: s, 1, 2, 3, 4 or 8; a fact of the data.
        width: channels.
        groups: of blocks.
        depth: blocks of a group.
        units: by which images in [0, 1] are multiplied inside: 1, or 255 as in the
            published code, for its weights.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a scale or size that cannot be, or a slot, attention
            or setting that does not exist; when it is called, an image below 4x4.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = {"region": 0, "block.residual": 2, "group.end": 1}
    usual_fill: ClassVar = {
        "region": {**REGION, "subsample": "projected"},
        "group.end": "second_order_channel",
    }
    released: ClassVar[Rules] = (
        (r"^group(\d+)/block(\d+)/conv1\b", r"RG.\1.rcab.\2.conv_first.0"),
        (r"^group(\d+)/block(\d+)/conv2\b", r"RG.\1.rcab.\2.conv_first.2"),
        (r"^group(\d+)/end/squeeze\b", r"RG.\1.soca.conv_du.0"),
        (r"^group(\d+)/end/excite\b", r"RG.\1.soca.conv_du.2"),
        (r"^group(\d+)/conv\b", r"RG.\1.conv_last"),
        (r"^region/(phi|g)\b", r"non_local.non_local.\1.0"),
        (r"^region/theta\b", "non_local.non_local.theta"),
        (r"^region/out\b", "non_local.non_local.W"),
        (r"^head\b", "head.0"),
        (r"^enlarge(\d)\b", lambda m: f"tail.0.{2 * int(m[1])}"),
        (r"^tail/", "tail.1/"),
    )

    scale: Positive
    width: Positive = 64
    groups: Positive = 20
    depth: Positive = 10
    units: PositiveFloat = 1.0

    def __post_init__(self):
        check_scale(self)
        super().__post_init__()

    def scopes(self) -> dict[str, dict]:
        """Groups and the blocks in them, counting from 0."""
        blocks = numbered("block", self.depth)
        return {f"group{index}": blocks for index in range(self.groups)}

    def width_settings(self) -> dict[str, Width]:
        """The channels."""
        return {"width": Width(self.width, step_of(self.fill, self.given()))}

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        height, width = image.shape[1:3]
        if min(height, width) < LEAST:
            raise Invalid(
                f"images of SAN must be at least {LEAST} x {LEAST}, got"
                f" {height} x {width}"
            )
        image = image.astype(self.dtype or image.dtype)
        mean = mean_colour(image)
        head = conv(self, "head", self.units * (image - mean), self.width)
        region = slots.build(self, "region")
        first = x = _in_quarters(region, head, train)
        gamma = self.param("gamma", nn.initializers.zeros, (1,), self.param_dtype)
        gamma = gamma.astype(x.dtype).reshape(1, 1, 1, 1)
        for index in range(self.groups):
            group = Group(self.depth, **self.within(f"group{index}"))
            x = group(x, train=train) + gamma * first
        x = _in_quarters(region, x, train) + head
        x = enlarge(self, "enlarge", x, self.scale)
        x = conv(self, "tail", x, image.shape[-1]).astype(jnp.float32)
        return x / self.units + mean.astype(jnp.float32)


class Group(Slotted):
    """Blocks, attention and a convolution with a skip: [B, H, W, C] -> [B, H, W, C]."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = x
        for index in range(self.depth):
            y = Block(**self.within(f"block{index}"))(y, train=train)
        y = slots.attend(self, "group.end", y, train=train)
        return x + conv(self, "conv", y, x.shape[-1])


class Block(Slotted):
    """A residual block of two convolutions: [B, H, W, C] -> [B, H, W, C]."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        y = nn.relu(conv(self, "conv1", x, x.shape[-1]))
        y = conv(self, "conv2", y, x.shape[-1])
        return x + slots.attend(self, "block.residual", y, train=train)


def _in_quarters(
    modules: tuple[nn.Module, ...], x: jax.Array, train: bool
) -> jax.Array:
    """Modules on each quarter of a map, [B, H, W, C] -> [B, H, W, C]."""
    height, width = (side // 2 for side in x.shape[1:3])

    def attended(part: jax.Array) -> jax.Array:
        for module in modules:
            part = slots.on_map(module, part, train=train)
        return part

    halves = (x[:, :height], x[:, height:])
    pairs = [(attended(h[:, :, :width]), attended(h[:, :, width:])) for h in halves]
    return jnp.concatenate([jnp.concatenate(p, axis=2) for p in pairs], axis=1)
