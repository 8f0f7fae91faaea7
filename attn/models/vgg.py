"""VGG, with slots for attention.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015, https://arxiv.org/abs/1409.1556, table 1, columns A, B, D and
E. With batch normalisation as torchvision and timm have it.

Differs from the paper: weights start He-normal, as in torchvision, where the paper
starts deep networks with the layers of shallower ones.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import settings
from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.checks import check_rates, check_sizes
from attn.models.layers.convolution import HE_NORMAL, batch_norm
from attn.models.layers.dense import HE, classify, drop, hidden
from attn.models.layers.timm import Rules
from attn.models.scaling import Width, step_of
from attn.modules.convolution import Conv
from attn.settings import Invalid, Positive

# Convolutions of each stage, by the number of layers with weights.
STAGES: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(Model):
    """VGG: images [B, H, W, C] -> logits [B, num_classes], float32.

    Five stages of 3x3 convolutions with ReLU, each followed by a 2x2 max pooling, which
    leaves out a last odd row or column, as in torch. The linear layers slide over a
    last map that is larger than `side`, and the logits are the mean over all places,
    as in the paper's section 3.2 and in timm.

    Slots, which may be narrowed where K and J say so, "stage3/block0/block.post":
    stages count from 1, blocks from 0.

        input        the image
        block.post   K J  after a convolution, its BN and its ReLU
        stage.end    K    after the last convolution of a stage, before it is pooled
        head         the last map, before it is pooled

    Attributes:
        num_classes: number of logits; None leaves out the last pooling and the linear
            layers, and the output is the last map, [B, H // 16, W // 16, D], as Show,
            Attend and Tell reads it.
        depth: number of layers with weights, one of STAGES.
        widths: channels of each stage.
        norm: whether batch normalisation follows each convolution, torchvision's
            "_bn".
        frozen_norm: as of `resnet`.
        dense: units of the linear layers before the classifier.
        side: rows and columns of the last map that the linear layers read at a time:
            7 of an image of 224 pixels.
        dropout: rate after each linear layer but the classifier.
        other attributes: see `Model`; statistics and the classifier are float32.

    Raises:
        Invalid: when it is made, an unknown depth, widths for other stages, a size or
            rate that cannot be, `frozen_norm` without `norm`, or a slot, attention or
            setting that does not exist; when it is called, an image too small.
    """

    places: ClassVar = {"input": 0, "block.post": 2, "stage.end": 1, "head": 0}
    # The linear layers; torchvision's names of them are for `attn.interop.timm`.
    timm: ClassVar = (
        (r"^dense(\d)", lambda match: f"pre_logits.fc{int(match[1]) + 1}"),
        (r"^classifier\b", "head.fc"),
    )

    num_classes: int | None
    depth: int = 16
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    norm: bool = False
    frozen_norm: bool = False
    dense: tuple[int, ...] = (4096, 4096)
    side: Positive = 7
    dropout: float = 0.5

    def __post_init__(self):
        self.widths, self.dense = tuple(self.widths), tuple(self.dense)
        if self.depth not in STAGES:
            raise settings.unknown("depth of a VGG", self.depth, map(str, STAGES))
        names = ("num_classes", "widths", "dense")
        check_sizes(self, **{name: getattr(self, name) for name in names})
        check_rates(self, dropout=self.dropout)
        stages = len(STAGES[self.depth])
        if len(self.widths) != stages:
            raise Invalid(
                f"widths of a VGG must be {stages} numbers, one for each stage, got"
                f" {self.widths}"
            )
        if self.frozen_norm and not self.norm:
            raise Invalid("frozen_norm=True is of a VGG that has norm=True")
        super().__post_init__()

    @property
    def task_layers(self) -> tuple[str, ...]:
        """The classifier; the linear layers before it too, where it has none itself."""
        before = [f"dense{index}" for index in range(len(self.dense))]
        return ("classifier", *(before if self.num_classes is None else []))

    def scopes(self) -> dict[str, dict]:
        """Stages, counting from 1, and their convolutions, from 0."""
        sizes = enumerate(STAGES[self.depth], 1)
        return {f"stage{number}": numbered("block", size) for number, size in sizes}

    def timm_rules(self) -> Rules:
        """The rules: timm counts convolutions, norms, ReLUs and poolings in one."""
        rules, place = [], 0
        for stage, blocks in self.scopes().items():
            for block in blocks:
                rules.append((rf"^{stage}/{block}/conv\b", f"features.{place}"))
                rules.append((rf"^{stage}/{block}/norm\b", f"features.{place + 1}"))
                place += 3 if self.norm else 2
            place += 1
        return (*rules, *self.timm)

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width, which heads in its slots restrict."""
        found = {"widths": Width(self.widths, step_of(self.fill, {}))}
        if self.num_classes is not None and self.dense:
            found["dense"] = Width(self.dense, 1)
        return found

    def stride(self) -> int:
        """Pixels of the image on the side of one of the last map."""
        return 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        dtype = self.dtype or x.dtype
        self._check_image(x.shape[1:3])
        x = slots.attend(self, "input", x.astype(dtype), train=train)
        sizes = STAGES[self.depth]
        for number, (size, width) in enumerate(zip(sizes, self.widths, strict=True), 1):
            x = nn.max_pool(x, (2, 2), (2, 2)) if number > 1 else x
            stage = _Stage(
                size=size,
                features=width,
                norm=self.norm,
                frozen_norm=self.frozen_norm,
                **self.within(f"stage{number}", dtype),
            )
            x = stage(x, train=train)
        x = slots.attend(self, "head", x, train=train)
        return x if self.num_classes is None else self._classified(x, train)

    def _classified(self, x: jax.Array, train: bool) -> jax.Array:
        """The logits of the last map: those of all places, and their mean."""
        x = nn.max_pool(x, (2, 2), (2, 2))
        for index, width in enumerate(self.dense):
            if index:
                x = hidden(self, f"dense{index}", x, width)
            else:  # which is linear in all places that it reads
                x = nn.relu(_convolution(self, "dense0", x, width, self.side))
            x = drop(self, x, train)
        x = x.astype(jnp.float32)
        return classify(self, x, self.num_classes, init=HE).mean(axis=(1, 2))

    def _check_image(self, shape: tuple[int, ...]) -> None:
        """Refuses an image of which nothing would be left."""
        least = self.stride()
        if self.num_classes is not None:
            least *= 2 * (self.side if self.dense else 1)
        if min(shape) < least:
            why = f" with side={self.side}" if least > 2 * self.stride() else ""
            raise Invalid(
                f"images of VGG{why} must be {least} pixels high and wide at least, got"
                f" {shape[0]}x{shape[1]}"
            )


class _Stage(Slotted):
    """Convolutions of one width: [B, H, W, C] -> [B, H, W, features].

    Attributes:
        size: how many.
        features, norm, frozen_norm: of each.
        other attributes: as in VGG, `fill` narrowed to this stage.
    """

    size: int
    features: int
    norm: bool
    frozen_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for index in range(self.size):
            block = _Block(
                features=self.features,
                norm=self.norm,
                frozen_norm=self.frozen_norm,
                **self.within(f"block{index}"),
            )
            x = block(x, train=train)
        return slots.attend(self, "stage.end", x, train=train)


class _Block(Slotted):
    """A 3x3 convolution, perhaps BN, ReLU: [B, H, W, C] -> [B, H, W, features].

    Attributes:
        features: channels of the output.
        norm: whether it has batch normalisation.
        frozen_norm: whether that is fixed.
        other attributes: as in VGG, `fill` narrowed to this block.
    """

    features: int
    norm: bool
    frozen_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = _convolution(self, "conv", x, self.features, 3, padding=1)
        if self.norm:
            x = batch_norm(self, "norm", x, train=train, frozen=self.frozen_norm)
        return slots.attend(self, "block.post", nn.relu(x), train=train)


def _convolution(
    parent: nn.Module, name: str, x: jax.Array, width: int, size: int, padding: int = 0
) -> jax.Array:
    """A convolution with bias, as VGG's all have."""
    return Conv(
        width,
        (size, size),
        1,
        padding=padding,
        kernel_init=HE_NORMAL if padding else HE,
        dtype=x.dtype,
        param_dtype=parent.param_dtype,
        name=name,
    )(x)
