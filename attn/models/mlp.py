"""A multilayer perceptron: the FCN of the spatial-transformer paper.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS
2015, https://arxiv.org/abs/1506.02025, section 4.1 and appendix A.4.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import slots
from attn.models.base import Model
from attn.models.layers.checks import check_sizes
from attn.models.layers.convolution import average
from attn.models.layers.dense import LECUN, classify, hidden
from attn.models.scaling import Width
from attn.settings import Positive


class MLP(Model):
    """Linear layers with ReLU: images [B, H, W, C] -> logits [B, num_classes], float32.

    The first layer fixes H and W. Weights start He-normal, those of the classifier
    LeCun-normal, biases at zero; the paper does not say.

    Slots:

        input    the image, before it is pooled; an attention may change its shape

    Attributes:
        num_classes: number of logits; None leaves out the classifier, and the output
            is that of the last hidden layer, in float32.
        widths: units of each hidden layer. The paper has two of 128 to 256, so many
            that all networks of one experiment have the same number of parameters.
        pool: side of the average pooling after the slot "input"; rows and columns
            left over are not read. The paper pools by 2 behind the transformer on its
            larger images (RTS and the cluttered ones).
        other attributes: see `Model`; the classifier is float32.

    Raises:
        Invalid: when it is made, a size below 1, or a slot, module or setting
            that does not exist; when it is called, a map smaller than `pool`.
    """

    places: ClassVar = {"input": 0}

    num_classes: int | None
    widths: tuple[int, ...] = (256, 256)
    pool: Positive = 1

    def __post_init__(self):
        self.widths = tuple(self.widths)
        check_sizes(self, num_classes=self.num_classes, widths=self.widths)
        super().__post_init__()

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width."""
        return {"widths": Width(self.widths, 1)} if self.widths else {}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.astype(self.dtype or x.dtype)
        x = slots.attend(self, "input", x, train=train)
        x = average(x, self.pool)
        x = x.reshape(len(x), -1)
        for index, width in enumerate(self.widths):
            x = hidden(self, f"dense{index}", x, width)
        x = x.astype(jnp.float32)
        if self.num_classes is None:
            return x
        return classify(self, x, self.num_classes, init=LECUN)
