"""Whole photographs, and what is left of them at a lower resolution.

Images are shrunk by `attn.ops.imresize` as a whole and rounded to bytes, as the field
makes its sets in MATLAB. Where the scale does not divide a side, rows at the bottom and
columns at the right are cut off before. Noise and haze are transforms; for evaluation
to have noise too it needs splits="all", which haze has by itself.
"""

import dataclasses
import functools
import os

import numpy as np

from attn import ops, settings
from attn.data.images import whole
from attn.data.images.whole import Photographs
from attn.data.source import Batch, Source, Statistics

UNIT = Statistics((0.0,) * 3, (1.0,) * 3)  # images in [0, 1]
RESIDENT_BYTES = 1 << 29  # up to which the photographs of a split are kept decoded


@dataclasses.dataclass(frozen=True)
class Degraded:
    """Photographs of any size, held out as a whole, and their low resolution.

    A batch holds "image", what a model reads, in [0, 1], [B, H, W, 3], and "target",
    uint8 [B, sH, sW, 3], what it is to restore, s being the scale, also a fact.
    Whole photographs are padded to one of a few sizes, the photograph mirrored beyond
    its edges, and "image_mask" says where it is. So what a network makes of it is
    what it makes of the photograph alone, but for a few pixels at two of its edges: the
    PSNR of trained networks, with gates of whole maps too, was the same to 0.0004 dB,
    where zeros cost up to 0.04 dB. The transform patches takes patches in training.

    Attributes:
        source: "photographs", which are embedded, with splits "train" (7),
            "validation" (2) and "test" (4); the path of a folder; or a set of
            TensorFlow Datasets; see `attn.data.images.whole`.
        scale: how many times as high and wide the target is; 1 leaves the image as it
            is, for noise and haze.
        directory: where sets of TensorFlow Datasets lie; "" for the usual place.
        skip_corrupt: whether files of a folder that cannot be read are left out, and
            named on standard error, and not refused. All are read for it when a split
            is opened.
    """

    source: str = whole.EMBEDDED
    scale: settings.Positive = 1
    directory: str = ""
    skip_corrupt: bool = False

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        found = whole.open_split(
            self.source, split, self.directory, skip_corrupt=self.skip_corrupt
        )
        small = (found.sizes < self.scale).any(axis=1)
        if small.any():
            row = int(np.argmax(small))
            height, width = found.sizes[row].tolist()
            raise settings.Invalid(
                f"the image {found.names[row]} of {height}x{width} pixels is smaller"
                f" than scale={self.scale}"
            )
        pair = functools.partial(_pair, found, self.scale)
        if 3 * found.sizes.prod(axis=1).sum() <= RESIDENT_BYTES:
            pair = functools.lru_cache(maxsize=None)(pair)

        def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
            del draws
            pairs = [pair(row) for row in rows.tolist()]
            return {
                "image": [image.copy() for image, _ in pairs],
                "target": [target.copy() for _, target in pairs],
            }

        return Source(
            len(found.names),
            read,
            {"scale": self.scale},
            threads=min(4, os.cpu_count() or 1),
            statistics=UNIT,
            sizes=found.sizes // self.scale,
            mirrored=True,
        )


def _pair(
    photographs: Photographs, scale: int, row: int
) -> tuple[np.ndarray, np.ndarray]:
    """A photograph shrunk, and the photograph."""
    target = photographs.read(row)
    height, width = (side // scale for side in target.shape[:2])
    target = target[: scale * height, : scale * width]
    return ops.imresize(target, size=(height, width)), target
