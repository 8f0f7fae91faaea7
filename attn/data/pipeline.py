"""Batches of a data set: batch k is a function of (seed, k), and threads run ahead.

Every batch is made as a whole, by a few NumPy calls, from the positions of its
examples in the endless stream that `attn.data.order` defines. Grain's part is to ask
for batches ahead of time in threads and to hand them out in order; NumPy and Pillow
let go of the interpreter while they work, so that the accelerator does not wait.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from attn import settings
from attn.data import normalise, order
from attn.data.augment import Augmentation, Size, centre_crops
from attn.data.compositions import Composition
from attn.data.distortions import Distortion
from attn.data.source import Source

# Seed of the random numbers of the splits that are evaluated: the same in every run.
EVALUATION_SEED = 0
AHEAD = 4  # batches made ahead of time, at least

Batch = dict[str, np.ndarray]
SPLITS = {"validation": order.VALIDATION, "test": order.TEST}  # that are evaluated
BOOKKEEPING = ("index", "weight")  # fields of a batch that no example has


class Field(NamedTuple):
    """Abstract array of one example: its shape, without the batch, and type."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Batches:
    """An iterator of batches made ahead of time; close it, or use it as a context."""

    def __init__(
        self, load: Callable[[int], Batch], start: int, stop: int, *, threads: int
    ) -> None:
        """Makes batches `start` to `stop` - 1 by `load`, which threads call."""
        import grain  # half a second, and nobody needs it before this

        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=max(AHEAD, threads)
        )
        batches = grain.MapDataset.range(start, stop).map(load)
        self._iterator = iter(batches.to_iter_dataset(options))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def close(self) -> None:
        """Ends the threads; may be called twice."""
        self._iterator.close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits of a data set, with all that happens to their images.

    `attn.data.open` makes one. Batches are dicts of NumPy arrays:

        image   float32 [B, H, W, C], normalised (`picture` undoes that)
        label   int32 [B], or [B, n] where a composition gives sequences
        index   int64 [B], row of the split; -1 for padding
        weight  float32 [B], 1, or 0 for padding; in batches of `split` only

    and what else a composition makes: boxes, labels and captions of scenes
    (`attn.data.scene`). `example` has all of them but index and weight.

    Attributes:
        training, validating, testing: the splits; `validating` may be None.
        image_size: height and width of the images in a batch.
        distortion: of all splits, or None.
        augmentation: of the training images.
        statistics: by which images are normalised.
        composition: of all splits, or None; instead of a distortion.
        test_draws: how often `split("test")` goes through the test split.
    """

    training: Source
    validating: Source | None
    testing: Source
    image_size: Size
    distortion: Distortion | None
    augmentation: Augmentation
    statistics: normalise.Statistics
    composition: Composition | None = None
    test_draws: int = 1

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that a model or a task may need: num_classes and class_names."""
        return {"num_classes": self.num_classes, "class_names": self.class_names}

    def example(self) -> dict[str, Field]:
        """Abstract example: shape and type of each field, without the batch."""
        return dict(self._example)

    @functools.cached_property
    def _example(self) -> dict[str, Field]:
        draws = np.zeros((1, self._draws(train=False)))
        batch = self._batch(self.training, np.zeros(1, np.int64), draws, train=False)
        return {
            name: Field(array.shape[1:], array.dtype)
            for name, array in batch.items()
            if name not in BOOKKEEPING
        }

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that can be evaluated: "validation", where there is one, "test"."""
        return tuple(name for name in SPLITS if self._source(name) is not None)

    def size(self, split: str) -> int:
        """Examples of "train", "validation" or "test"; the test split's by its draws.

        Raises:
            Invalid: no such split.
        """
        return self._named(split).size * (self.test_draws if split == "test" else 1)

    def _source(self, split: str) -> Source | None:
        names = {"train": "training", "validation": "validating", "test": "testing"}
        return getattr(self, names[split]) if split in names else None

    def _named(self, split: str) -> Source:
        source = self._source(split)
        if source is None:
            raise settings.unknown("split", split, ["train", *self.splits])
        return source

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images in a batch."""
        return (*self.image_size, len(self.statistics.mean))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        names = self.composition and self.composition.class_names
        return names or self.training.class_names

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.class_names)

    @property
    def test_size(self) -> int:
        """Examples that `test` goes through, one more for each draw."""
        return self.size("test")

    def train(
        self,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Endless batches of training examples, in a new order in each epoch.

        Every example comes once an epoch; a batch may reach into the next epoch.

        Args:
            batch_size: examples of a global batch.
            seed: of order, distortion and augmentation, 0 to 2^64 - 1.
            start: number of the first batch, for resuming: the batches are those
                that an unbroken run gives from there on.
            shard: (i, n) gives the i-th of n equal, contiguous parts of each global
                batch, which does not depend on n.

        Raises:
            Invalid: n does not divide the batch size, or a number is out of
                range.
        """
        local = _share(batch_size, shard)
        if not 0 <= seed < 1 << 64:
            raise settings.Invalid(f"seed must be 0 to 2^64 - 1, got {seed}")
        if start < 0:
            raise settings.Invalid(
                f"start must be a batch number from 0 on, got {start}"
            )
        source, draws = self.training, self._draws(train=True)

        def load(number: int) -> Batch:
            first = number * batch_size + shard[0] * local
            rows = order.rows(seed, first, local, source.size)
            numbers = order.uniform(seed, order.TRAIN, first, local, draws)
            return self._batch(source, rows, numbers, train=True)

        return Batches(load, start, sys.maxsize, threads=_threads(source))

    def split(
        self, name: str, batch_size: int, *, shard: tuple[int, int] = (0, 1)
    ) -> Batches:
        """Batches of the split "validation" or "test", in order, for an evaluation.

        Random numbers are the same in every run, and each split has its own. The
        test split is gone through once, or `test_draws` times with other numbers
        each. The last batch is filled up with the last example at weight 0.

        Args:
            name: one of `splits`.
            batch_size: examples of a global batch.
            shard: as in `train`; every shard has the same number of batches.

        Raises:
            Invalid: no such split, or n does not divide the batch size.
        """
        if name not in self.splits:
            raise settings.unknown("split", name, self.splits)
        local = _share(batch_size, shard)
        source, draws = self._named(name), self._draws(train=False)
        total, purpose = self.size(name), SPLITS[name]

        def load(number: int) -> Batch:
            first = number * batch_size + shard[0] * local
            places = np.arange(first, first + local)
            numbers = order.uniform(EVALUATION_SEED, purpose, first, local, draws)
            rows = np.where(places < total, places, total - 1) % source.size
            batch = self._batch(source, rows, numbers, train=False)
            batch["index"] = np.where(places < total, rows, -1)
            batch["weight"] = (places < total).astype(np.float32)
            return batch

        count = -(-total // batch_size)
        return Batches(load, 0, count, threads=_threads(source))

    def test(self, batch_size: int, *, shard: tuple[int, int] = (0, 1)) -> Batches:
        """Batches of the test split, as `split` gives them."""
        return self.split("test", batch_size, shard=shard)

    def objects(self, batch: Batch) -> np.ndarray | None:
        """Where the object of each image is: bool [B, H, W]; None if not known."""
        return batch.get("objects")

    def picture(self, image: np.ndarray) -> np.ndarray:
        """Undoes the normalisation, for reports: [..., C] -> float32 in [0, 1].

        Two channels, which no picture has, become red and cyan ones of three.
        """
        picture = normalise.picture(image, self.statistics)
        return picture[..., [0, 1, 1]] if picture.shape[-1] == 2 else picture

    def _draws(self, *, train: bool) -> int:
        """Random numbers that an example takes."""
        if self.composition:
            return self.composition.draws
        if self.distortion:
            return self.distortion.draws
        return self.augmentation.draws if train else 0

    def _batch(
        self, source: Source, rows: np.ndarray, draws: np.ndarray, *, train: bool
    ) -> Batch:
        if self.composition:
            arrays = self.composition.apply(source.pixels, source.labels, rows, draws)
            image = normalise.normalise(arrays["image"], self.statistics)
            return {**arrays, "image": image, "index": rows}
        if self.distortion:
            images = self.distortion.apply(source.pixels, rows, draws)
            labels = source.labels[rows]
        else:
            images, labels = source.read(rows)
            if train:
                images = self.augmentation.train(images, draws, self.image_size)
            else:
                images = centre_crops(images, self.image_size, self.augmentation.margin)
        image = normalise.normalise(images, self.statistics)
        return {"image": image, "label": labels, "index": rows}


def _share(batch_size: int, shard: tuple[int, int]) -> int:
    """Examples of each global batch that a shard gets."""
    index, count = shard
    if not 0 <= index < count:
        raise settings.Invalid(f"shard must be (i, n) with 0 <= i < n, got {shard}")
    if batch_size < 1 or batch_size % count:
        raise settings.Invalid(
            f"batch size {batch_size} must be a positive multiple of the number of"
            f" shards {count}"
        )
    return batch_size // count


def _threads(source: Source) -> int:
    """One where images are in memory; where they are decoded, one a core, up to 16."""
    return 1 if source.pixels is not None else min(16, os.cpu_count() or 1)
