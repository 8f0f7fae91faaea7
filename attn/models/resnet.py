"""ResNet, for ImageNet and for CIFAR, with slots for attention.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385, table 1 and section 4.2. With groups it is ResNeXt:
Xie, Girshick, Dollár, Tu, He, "Aggregated Residual Transformations for Deep Neural
Networks", CVPR 2017, https://arxiv.org/abs/1611.05431, figure 3(c).

Differs from the paper: the stride of a bottleneck is at its 3x3 convolution unless
`stride_at` says otherwise, as in torchvision and timm ("v1.5"), and the CIFAR
networks have projection shortcuts (option B), not padded ones. The deep stem and the
averaging shortcut are ResNet-D's: He, Zhang, Zhang, Zhang, Xie, Li, "Bag of Tricks for
Image Classification with Convolutional Neural Networks", CVPR 2019,
https://arxiv.org/abs/1812.01187, figure 2. The depths 10, 14 and 26 are timm's.
Covariance pooling is iSQRT-COV: Li, Xie, Wang, Gao, "Towards Faster Training of Global
Covariance Pooling Networks by Iterative Matrix Square Root Normalization", CVPR 2018,
https://arxiv.org/abs/1712.01034.
"""

import functools
import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import ops, settings
from attn.models import slots
from attn.models.base import Model, numbered
from attn.models.layers.checks import check_sizes
from attn.models.layers.convolution import batch_norm, conv
from attn.models.layers.dense import TORCH, classify
from attn.models.layers.residual import Stage
from attn.models.layers.timm import Rules
from attn.models.scaling import Width, step_of
from attn.modules.capture import sow
from attn.settings import Count, Invalid, Positive

POOLED, ITERATIONS = 256, 5  # of iSQRT-COV: channels, and steps to the root

IMAGENET: dict[int, tuple[str, tuple[int, ...]]] = {
    10: ("basic", (1, 1, 1, 1)),
    14: ("bottleneck", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    26: ("bottleneck", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
CONVOLUTIONS = {"basic": 2, "bottleneck": 3}  # in one block
EXPANSION = {"basic": 1, "bottleneck": 4}


def plan(
    depth: int, layout: str, block: str | None = None
) -> tuple[str, tuple[int, ...]]:
    """The kind of block, and how many of them each stage has.

    Args:
        depth: number of layers with weights: convolutions outside shortcuts, and the
            classifier.
        layout: "imagenet" or "cifar".
        block: "basic" or "bottleneck"; None takes what `depth` has on ImageNet, and
            "basic" on CIFAR.

    Raises:
        Invalid: no such network, with the depths that there are.
    """
    if layout == "imagenet":
        if depth not in IMAGENET:
            valid = map(str, IMAGENET)
            raise settings.unknown("depth of an ImageNet ResNet", depth, valid)
        kind, sizes = IMAGENET[depth]
        if block not in (None, kind):
            raise Invalid(
                f"an ImageNet ResNet of depth {depth} has block={kind!r},"
                f" got block={block!r}"
            )
        return kind, sizes
    kind = block or "basic"
    step = 3 * CONVOLUTIONS[kind]
    count, rest = divmod(depth - 2, step)
    if rest or count < 1:
        near = max(1, round((depth - 2) / step))
        raise Invalid(
            f"a CIFAR ResNet with block={kind!r} has a depth of {step}n + 2,"
            f" got {depth}; the nearest is {near * step + 2}"
        )
    return kind, (count,) * 3


class ResNet(Model):
    """Residual network: images [B, H, W, C] -> logits [B, num_classes], float32.

    Any image size works, maps are rounded up when they are halved. Convolutions are
    padded symmetrically by half their kernel, as in torch and Caffe. Activation comes
    after the addition, as in the paper. Weights start as in torchvision: convolutions
    He-normal by their outputs, the classifier uniform within 1 / sqrt(inputs).

    Slots, each of which may be narrowed where K and J say so: "stageK/block.residual",
    "stageK/blockJ/block.residual". Stages count from 1, so that stage 1 is what papers
    call res2 or conv2_x, and blocks from 0: stage1/block0 is torchvision's layer1.0.

        input               the image, before the stem
        stem                after the stem's convolution, BN and ReLU, before the pool
        block.pre           K J  the input of the residual branch; the identity branch
                            gets the map as it was (the paper's SE-PRE)
        block.conv2         K J  instead of the second convolution, the 3x3 of a
                            bottleneck, in its width; BN and ReLU follow as before. A
                            stride there becomes 2x2 average pooling, as in BoTNet.
        block.after_conv2   K J  after the second convolution, its BN and, in a
                            bottleneck, ReLU ("SE 3x3"); in a basic block this is
                            where `block.residual` is, which follows it
        block.residual      K J  end of the residual branch, before the addition
        block.identity      K J  identity branch, after the projection if there is one
        block.post          K J  after the addition and its ReLU
        stage.end           K    after the last block of a stage
        head                the last map, before it is pooled

    Attributes:
        num_classes: number of logits; None leaves out the pooling and the classifier,
            and the output is the last map.
        depth: one of IMAGENET on ImageNet; 6n + 2 on CIFAR, or 9n + 2 with bottlenecks.
        layout: "imagenet", a 7x7 stem of stride 2 with a max-pool and four stages, or
            "cifar", a 3x3 stem and three stages.
        block: "basic" or "bottleneck"; None takes what `plan` says.
        width: channels of the stem, which every stage but the first doubles; None
            takes the paper's, 64 on ImageNet and 16 on CIFAR.
        widths: channels of the stem and of every stage, instead of `width`; the
            output of a bottleneck has four times as many.
        cardinality: into how many groups the 3x3 convolution of a bottleneck is
            split, 32 in ResNeXt-50 (32x4d).
        group_width: channels of each group where the stage has 64, as torchvision
            counts them: 4 in ResNeXt-50 (32x4d), 128 in a Wide ResNet-50-2 of one
            group. The 3x3 has cardinality * (width * group_width // 64) channels.
        stem: "plain" is one convolution; "deep" is three of 3x3, the first two of half
            the width (ResNet-D), "tiered" the same, the first of three eighths (timm's
            "t" networks).
        stem_stride: stride of the stem; None takes 2 on ImageNet and 1 on CIFAR.
        stride_at: where a bottleneck has its stride. "conv2", the 3x3, is what
            torchvision and timm do (default); "conv1" is the original Caffe models. A
            basic block has it at its first convolution.
        shortcut: what shrinks the map of a projection shortcut: its convolution by its
            "stride", or 2x2 "average" pooling before it (ResNet-D).
        zero_init_residual: whether the last BN scale of each block starts at zero, so
            that the block starts as the identity. False (default) is the paper and
            torchvision; True is Goyal et al. 2017, https://arxiv.org/abs/1706.02677.
        dilated: whether the last stage is dilated by 2 in place of its stride, as in
            detectors called DC5; its maps are twice as large, its weights the same.
        frozen_norm: whether batch normalisation is fixed, statistics, scales and
            biases: a detector's, which starts with trained weights. All four are in
            "batch_stats" and no parameters. What is in the slots has its own.
        last_stride: stride of the last stage; None takes 1 where covariance is pooled,
            as in iSQRT-COV, and 2 otherwise. GSoP-Net1 has 1, and the attention
            "global_second_order" at the end of the last branch of stages 2 to 4.
        pooling: what the classifier reads of the last map: the "average" of its
            places, or their "covariance". For that a 1x1 convolution with BN and ReLU
            makes `pooled_channels` of it; the classifier reads the triangle of the
            square root of their covariance.
        pooled_channels: of which the covariance is pooled; None takes the paper's 256.
        iterations: of Newton-Schulz for that root; None takes the paper's 5. With 0 it
            is the covariance itself, over the root of its trace.
        other attributes: see `Model`; statistics, the pooled features and the
            classifier are float32.

    Batch normalisation has eps 1e-5 and keeps 0.9 of its running statistics at each
    step, torch's momentum 0.1; unlike torch's, the running variance is the biased one.

    Raises:
        Invalid: when it is made, a depth that the layout does not have, a size
            below 1, widths for other stages, groups or `stride_at` of a basic block, a
            setting of covariances with average pooling, a stride of a dilated stage, or
            a slot, attention or setting that does not exist.
    """

    places: ClassVar = {
        "input": 0,
        "stem": 0,
        "block.pre": 2,
        "block.conv2": 2,
        "block.after_conv2": 2,
        "block.residual": 2,
        "block.identity": 2,
        "block.post": 2,
        "stage.end": 1,
        "head": 0,
    }
    timm: ClassVar = (
        (r"^stage(\d+)/block", r"layer\1."),
        (r"^stem_conv\b", "conv1"),
        (r"^stem_conv(\d)", lambda m: f"conv1.{3 * int(m[1]) - 3}"),
        (r"^stem_norm(\d)", lambda m: f"conv1.{3 * int(m[1]) - 2}"),
        (r"^stem_norm\b", "bn1"),
        (r"\bnorm(\d)\b", r"bn\1"),
        (r"^classifier\b", "fc"),
    )

    num_classes: int | None
    depth: int = 50
    layout: Literal["imagenet", "cifar"] = "imagenet"
    block: Literal["basic", "bottleneck"] | None = None
    width: int | None = None
    widths: tuple[int, ...] | None = None
    cardinality: int = 1
    group_width: int = 64
    stem: Literal["plain", "deep", "tiered"] = "plain"
    stem_stride: int | None = None
    stride_at: Literal["conv2", "conv1"] = "conv2"
    shortcut: Literal["stride", "average"] = "stride"
    zero_init_residual: bool = False
    dilated: bool = False
    frozen_norm: bool = False
    last_stride: Literal[1, 2] | None = None
    pooling: Literal["average", "covariance"] = "average"
    pooled_channels: Positive | None = None
    iterations: Count | None = None

    def __post_init__(self):
        names = ("num_classes", "width", "stem_stride", "cardinality", "group_width")
        check_sizes(self, **{name: getattr(self, name) for name in names})
        self.widths = self.widths and tuple(self.widths)
        kind, sizes = plan(self.depth, self.layout, self.block)
        self._check_widths(kind, len(sizes))
        for name in ("pooled_channels", "iterations"):
            value = getattr(self, name)
            if self.pooling == "average" and value is not None:
                raise Invalid(f"{name} is of pooling='covariance', got {name}={value}")
        if self.pooling != "average" and self.num_classes is None:
            raise Invalid(
                "without classes nothing is pooled: pooling must be 'average'"
            )
        if self.dilated and self.last_stride == 2:
            raise Invalid("dilated takes the place of the stride, got last_stride=2")
        super().__post_init__()

    def scopes(self) -> dict[str, dict]:
        """Stages, counting from 1, and their blocks, from 0."""
        _, sizes = plan(self.depth, self.layout, self.block)
        return {
            f"stage{number}": numbered("block", size)
            for number, size in enumerate(sizes, 1)
        }

    def timm_rules(self) -> Rules:
        """The rules, in which average pooling comes first in a shortcut."""
        first = 1 if self.shortcut == "average" else 0
        return (
            (r"\bshortcut_conv\b", f"downsample.{first}"),
            (r"\bshortcut_norm\b", f"downsample.{first + 1}"),
            *self.timm,
        )

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width, which groups and heads restrict."""
        groups = 64 // math.gcd(64, self.group_width)  # so that the 3x3 follows
        inner = {k: v for k, v in self.fill.items() if k.endswith("block.conv2")}
        step = math.lcm(groups * step_of(inner, {}), step_of(self.fill, {}))
        return {"widths": Width(self._widths(), step)}

    def stride(self) -> int:
        """Pixels of the image on the side of one of the last map."""
        _, sizes = plan(self.depth, self.layout, self.block)
        pooled = self.layout == "imagenet"
        stem = 2 * (self.stem_stride or 2) if pooled else self.stem_stride or 1
        return stem * 2 ** (len(sizes) - 2) * self._last_stride()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        dtype = self.dtype or x.dtype
        kind, sizes = plan(self.depth, self.layout, self.block)
        attend = functools.partial(slots.attend, self, train=train)
        x = self._stem(attend("input", x.astype(dtype)), train=train)
        for number, size in enumerate(sizes, 1):
            width = self._widths()[number]
            last = number == len(sizes)
            stride = self._last_stride() if last else 2
            stage = Stage(
                size=size,
                kind=kind,
                features=width * EXPANSION[kind],
                inner=self._inner(width),
                cardinality=self.cardinality,
                stride=1 if number == 1 else stride,
                dilation=2 if last and self.dilated else 1,
                stride_at=self.stride_at,
                shortcut=self.shortcut,
                zero_init_residual=self.zero_init_residual,
                frozen_norm=self.frozen_norm,
                **self.within(f"stage{number}", dtype),
            )
            x = stage(x, train=train)
        x = attend("head", x)
        if self.num_classes is None:
            return x
        return classify(self, self._pooled(x, train), self.num_classes, init=TORCH)

    def _last_stride(self) -> int:
        if self.dilated:
            return 1
        return self.last_stride or (1 if self.pooling == "covariance" else 2)

    def _pooled(self, x: jax.Array, train: bool) -> jax.Array:
        """What the classifier reads of the last map, in float32."""
        if self.pooling == "average":
            return x.astype(jnp.float32).mean(axis=(1, 2))
        channels = self.pooled_channels or POOLED
        x = conv(self, "reduce_conv", x, channels, 1, 1)
        x = batch_norm(self, "reduce_norm", x, train=train, frozen=self.frozen_norm)
        covariance = ops.covariance_pool(nn.relu(x))
        count = ITERATIONS if self.iterations is None else self.iterations
        root = ops.newton_schulz_sqrt(covariance, iterations=count)
        sow(self, "covariance", (covariance, root))
        return ops.upper_triangle(root)

    def _widths(self) -> tuple[int, ...]:
        """Channels of the stem and of each stage, before expansion."""
        if self.widths is not None:
            return self.widths
        _, sizes = plan(self.depth, self.layout, self.block)
        width = self.width or (64 if self.layout == "imagenet" else 16)
        return (width, *(width * 2**stage for stage in range(len(sizes))))

    def _inner(self, width: int) -> int:
        """Channels of the 3x3 convolution of a bottleneck in a stage of `width`."""
        return self.cardinality * (width * self.group_width // 64)

    def _check_widths(self, kind: str, stages: int) -> None:
        """Refuses widths and groups of which there is no network."""
        widths = self._widths()
        if len(widths) != 1 + stages or min(widths) < 1:
            raise Invalid(
                f"widths of a ResNet of {stages} stages must be {1 + stages} numbers"
                f" of at least 1, the stem's first, got {widths}"
            )
        if kind == "basic" and (self.cardinality, self.group_width) != (1, 64):
            raise Invalid(
                "cardinality and group_width are of bottlenecks, but this ResNet of"
                f" depth {self.depth} has block='basic'"
            )
        if kind == "basic" and self.stride_at != "conv2":
            raise Invalid(
                f"stride_at={self.stride_at!r} is of bottlenecks, but this ResNet of"
                f" depth {self.depth} has block='basic'"
            )
        if self._inner(min(widths)) < 1:
            raise Invalid(
                f"group_width={self.group_width} leaves a stage of width {min(widths)}"
                f" no channel in a group; it must be at least {-(-64 // min(widths))}"
            )

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        size, stride = (7, 2) if self.layout == "imagenet" else (3, 1)
        stride = self.stem_stride or stride
        norm = functools.partial(batch_norm, self, train=train, frozen=self.frozen_norm)
        width = self._widths()[0]
        if self.stem == "plain":
            x = conv(self, "stem_conv", x, width, size, stride)
        else:
            half = max(1, width // 2)
            first = half if self.stem == "deep" else max(1, 3 * (half // 4))
            x = conv(self, "stem_conv1", x, first, 3, stride)
            x = conv(self, "stem_conv2", nn.relu(norm("stem_norm1", x)), half, 3, 1)
            x = conv(self, "stem_conv3", nn.relu(norm("stem_norm2", x)), width, 3, 1)
        x = nn.relu(norm("stem_norm", x))
        x = slots.attend(self, "stem", x, train=train)
        if self.layout == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        return x
