"""Residual blocks, basic and bottleneck, and stages of them, with slots for attention.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385, section 3 and figure 5. Dilation in place of stride:
Yu, Koltun, Funkhouser, "Dilated Residual Networks", CVPR 2017,
https://arxiv.org/abs/1705.09914, section 2; as in torchvision, the first block of a
dilated stage is not dilated yet.
"""

import functools

import flax.linen as nn
import jax

from attn.models import slots
from attn.models.base import Slotted
from attn.models.layers.convolution import batch_norm, conv, shrink
from attn.settings import Invalid


class Block(Slotted):
    """One residual block: [B, H, W, C] -> [B, H / stride, W / stride, features].

    Attributes:
        kind: "basic", two 3x3 convolutions, or "bottleneck", 1x1, 3x3 and 1x1.
        features: channels of the output.
        inner: channels of the 3x3 convolution of a bottleneck.
        cardinality: into how many groups that is split.
        stride: 2 halves the map (sizes are rounded up).
        dilations: of the first and of the second 3x3 convolution of a basic block; a
            bottleneck has the first.
        other attributes: as in ResNet, `fill` narrowed to this block.
    """

    kind: str
    features: int
    inner: int
    cardinality: int
    stride: int
    dilations: tuple[int, int]
    stride_at: str
    shortcut: str
    zero_init_residual: bool
    frozen_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        attend = functools.partial(slots.attend, self, train=train)
        norm = functools.partial(batch_norm, self, train=train, frozen=self.frozen_norm)
        convolutions = self._convolutions()
        y = attend("block.pre", x)
        for number, (features, size, stride, dilation) in enumerate(convolutions, 1):
            if number == 2 and slots.filled(self.fill, "block.conv2"):
                y = shrink(attend("block.conv2", y), stride)
            else:
                groups = self.cardinality if number == 2 else 1
                options = (features, size, stride, groups, dilation)
                y = conv(self, f"conv{number}", y, *options)
            last = number == len(convolutions)
            y = norm(f"norm{number}", y, zero=last and self.zero_init_residual)
            y = y if last else nn.relu(y)
            if number == 2:
                y = attend("block.after_conv2", y)
        y = attend("block.residual", y)
        if x.shape[-1] != self.features or self.stride != 1:
            stride = self.stride
            if self.shortcut == "average":
                x, stride = shrink(x, stride), 1
            x = conv(self, "shortcut_conv", x, self.features, 1, stride)
            x = norm("shortcut_norm", x)
        x = attend("block.identity", x)
        if x.shape != y.shape:
            raise Invalid(
                f"attention inside a block must keep the shape of its map, but the"
                f" residual branch is {y.shape} and the identity branch {x.shape}"
            )
        return attend("block.post", nn.relu(x + y))

    def _convolutions(self) -> list[tuple[int, int, int, int]]:
        """Features, kernel size, stride and dilation of each convolution."""
        before, after = self.dilations
        if self.kind == "basic":
            one = (self.features, 3, self.stride, before)
            return [one, (self.features, 3, 1, after)]
        first, second = (
            (self.stride, 1) if self.stride_at == "conv1" else (1, self.stride)
        )
        one, two = (self.inner, 1, first, 1), (self.inner, 3, second, before)
        return [one, two, (self.features, 1, 1, 1)]


class Stage(Slotted):
    """Blocks on maps of one size, the first of which may halve the map.

    Attributes:
        size: number of blocks.
        dilation: of 3x3 convolutions, but for the first one of the first block.
        other attributes: as in Block, `fill` narrowed to this stage.
    """

    size: int
    kind: str
    features: int
    inner: int
    cardinality: int
    stride: int
    dilation: int
    stride_at: str
    shortcut: str
    zero_init_residual: bool
    frozen_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for index in range(self.size):
            block = Block(
                kind=self.kind,
                features=self.features,
                inner=self.inner,
                cardinality=self.cardinality,
                stride=self.stride if index == 0 else 1,
                dilations=(self.dilation if index else 1, self.dilation),
                stride_at=self.stride_at,
                shortcut=self.shortcut,
                zero_init_residual=self.zero_init_residual,
                frozen_norm=self.frozen_norm,
                **self.within(f"block{index}"),
            )
            x = block(x, train=train)
        return slots.attend(self, "stage.end", x, train=train)
