"""A fully connected network: the FCN of the spatial-transformer paper.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NIPS
2015, https://arxiv.org/abs/1506.02025, section 4.1 and appendix A.4.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.scaling import Dial
from attn.settings import Positive

PLACES = {"input": 0}
HE = nn.initializers.he_normal()


class FCN(nn.Module):
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
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes it
            as `slots`.
        dtype: computation type; None takes the type of the images. The classifier is
            float32.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which attentions synchronise batch statistics.

    Raises:
        Invalid: when it is made, a size below 1, or a slot, attention or setting
            that does not exist; when it is called, a map smaller than `pool`.
    """

    num_classes: int | None
    widths: tuple[int, ...] = (256, 256)
    pool: Positive = 1
    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def __post_init__(self):
        self.widths = tuple(self.widths)
        check_sizes("FCN", num_classes=self.num_classes, widths=self.widths)
        self.fill = slots.check(self.fill, places=PLACES, scopes={})
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots, in the order in which an image meets them."""
        return list(PLACES)

    def dials(self) -> dict[str, Dial]:
        """The settings that scale its width."""
        return {"widths": Dial(self.widths, 1)} if self.widths else {}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = x.astype(self.dtype or x.dtype)
        x = slots.attend(self, "input", x, train=train)
        x = average(x, self.pool)
        x = x.reshape(len(x), -1)
        for index, width in enumerate(self.widths):
            x = hidden(self, f"dense{index}", x, width)
        x = x.astype(jnp.float32)
        return x if self.num_classes is None else classify(self, x, self.num_classes)


def average(x: jax.Array, pool: int) -> jax.Array:
    """Average pooling, [B, H, W, C] -> [B, H // pool, W // pool, C].

    Raises:
        Invalid: a map smaller than `pool`.
    """
    if min(x.shape[1:3]) < pool:
        raise settings.Invalid(
            f"pool={pool} is larger than its map of {x.shape[1]}x{x.shape[2]}"
        )
    return x if pool == 1 else nn.avg_pool(x, (pool, pool), (pool, pool))


def hidden(parent: nn.Module, name: str, x: jax.Array, width: int) -> jax.Array:
    """A linear layer and ReLU, [B, D] -> [B, width]."""
    kinds = {"dtype": x.dtype, "param_dtype": parent.param_dtype}
    return nn.relu(nn.Dense(width, kernel_init=HE, name=name, **kinds)(x))


def classify(parent: nn.Module, x: jax.Array, outputs: int) -> jax.Array:
    """The linear layer "classifier" in float32, [B, D] -> [B, outputs]."""
    kinds = {"dtype": jnp.float32, "param_dtype": parent.param_dtype}
    return nn.Dense(outputs, name="classifier", **kinds)(x.astype(jnp.float32))


def check_sizes(host: str, **sizes: int | tuple[int, ...] | None) -> None:
    """Refuses sizes below 1; those that are None are left to the host.

    Raises:
        Invalid: see above.
    """
    for name, value in sizes.items():
        if value is None:
            continue
        if min(value if isinstance(value, tuple) else (value,), default=1) < 1:
            raise settings.Invalid(
                f"{name} of a {host} must be at least 1, got {value}"
            )
