"""pixels: images as sequences of grey levels, to be classified.

The task "Image" of the Long Range Arena (Tay et al. 2021, arXiv:2011.04006, section
2.2.4), which has CIFAR-10 in grey: the rows of an image one after the other, each pixel
a token, so that a model has to find out what lies next to what.
"""

import dataclasses

import numpy as np

from attn import settings
from attn.data.images import labelled
from attn.data.source import Batch, Source
from attn.data.text.symbols import CLS, FIRST, PAD

GREY = np.array([299, 587, 114])  # of red, green and blue, in thousandths (BT.601)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """pixels: images of one size as sequences of grey levels.

    Fields "tokens" ([CLS] and the H W pixels), "tokens_mask" and "segments" (0),
    [1 + H W], and "label". Facts: vocab_size, max_length, pad, cls, num_classes,
    class_names.

    Attributes:
        source: an image-classification set of TensorFlow Datasets, such as "cifar10",
            or one of those that come with the package.
        directory: where data sets lie; "" for TFDS's usual place.
        shrink: side of the squares of pixels of which one token is the mean.
    """

    source: str = "mnist_5k"
    directory: str = ""
    shrink: settings.Positive = 1

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        found = labelled.open_split(self.source, split, self.directory)
        if found.pixels is None or found.labels is None:
            raise settings.Invalid(
                f"pixels needs images of one size that fit in memory, and those of"
                f" {self.source!r} do not"
            )
        labels, pixels, by = found.labels, found.pixels, self.shrink
        height, width = pixels.shape[1] // by, pixels.shape[2] // by
        if not height or not width:
            raise settings.Invalid(
                f"shrink must be at most the side of the images, got {by}"
            )

        def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
            del draws
            image = pixels[rows, : height * by, : width * by].astype(np.int64)
            image = image @ GREY // 1000 if image.shape[-1] == 3 else image[..., 0]
            squares = image.reshape(len(rows), height, by, width, by)
            grey = squares.sum(axis=(2, 4)) // by**2
            tokens = np.pad(
                FIRST + grey.reshape(len(rows), -1),
                ((0, 0), (1, 0)),
                constant_values=CLS,
            ).astype(np.int32)
            return {
                "tokens": tokens,
                "tokens_mask": np.ones(tokens.shape, bool),
                "segments": np.zeros_like(tokens),
                "label": labels[rows],
            }

        facts = {
            "vocab_size": FIRST + 256,
            "max_length": 1 + height * width,
            "pad": PAD,
            "cls": CLS,
        }
        return Source(found.size, read, labelled.facts(found.class_names) | facts)
