"""Part-based spatial transformer: each crop of an image has a network of its own.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS
2015, https://arxiv.org/abs/1506.02025, section 4.3 and appendix A.6 (birds).

Differs from the paper: its networks are Inceptions with batch normalisation, trained on
ImageNet before; here they are any models, a ResNet-50 by default, from scratch.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from attn.models import inner, slots
from attn.models.base import Model
from attn.models.layers.checks import check_rates
from attn.models.layers.convolution import average
from attn.models.layers.dense import LECUN, classify, drop
from attn.modules.capture import sow
from attn.modules.spatial.spatial_transformer import check_scale, make_grid
from attn.ops.sample import bilinear_sample
from attn.settings import Positive

RESNET = FrozenDict({"name": "resnet", "depth": 50})


class Crop(nn.Module):
    """A square of the image: x [B, H, W, C], places [B, 2] -> [B, side, side, C].

    Attributes:
        side: of the crop, in pixels.
        scale: its side over that of the image.
    """

    side: int
    scale: float

    @nn.compact
    def __call__(self, x: jax.Array, places: jax.Array) -> jax.Array:
        options = {"align_corners": False}
        size = (self.side, self.side)
        grid = make_grid("attention", places, size, scale=self.scale, **options)
        sow(self, "sampling_grid", grid)
        return bilinear_sample(x, grid, padding="zeros", **options)


class PartSTN(Model):
    """Looks at N places: images [B, H, W, C] -> logits [B, num_classes], float32.

    One localisation network tells where: its map goes through a 1x1 convolution and a
    linear layer, with ReLU, to 2 N numbers, the middles (x, y) of N squares. They
    start where the squares tile the image, and at first the image decides nothing.
    Each square is read in `crop` x `crop` pixels, by a tower of its own; their
    features, averaged over places, stand side by side before one linear classifier.

    The variables of the localisation network have paths that begin with "localiser"
    (the paper's learning rate for them is a ten-thousandth of the others').

    Slots:

        input    the image, before everything; towers have slots in their configs

    Attributes:
        num_classes: number of logits.
        parts: N; the paper has 2 and 4.
        crop: side of a crop, in pixels; the paper's is 224.
        scale: side of a square over that of the image; the paper's is 0.5.
        tower: the config of each tower, such as {"name": "resnet", "depth": 18}, with
            "slots" if need be; a model that takes num_classes=None.
        localiser: the same for the localisation network. Its map is not averaged.
        downsample: by which the image is shrunk for the localisation network.
        widths: of the 1x1 convolution and of the linear layer after it.
        dropout: rate before the classifier; the paper has 0.7.
        other attributes: see `Model`; places and the classifier are float32.

    Raises:
        Invalid: when it is made, a tower or localiser that cannot be, or a slot,
            attention, rate or scale that cannot be.
    """

    places: ClassVar = {"input": 0}

    num_classes: int
    parts: Positive = 2
    crop: Positive = 224
    scale: float = 0.5
    tower: Mapping[str, Any] = RESNET
    localiser: Mapping[str, Any] = RESNET
    downsample: Positive = 1
    widths: tuple[int, int] = (128, 128)
    dropout: float = 0.0

    def __post_init__(self):
        check_scale("attention", self.scale)
        check_rates(self, dropout=self.dropout)
        self.widths = tuple(self.widths)
        for name in ("tower", "localiser"):
            setattr(self, name, inner.without_classifier(name, getattr(self, name)))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.astype(self.dtype or x.dtype)
        x = slots.attend(self, "input", x, train=train)
        small = average(x, self.downsample)
        start = tiles(self.parts, self.scale).reshape(-1)
        options = {"widths": self.widths, "start": start, "train": train}
        places = inner.localise(self, small, self.localiser, **options)
        places = places.reshape(-1, self.parts, 2)
        found = []
        for part in range(self.parts):
            seen = Crop(self.crop, self.scale, name=f"part{part}")(x, places[:, part])
            tower = inner.build(self, f"tower{part}", self.tower)
            features = tower(seen, train=train).astype(jnp.float32)
            found.append(features.mean((1, 2)) if features.ndim == 4 else features)
        y = drop(self, jnp.concatenate(found, axis=1), train)
        return classify(self, y, self.num_classes, init=LECUN)


def tiles(count: int, scale: float) -> np.ndarray:
    """Middles (x, y) in [-1, 1] of squares that tile the image, float64 [count, 2].

    Row by row, in as few rows as columns or fewer; those at an edge touch it.
    """
    rows = math.isqrt(count)
    columns = -(-count // rows)
    spread = lambda n: np.linspace(scale - 1, 1 - scale, n) if n > 1 else [0.0]
    return np.array([(x, y) for y in spread(rows) for x in spread(columns)])[:count]
