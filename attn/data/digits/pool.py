"""The digits of a split, of which compositions take several for an example."""

import dataclasses
import functools

import numpy as np

from attn.data.digits import ink


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Digits of a split, with what is found once for all batches of them.

    Attributes:
        pixels: uint8 [N, 28, 28, 1].
        labels: int32 [N].
    """

    pixels: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> int:
        """N."""
        return len(self.labels)

    @functools.cached_property
    def frames(self) -> np.ndarray:
        """The frame of each digit's ink, int [N, 4], as of `ink.frames`."""
        return ink.frames(self.pixels[..., 0])

    @functools.cached_property
    def by_label(self) -> np.ndarray:
        """Rows of the split in the order of their labels, int [N]."""
        return np.argsort(self.labels, kind="stable")
