"""A user's image-to-image task: remove noise, scored in decibels."""

import dataclasses
import json
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from attn.data import Source
from attn.models.scaling import Width
from attn.tasks import Mean, Metric, Task

SIZE = (10, 12)
SPLITS = {"train": (0, 96), "validation": (96, 40), "test": (136, 40)}


@dataclasses.dataclass(frozen=True)
class Ramps:
    """Ramps of random slope, and the same with noise."""

    noise: float = 0.3

    def open(self, split):
        first, size = SPLITS[split]
        y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
        slopes = np.random.default_rng(0).normal(size=(176, 2))[first : first + size]
        clean = slopes[:, :1, None] * y + slopes[:, 1:, None] * x

        def read(rows, draws):
            noise = draws.reshape(len(rows), *SIZE) - 0.5
            noisy = clean[rows] + self.noise * noise
            return {
                "noisy": noisy[..., None].astype(np.float32),
                "clean": clean[rows][..., None].astype(np.float32),
            }

        return Source(size, read, {"channels": 1}, draws=SIZE[0] * SIZE[1])


class Denoiser(nn.Module):
    """Two convolutions, whose sum with the input is the output."""

    channels: int
    width: int = 4
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    inputs: ClassVar[tuple[str, ...]] = ("noisy",)
    streams: ClassVar[tuple[str, ...]] = ("dropout",)

    @nn.compact
    def __call__(self, noisy, *, train):
        x = nn.relu(nn.Conv(self.width, (5, 5))(noisy))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return noisy + nn.Conv(self.channels, (3, 3))(x)

    def width_settings(self):
        """The setting that scales it."""
        return {"width": Width(self.width, 1)}


@dataclasses.dataclass(frozen=True)
class Denoising(Task):
    """Squared error; the headline is the peak signal-to-noise ratio of images."""

    peak: float = 2.0

    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("psnr", "PSNR", unit="dB", better="higher"),
    )
    fields: ClassVar[tuple[str, ...]] = ("clean",)
    probes: ClassVar[tuple[str, ...]] = (f"{__name__}:pairs",)

    def loss(self, outputs, batch):
        return {"loss": _each(jnp.square(outputs - batch["clean"]).mean((1, 2, 3)))}

    def evaluate(self, outputs, batch):
        error = self.loss(outputs, batch)
        ratio = 10 * jnp.log10(self.peak**2 / error["loss"].total)
        return {**error, "psnr": _each(ratio)}


def pairs(directory, program, variables, dataset):
    """A probe: what is wanted and what the model makes of the noise."""
    with dataset.split(program.curve_split, 4) as batches:
        batch = next(batches)
    outputs, _ = program.capture(variables, batch)
    field = {"name": "clean, output", "kind": "pair", "keys": ["clean", "output"]}
    np.savez(
        directory / "examples.npz",
        clean=batch["clean"] / 2 + 0.5,
        output=np.asarray(outputs) / 2 + 0.5,
        index=json.dumps([field]),
    )
    return []


def _each(values):
    return Mean(values, jnp.ones_like(values))
