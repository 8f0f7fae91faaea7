"""Restoration: an image in, the image behind it out, as in super-resolution.

The L1 loss is that of Lim et al., "Enhanced Deep Residual Networks for Single Image
Super-Resolution" (EDSR), CVPR Workshops 2017, https://arxiv.org/abs/1707.02921, section
3.4, which has the self-ensemble too. PSNR and SSIM are measured as in Python's scripts
of the field: of images of 8 bits, on Y of YCbCr, without a border as wide as the scale.
MATLAB's scripts round Y to 8 bits too, which makes 0.04 dB less of 35 and 0.5 of 47.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn import ops, settings
from attn.ops import fidelity
from attn.tasks.base import Batch, Mean, Metric, Task

TARGET, MASK = "target", "image_mask"
PSNR = Metric("psnr", "PSNR", unit="dB", better="higher")
SSIM = Metric("ssim", "SSIM", better="higher", digits=4)
INPUT = Metric("input_psnr", "PSNR of the input", unit="dB", better="higher")
ENSEMBLE = (
    Metric("ensemble_psnr", "PSNR x8", unit="dB", better="higher", kind="corpus"),
    Metric("ensemble_ssim", "SSIM x8", better="higher", digits=4, kind="corpus"),
)
THERE = "has_"  # before the name of a metric, which images have it
WAYS = 8  # to turn and mirror an image


@dataclasses.dataclass(frozen=True)
class Restoration(Task):
    """L1 loss; PSNR and SSIM of whole images.

    For outputs [B, sH, sW, C] in [0, 1] of a model that reads "image" [B, H, W, C], and
    the truth "target", of bytes or in [0, 1]. Padding of images, which "image_mask"
    [B, H, W] tells, does not count. "PSNR of the input" is that of the image itself,
    enlarged by bicubic interpolation where the scale is above 1.

    Attributes:
        border: pixels of the target at each edge that PSNR and SSIM leave out; None
            for as many as the scale if it is above 1, else none.
        luma: whether they are measured on Y of YCbCr, as in super-resolution, or on
            all channels, as in dehazing.
        ensemble: whether at the end the mean of the outputs for all eight ways to turn
            and mirror an image is measured too. `launch.py predict` restores pictures
            by this mean then, in eight times the time.
        scale: s, a fact of the data.
    """

    border: settings.Count | None = None
    luma: bool = True
    ensemble: bool = False
    scale: settings.Positive = 1

    fields: ClassVar[tuple[str, ...]] = ("image", TARGET)
    optional: ClassVar[tuple[str, ...]] = (MASK,)
    probes: ClassVar[tuple[str, ...]] = ("restored",)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        channels = "Y" if self.luma else "all channels"
        note = f"{channels} of 8 bits, without {self._border} pixels at each edge"
        headline = dataclasses.replace(PSNR, note=note)
        return (headline, SSIM, *(ENSEMBLE if self.ensemble else ()), INPUT)

    @property
    def scored(self) -> bool:
        return self.ensemble

    @property
    def _border(self) -> int:
        if self.border is not None:
            return self.border
        return self.scale if self.scale > 1 else 0

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        shape, wanted = getattr(outputs, "shape", None), example[TARGET].shape
        if shape != wanted:
            given, size = example["image"].shape[1:], wanted[1:]
            raise settings.Invalid(
                f"of images {given} the model makes {shape and shape[1:]}, and the"
                f" targets of the data are {size}: scale={self.scale} of the data must"
                " be that of the model"
            )
        room = min(wanted[1:3]) - 2 * self._border
        if room < fidelity.WINDOW:
            raise settings.Invalid(
                f"SSIM needs targets of {fidelity.WINDOW} pixels a side without their"
                f" border of {self._border}, got {wanted[1]}x{wanted[2]}"
            )

    def loss(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """The mean absolute difference, in units of 1 / 255."""
        distance = jnp.abs(outputs.astype(jnp.float32) - _truth(batch)).mean(axis=-1)
        mask = self._mask(batch)
        total = jnp.sum(jnp.where(mask, distance, 0.0), axis=(1, 2))
        pixels = jnp.sum(mask, axis=(1, 2), dtype=jnp.float32)
        return {"loss": Mean(255 * total, pixels)}

    def evaluate(self, outputs: jax.Array, batch: Batch) -> dict[str, Mean]:
        """The loss, PSNR and SSIM, and PSNR of the input."""
        found = self._measured(outputs, batch)
        given = batch["image"].astype(jnp.float32)
        if self.scale > 1:
            given = ops.imresize(given, self.scale)
        found[INPUT.name] = self._measured(given, batch)[PSNR.name]
        means = {}
        for name, values in found.items():
            there = self._has(name, batch)
            values = jnp.where(there, values, 0.0)
            means[name] = Mean(values, there.astype(jnp.float32))
        return self.loss(outputs, batch) | means

    def _has(self, name: str, batch: Batch) -> jax.Array:
        """Which images have what a metric is of: a pixel, or a window of SSIM."""
        mask = fidelity.within(self._mask(batch), self._border)
        sides = jnp.stack([mask.any(axis=axis).sum(axis=1) for axis in (1, 2)])
        return sides.min(axis=0) >= (fidelity.WINDOW if name == SSIM.name else 1)

    def predict(
        self, model: nn.Module, variables: Any, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """PSNR and SSIM of the mean over the eight ways, and who has them: [B] each."""
        inputs = getattr(model, "inputs", ("image",))

        def apply(batch: Batch) -> jax.Array:
            given = (batch[name] for name in inputs)
            return model.apply(variables, *given, train=False, rngs={"sample": key})

        outputs = _ensembled(apply, {name: batch[name] for name in inputs})
        found = self._measured(outputs, batch)
        return {f"ensemble_{name}": value for name, value in found.items()} | {
            f"{THERE}{name}": self._has(name, batch) for name in found
        }

    def score(
        self,
        predictions: Mapping[str, np.ndarray],
        batch: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ) -> dict[str, float]:
        """Means over the images that have them."""
        found = {}
        for metric in ENSEMBLE:
            there = predictions[THERE + metric.name.removeprefix("ensemble_")]
            found[metric.name] = float(np.mean(predictions[metric.name][there]))
        return found

    def outputs(self, apply: Callable[[Batch], jax.Array], batch: Batch) -> jax.Array:
        """The outputs, or with `ensemble` their mean over the eight ways."""
        return _ensembled(apply, batch) if self.ensemble else apply(batch)

    def restore(
        self, outputs: Any, batch: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:
        """The outputs without padding."""
        whole = np.rint(255 * np.clip(outputs, 0, 1)).astype(np.uint8)
        if MASK not in batch:
            return list(whole)
        scale = outputs.shape[1] // batch["image"].shape[1]
        sizes = [
            [scale * int(m.any(axis=a).sum()) for a in (1, 0)] for m in batch[MASK]
        ]
        return [one[:h, :w] for one, (h, w) in zip(whole, sizes, strict=True)]

    def _measured(self, image: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """PSNR and SSIM of each image: [B]."""
        pair = [fidelity.quantised(image.astype(jnp.float32)), _truth(batch)]
        if self.luma and image.shape[-1] == 3:
            pair = [fidelity.luma(one) for one in pair]
        mask = fidelity.within(self._mask(batch), self._border)
        return {"psnr": fidelity.psnr(*pair, mask), "ssim": fidelity.ssim(*pair, mask)}

    def _mask(self, batch: Batch) -> jax.Array:
        """Where the target is no padding: bool [B, sH, sW]."""
        if MASK not in batch:
            return jnp.ones(batch[TARGET].shape[:3], bool)
        mask = jnp.repeat(batch[MASK], self.scale, axis=1)
        return jnp.repeat(mask, self.scale, axis=2)


def _truth(batch: Batch) -> jax.Array:
    """The target in [0, 1], float32."""
    target = batch[TARGET]
    whole = jnp.issubdtype(target.dtype, jnp.integer)
    return target.astype(jnp.float32) / (255 if whole else 1)


def _ensembled(apply: Callable[[Batch], jax.Array], batch: Batch) -> jax.Array:
    """The mean of outputs [B, sH, sW, C] over the eight ways, float32.

    Args:
        apply: from fields [B, H, W, ...] to the outputs.
        batch: the fields.
    """
    total = 0.0
    for way in range(WAYS):
        outputs = apply({name: _turned(one, way) for name, one in batch.items()})
        total = total + _turned(outputs.astype(jnp.float32), way, back=True)
    return total / WAYS


def _turned(x: jax.Array, way: int, *, back: bool = False) -> jax.Array:
    """One of the eight ways to turn and mirror maps [B, H, W, ...], or back again."""
    x = jnp.swapaxes(x, 1, 2) if way & 4 and back else x
    x = x[:, ::-1] if way & 1 else x
    x = x[:, :, ::-1] if way & 2 else x
    return jnp.swapaxes(x, 1, 2) if way & 4 and not back else x
