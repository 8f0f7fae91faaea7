"""Opened splits: examples by row, whatever they are of."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from attn.data.buckets import Buckets

# Arrays by field, each [B, ...]. While a batch is made, images may also be an iterable
# of arrays of unlike size, and sequences a list of arrays of unlike length.
Batch = dict[str, Any]


class Field(NamedTuple):
    """Abstract array of one example: its shape, without the batch, and type.

    A length that is not the same in all examples is None.
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype

    def like(self, other: "Field") -> bool:
        """Whether they are the same but for the height and width of images."""
        ends = [(len(f.shape), f.shape[2:], f.dtype) for f in (self, other)]
        return ends[0] == ends[1]


NOTES = "data.json"  # what there is to know of the data, as a file


class Statistics(NamedTuple):
    """Mean and deviation of each channel, in units of the full range."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Most(NamedTuple):
    """A fact that is a greatest number: of a data set, the greatest of its splits.

    count: such as of the objects of one image.
    where: which example has so many, in words.
    """

    count: int
    where: str


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set, opened.

    Attributes:
        size: examples.
        read: (rows int [B], draws float64 [B, draws] in [0, 1)) -> batch. An example
            depends on its own row and draws only. The arrays are new, as transforms
            overwrite them; threads may call it at the same time.
        facts: about the data set, offered to models and tasks that have such a
            field: num_classes, class_names, vocab_size, ... The data set has those of
            "train", but for a `Most`.
        draws: random numbers that `read` takes for each example.
        threads: that make batches ahead; one where examples are in memory.
        statistics: by which "image", in 0..255, is normalised behind all transforms;
            None for data without such images.
        buckets: for examples of unlike length, whose fields `read` gives as lists of
            arrays [n]: they are padded to the length of the bucket.
        sizes: height and width of each "image", int [size, 2], where they differ and
            are known: `read` gives them as a list, and they are padded behind all
            transforms (`attn.data.canvases`) if they differ then.
        mirrored: whether this padding is the image mirrored, and not zeros, as suits
            models that are about every pixel.
        lengths: of fields that are shorter than the others, such as places in a
            sequence: their length by that of the bucket.
        files: by name, what a model is of no use without, such as a tokenizer. They
            are written into the directory of what is trained, which goes on, and
            answers, with the same ones only. `NOTES` among them may change.
    """

    size: int
    read: Callable[[np.ndarray, np.ndarray], Batch]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    draws: int = 0
    threads: int = 1
    statistics: Statistics | None = None
    buckets: Buckets | None = None
    sizes: np.ndarray | None = None
    mirrored: bool = False
    lengths: Mapping[str, Callable[[int], int]] = dataclasses.field(
        default_factory=dict
    )
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def abstract(batch: Batch) -> dict[str, Field]:
    """Fields of one example of a batch; images of unlike size have (None, None, C)."""
    found = {}
    for name, value in batch.items():
        if isinstance(value, np.ndarray):
            found[name] = Field(value.shape[1:], value.dtype)
        else:
            (first, *_) = value
            unlike = (None,) * min(2, first.ndim)
            found[name] = Field((*unlike, *first.shape[2:]), first.dtype)
    return found
