"""Stacked hourglass: down to a few places and up again, several times, with slots.

Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016,
https://arxiv.org/abs/1603.06937, section 3 and figures 3 and 4.

As in the code that the authors published, and not in figure 4, each hourglass is
followed by a residual and one 1x1 convolution with BN and ReLU before its heatmaps, and
residuals are activated before their convolutions. All of these have a bias, though
batch normalisation takes it away again.
"""

import math
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.checks import check_sides
from attn.models.layers.convolution import batch_norm
from attn.models.layers.dense import TORCH, classify
from attn.models.layers.restoration import conv, nearest
from attn.models.scaling import Width, step_of
from attn.modules.convolution import Conv
from attn.ops.convolution import max_pool
from attn.settings import Invalid, Positive

STRIDE = 4  # of the stem


class Hourglass(Model):
    """Heatmaps of joints: images [B, H, W, C] -> a dict of float32 arrays.

        heatmaps  [B, H / 4, W / 4, num_joints], of the last stack
        stacks    [B, S, H / 4, W / 4, num_joints], of every stack, in training

    The stem is a 7x7 convolution of stride 2, a residual, 2x2 max pooling and two more
    residuals. An hourglass halves the map `order` times by max pooling, enlarges it as
    often by its nearest pixel, and adds the map of each size through a residual. The
    features and the heatmaps of each stack but the last go on by 1x1 convolutions,
    added to what the stack got.

    Slots:

        block.residual  the end of the residual branch of each block, before the
                        addition; may be narrowed, "stack1/block.residual",
                        "stack1/skip0/block.residual"

    Blocks are "stem0" to "stem2", and in each of "stack0", "stack1", ..., where sizes
    of maps count from 0: "skip0", which stays at its size, "down0", after pooling,
    "up0", before it is enlarged, and so on; "middle0" at the smallest size; and
    "last0" after the hourglass.

    Attributes:
        num_joints: number of heatmaps; a fact of the data.
        stacks: S, how many hourglasses; the paper has 8, and 2 in its ablations.
        order: how many times each halves its map.
        width: channels, a multiple of 4; the stem begins with a quarter of them.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a size that cannot be, or a slot, attention or setting
            that does not exist; when it is called, an image whose sides 4 2^order does
            not divide.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = {"block.residual": 2}

    num_joints: Positive
    stacks: Positive = 8
    order: Positive = 4
    width: Positive = 256

    def __post_init__(self):
        if self.width % 4:
            near = max(1, round(self.width / 4)) * 4
            raise Invalid(
                f"width of Hourglass must be a multiple of 4, got {self.width}; the"
                f" nearest is {near}"
            )
        super().__post_init__()

    @property
    def task_layers(self) -> tuple[str, ...]:
        """The heatmaps of every stack, and what goes on from those but the last."""
        on = [f"remap{index}" for index in range(self.stacks - 1)]
        return (*(f"heatmaps{index}" for index in range(self.stacks)), *on)

    def scopes(self) -> dict[str, Any]:
        """The blocks of the stem, and the stacks with theirs."""
        sizes = [numbered(name, self.order) for name in ("skip", "down", "up")]
        own = {name: {} for part in sizes for name in part}
        own |= {"middle0": {}, "last0": {}}
        return {
            **numbered("stem", 3),
            **{n: own for n in numbered("stack", self.stacks)},
        }

    def width_settings(self) -> dict[str, Width]:
        """The channels; those of the first blocks are the half."""
        step = math.lcm(4, 2 * step_of(self.fill, self.given()))
        return {"width": Width(self.width, step)}

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        self._check_sides(image.shape[1:3])
        x = self._stem(image.astype(self.dtype or image.dtype), train)
        found = []
        for index in range(self.stacks):
            y = Stack(self.width, self.order, **self.within(f"stack{index}"))
            y = y(x, train=train)
            maps = f"heatmaps{index}"
            found.append(classify(self, y, self.num_joints, init=TORCH, name=maps))
            if index + 1 < self.stacks:
                y = conv(self, f"features{index}", y, self.width, 1)
                back = found[-1].astype(y.dtype)
                x = x + y + conv(self, f"remap{index}", back, self.width, 1)
        if not train:
            return {"heatmaps": found[-1]}
        return {"heatmaps": found[-1], "stacks": jnp.stack(found, axis=1)}

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(
            self.width // 4,
            (7, 7),
            2,
            padding=3,
            kernel_init=TORCH,
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="stem_conv",
        )(x)
        x = nn.relu(batch_norm(self, "stem_norm", x, train=train))
        half = self.width // 2
        for index, features in enumerate((half, half, self.width)):
            x = Residual(features, **self.within(f"stem{index}"))(x, train=train)
            x = max_pool(x) if index == 0 else x
        return x

    def _check_sides(self, sides: tuple[int, int]) -> None:
        step = STRIDE * 2**self.order
        why = (
            f"an hourglass of order {self.order} halves an image so often that {step}"
            " must divide its sides"
        )
        check_sides(sides, step, why, ", or take a lower order")


class Stack(Slotted):
    """One hourglass, up to its features: [B, H, W, C] -> [B, H, W, width].

    Attributes:
        width, order: as in `Hourglass`.
        other attributes: `fill` narrowed to this stack.
    """

    width: int
    order: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self._hourglass(x, 0, train)
        x = self._block("last0", x, train)
        x = conv(self, "conv", x, self.width, 1)
        return nn.relu(batch_norm(self, "norm", x, train=train))

    def _hourglass(self, x: jax.Array, level: int, train: bool) -> jax.Array:
        """The part of it that is on maps of this size and smaller ones."""
        if level == self.order:
            return self._block("middle0", x, train)
        skip = self._block(f"skip{level}", x, train)
        x = self._block(f"down{level}", max_pool(x), train)
        x = self._hourglass(x, level + 1, train)
        return skip + nearest(self._block(f"up{level}", x, train), 2)

    def _block(self, name: str, x: jax.Array, train: bool) -> jax.Array:
        return Residual(self.width, **self.within(name))(x, train=train)


class Residual(Slotted):
    """A bottleneck activated before its convolutions: [B, H, W, C] -> [..., features].

    Attributes:
        features: channels of the output; the bottleneck has half of them.
        other attributes: `fill` narrowed to this block.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        inner, y = self.features // 2, x
        layers = ((inner, 1), (inner, 3), (self.features, 1))
        for number, (features, size) in enumerate(layers, 1):
            y = nn.relu(batch_norm(self, f"norm{number}", y, train=train))
            y = conv(self, f"conv{number}", y, features, size)
        y = slots.attend(self, "block.residual", y, train=train)
        if x.shape[-1] != self.features:
            x = conv(self, "shortcut_conv", x, self.features, 1)
        return x + y
