"""Glimpse sensor: a retina, sharp round one place and coarse further away.

Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS 2014,
https://arxiv.org/abs/1406.6247, section 3.1.A and figure 1.

Letters: B batch, H and W height and width, C channels, k scales, h and w of a patch.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.modules.capture import sow
from attn.modules.card import Card, Paper
from attn.ops.glimpse import glimpse_grid, glimpses
from attn.ops.shapes import as_map
from attn.settings import Invalid, Positive


class GlimpseSensor(nn.Module):
    """Reads maps round places: x [B, H, W, C], places [B, 2] -> [B, h, w, k C].

    The first patch has h x w pixels as they are, each further one is twice as wide and
    high as the one before, round the same place, and averaged to h x w. They stand
    side by side over channels, the sharpest first. Beyond the map there are zeros.
    Without places each map is read in its middle.

    Attributes:
        size: h = w of a patch; None is the size of the map itself.
        scales: k, the number of patches.
        dtype: type of the output; None takes that of the input.

    Raises:
        Invalid: when it is called, a patch that is larger than the map.
    """

    size: Positive | None = None
    scales: Positive = 1
    dtype: jnp.dtype | None = None

    card: ClassVar[Card]

    @nn.compact
    def __call__(
        self, x: jax.Array, places: jax.Array | None = None, *, train: bool
    ) -> jax.Array:
        del train
        x = as_map(x, self.dtype)
        batch, *sides, channels = x.shape
        size = (self.size, self.size) if self.size else tuple(sides)
        check_patches(size, self.scales, tuple(sides))
        if places is None:
            places = jnp.zeros((batch, 2))
        for scale in range(self.scales):
            sow(
                self,
                "sampling_grid",
                lambda scale=scale: glimpse_grid(places, tuple(sides), size, scale),
            )
        patches = glimpses(x, places[:, None], size, self.scales)[:, 0]
        patches = jnp.moveaxis(patches, 1, 3)
        return patches.reshape(batch, *size, self.scales * channels)


def check_patches(size: tuple[int, int], scales: int, sides: tuple[int, int]) -> None:
    """Refuses patches that are larger than a map of `sides`."""
    widest = [side << (scales - 1) for side in size]
    if widest[0] > sides[0] or widest[1] > sides[1]:
        raise Invalid(
            f"patches of {size[0]}x{size[1]} pixels at {scales} scales reach"
            f" {widest[0]}x{widest[1]}, more than the image, {sides[0]}x{sides[1]}:"
            " take a smaller size or fewer scales"
        )


GlimpseSensor.card = Card(
    family="glimpse",
    contract="map",
    paper=Paper(
        title="Recurrent Models of Visual Attention",
        authors="Mnih, Heess, Graves, Kavukcuoglu",
        year=2014,
        arxiv="1406.6247",
    ),
    formula="y_j = average_2^j(x[p - h 2^j / 2 : p + h 2^j / 2]), j = 0 .. k - 1",
    complexity="k h W (H + w) C",
    parameters=lambda module, shape: 0,
    maps=("sampling_grid",),
    note=(
        "The paper has 8x8 pixels at one scale on MNIST, 12x12 at three on images of 60"
        " pixels and at four on those of 100. It does not say how patches are resized;"
        " averages here, as in most of the code that others wrote. By default the patch"
        " is the whole map, which it leaves as it is. A place has no gradient: it is"
        " chosen by somebody who is rewarded (the model 'recurrent_attention')."
    ),
)
