"""haze: images seen through haze, by the model of atmospheric scattering.

    I = J t + A (1 - t),    t = exp(-beta d)

J the image, A the airlight, beta how dense the haze is, d the depth: E. J. McCartney,
"Optics of the Atmosphere", 1976, as in Li, Ren, Fu, Tao, Feng, Zeng, Wang,
"Benchmarking Single-Image Dehazing and Beyond" (RESIDE), IEEE Transactions on Image
Processing 2019, https://arxiv.org/abs/1712.04143, equations 1 and 2, whose ranges of A
and beta are the defaults. Photographs without a measured depth get one that is made up.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from attn import settings
from attn.data.draws import uniform
from attn.data.images import geometry
from attn.data.source import Batch, Field
from attn.data.transforms import Transform

DEPTH = "depth"  # the field of the depth of each pixel, if there is one


@dataclasses.dataclass(frozen=True)
class Haze(Transform):
    """haze: as the head of this file says; of images in 0..255.

    Attributes:
        splits: "all", so that evaluation has haze too, the same in every run.
        beta: range of the density, uniform.
        airlight: range of the airlight of all channels, in [0, 1], uniform.
        depth: where data have no field "depth" [B, H, W]: "constant", 1 everywhere; or
            "ramp", as of a plane, from 0 at the bottom of the image to 2 at its top.
        field: the images.
        into: the field that is written, so that the other stays clear; "" for the same.
    """

    splits: Literal["train", "all"] = "all"
    beta: tuple[settings.NotNegative, settings.NotNegative] = (0.6, 1.8)
    airlight: tuple[settings.NotNegative, settings.NotNegative] = (0.7, 1.0)
    depth: Literal["constant", "ramp"] = "ramp"
    field: str = "image"
    into: str = ""

    degrades: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, (low, high) in (("beta", self.beta), ("airlight", self.airlight)):
            if low > high or (name == "airlight" and high > 1):
                raise settings.Invalid(f"{name} is not a range: {low} to {high}")

    def draws(self, example: Mapping[str, Field]) -> int:
        """Density and airlight."""
        geometry.shape_of(example, self.field)
        return 2

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Hazy images, float32."""
        images = geometry.kept(batch[self.field])
        depths = batch.get(DEPTH, [None] * len(draws))
        drawn = zip(*self._drawn(draws), strict=True)
        found = [
            self._hazy(image, depth, *one)
            for image, depth, one in zip(images, depths, drawn, strict=True)
        ]
        hazy = np.stack(found) if isinstance(images, np.ndarray) else found
        return {**batch, self.field: images, self.into or self.field: hazy}

    def otherwise(self, batch: Batch) -> Batch:
        """Clear images under both names, float32."""
        images = geometry.kept(batch[self.field])
        clear = [np.array(image, np.float32) for image in images]
        clear = np.stack(clear) if isinstance(images, np.ndarray) else clear
        return {**batch, self.field: images, self.into or self.field: clear}

    def _drawn(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return uniform(draws[:, 0], *self.beta), uniform(draws[:, 1], *self.airlight)

    def _hazy(
        self, image: np.ndarray, depth: np.ndarray | None, beta: float, airlight: float
    ) -> np.ndarray:
        if depth is None:
            depth = np.ones((1, 1))
            if self.depth == "ramp":
                depth = np.linspace(2, 0, len(image))[:, None]
        through = np.exp(-beta * depth[..., None]).astype(np.float32)
        image = np.asarray(image, np.float32)
        return image * through + np.float32(255 * airlight) * (1 - through)
