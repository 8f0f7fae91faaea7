"""A plain convolutional network: the CNNs of the spatial-transformer paper.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS
2015, https://arxiv.org/abs/1506.02025: section 4.1 and appendix A.4 (distorted MNIST,
the defaults here), section 4.2 and appendix A.5 (house numbers).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import slots
from attn.models.base import Model
from attn.models.layers.checks import check_rates, check_sizes
from attn.models.layers.convolution import average
from attn.models.layers.dense import HE, LECUN, classify, drop, hidden
from attn.models.scaling import Width, step_of
from attn.modules.convolution import Conv
from attn.ops.convolution import max_pool
from attn.settings import Invalid, Positive


class CNN(Model):
    """Convolutions, then linear layers, with ReLU: images [B, H, W, C] -> logits.

    Logits are float32 [B, num_classes], or [B, heads, num_classes] with `heads`. The
    first linear layer fixes H and W. Weights start He-normal, those of the classifier
    LeCun-normal, biases at zero; the paper does not say.

    The network of the paper for house numbers of 64 x 64 pixels, its appendix A.5:

        models.create(
            "cnn", num_classes=11, heads=5, kernel_sizes=5, padding="SAME",
            filters=(48, 64, 128, 160, 192, 192, 192, 192), pools=(1, 3, 5, 7),
            dense=(3072, 3072), dropout=0.5,
        )

    Slots, in which an attention may change the shape of its map:

        input    the image, before it is pooled
        convK    the map before convolution K, counting from 1; before the first it
                 is the pooled image. A network of N convolutions has N of these.

    Attributes:
        num_classes: number of logits; None leaves out the classifier, and the output
            is what it would read, [B, D], in float32.
        filters: of each convolution.
        kernel_sizes: side of the kernels, of all convolutions or of each.
        strides: of all convolutions or of each.
        padding: of the convolutions, "VALID" (none) or "SAME".
        pools: numbers of the convolutions, from 1, that a 2x2 max pooling of stride 2
            follows. A last odd row or column is pooled alone, as in Caffe: otherwise
            the paper's network for 42x42 pixels would have no map left.
        dense: units of each linear layer before the classifier.
        dropout: rate after every convolution but the first (and its pooling), and
            after every linear layer but the classifier; the paper has 0.5 on house
            numbers and none on MNIST.
        heads: number of classifiers, each of `num_classes`, on the same features.
        pool: side of the average pooling after the slot "input"; rows and columns
            left over are not read. The paper pools by 2 behind the transformer on its
            larger images (RTS and the cluttered ones).
        other attributes: see `Model`; the classifier is float32.

    Raises:
        Invalid: when it is made, a size below 1, sizes for another number of
            convolutions, or a slot, attention or setting that does not exist; when it
            is called, a map too small for its convolution and pooling.
    """

    num_classes: int | None
    filters: tuple[int, ...] = (64, 64)
    kernel_sizes: int | tuple[int, ...] = (9, 7)
    strides: int | tuple[int, ...] = 1
    padding: Literal["VALID", "SAME"] = "VALID"
    pools: tuple[int, ...] = (1, 2)
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    heads: Positive | None = None
    pool: Positive = 1

    def __post_init__(self):
        for name in ("filters", "dense", "pools"):
            setattr(self, name, tuple(getattr(self, name)))
        for name in ("kernel_sizes", "strides"):
            setattr(self, name, self._each(name))
        names = ("num_classes", "filters", "kernel_sizes", "strides", "dense")
        check_sizes(self, **{name: getattr(self, name) for name in names})
        check_rates(self, dropout=self.dropout)
        strange = set(self.pools) - set(range(1, len(self.filters) + 1))
        if strange:
            raise Invalid(
                f"pools of CNN must be numbers of its {len(self.filters)}"
                f" convolutions, from 1, got {min(strange)}"
            )
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots of a network of as many convolutions as the default.

        One of more or fewer has more or fewer of "conv1", "conv2" and so on.
        """
        return list(_places(cls.filters))

    def slot_places(self) -> dict[str, int]:
        """One before each convolution."""
        return _places(self.filters)

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width."""
        widths = {"filters": self.filters, "dense": self.dense}
        steps = {"filters": step_of(self.fill, self.given()), "dense": 1}
        return {n: Width(value, steps[n]) for n, value in widths.items() if value}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.astype(self.dtype or x.dtype)
        x = slots.attend(self, "input", x, train=train)
        x = average(x, self.pool)
        for number in range(1, len(self.filters) + 1):
            x = slots.attend(self, f"conv{number}", x, train=train)
            x = self._convolve(number, x)
            x = x if number == 1 else drop(self, x, train)
        x = x.reshape(len(x), -1)
        for index, width in enumerate(self.dense):
            x = drop(self, hidden(self, f"dense{index}", x, width), train)
        x = x.astype(jnp.float32)
        if self.num_classes is None:
            return x
        logits = classify(self, x, self.num_classes * (self.heads or 1), init=LECUN)
        return logits.reshape(len(x), -1, self.num_classes) if self.heads else logits

    def _convolve(self, number: int, x: jax.Array) -> jax.Array:
        """One convolution, ReLU and its pooling: [B, H, W, C] -> [B, h, w, filters]."""
        size, stride = self.kernel_sizes[number - 1], self.strides[number - 1]
        if self.padding == "VALID" and min(x.shape[1:3]) < size:
            raise Invalid(
                f"a map of {x.shape[1]}x{x.shape[2]} is too small for convolution"
                f" {number} of kernel_size={size}"
            )
        y = Conv(
            self.filters[number - 1],
            (size, size),
            stride,
            padding=self.padding,
            kernel_init=HE,
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name=f"convolution{number}",
        )(x)
        y = nn.relu(y)
        return max_pool(y) if number in self.pools else y

    def _each(self, name: str) -> tuple[int, ...]:
        """A setting of the convolutions, one number for each."""
        value, count = getattr(self, name), len(self.filters)
        if isinstance(value, int):
            return (value,) * count
        if len(value) != count:
            raise Invalid(
                f"{name} of CNN must be one number or {count}, one for each of its"
                f" filters, got {tuple(value)}"
            )
        return tuple(value)


def _places(filters: tuple[int, ...]) -> dict[str, int]:
    return {"input": 0} | {f"conv{n}": 0 for n in range(1, len(filters) + 1)}
