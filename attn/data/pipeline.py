"""Batches of a data set: batch k is a function of (seed, k), and threads run ahead.

Every batch is made as a whole, by a few NumPy calls, from the positions of its
examples in the endless stream that `attn.data.order` defines.
"""

import copy
import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from attn import settings
from attn.data import buckets, canvases, order, padding
from attn.data.ahead import Batches
from attn.data.images import normalise
from attn.data.source import Batch, Field, Most, Source, abstract
from attn.data.transforms import Entry, Transform

# Seed of the random numbers of the splits that are evaluated: the same in every run.
EVALUATION_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Splits of a data set, with the transforms of their examples.

    `attn.data.open` makes one. Batches are dicts of NumPy arrays by field, which
    depend on the data set; those of labelled images:

        image    float32 [B, H, W, C], normalised (`picture` undoes that)
        label    int32 [B]
        objects  bool [B, H, W], where the object is, if the data set knows

    Images of unlike size are padded at the right and at the bottom, with zeros behind
    the normalisation, to one of a few sizes (`attn.data.canvases`); then there is

        image_mask  bool [B, H, W], where there is image

    `example` has all fields but these, which tell of the batch itself:

        index   int64 [B], row of the split; -1 for padding
        weight  float32 [B], 1, or 0 for padding; in batches of `split` only

    Attributes:
        sources: "train", "test" and perhaps "validation".
        transforms: in their order.
        test_draws: how often `split("test")` goes through the test split.
    """

    sources: Mapping[str, Source]
    transforms: tuple[Entry, ...] = ()
    test_draws: int = 1

    @property
    def facts(self) -> Mapping[str, Any]:
        """Facts that a model or a task may need: num_classes, class_names, ...

        They are those of the training split, or the greatest of all splits (`Most`).
        """
        facts = dict(self.sources["train"].facts)
        for name, value in facts.items():
            if isinstance(value, Most):
                facts[name] = max(part.facts[name] for part in self.sources.values())
        return facts

    @property
    def files(self) -> Mapping[str, bytes]:
        """Files to be kept beside what is trained, by name."""
        return self.sources["train"].files

    def example(self) -> dict[str, Field]:
        """Abstract example: shape and type of each field, without the batch.

        Where examples are of unlike length it is one of the longest.
        """
        return dict(self._traced(train=False)[1])

    @property
    def one_shape(self) -> bool:
        """Whether all training batches have one shape, whatever the seed."""
        plan = self.sources["train"].buckets
        if plan is not None:
            return len(plan.members) == 1
        return not isinstance(self._training[1].get("image"), list)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that can be evaluated: "validation", where there is one, "test"."""
        return tuple(name for name in order.PURPOSES if name in self.sources)[1:]

    def size(self, split: str) -> int:
        """Examples of "train", "validation" or "test"; the test split's by its draws.

        Raises:
            Invalid: no such split.
        """
        if split not in self.sources:
            raise settings.unknown("split", split, ["train", *self.splits])
        return self.sources[split].size * self._passes(split)

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
        Where examples are of unlike length, a batch has those of one bucket
        (`attn.data.buckets`) and a multiple of `batch_size` examples; where images are
        of unlike size it has those of like shape (`attn.data.canvases`).

        Args:
            batch_size: examples of a global batch.
            seed: of order, examples and transforms, 0 to 2^64 - 1.
            start: number of the first batch, for resuming: the batches are those
                that an unbroken run gives from there on.
            shard: (i, n) gives the i-th of n equal, contiguous parts of each global
                batch, which does not depend on n.

        Raises:
            Invalid: n does not divide the batch size, or a number is out of range.
        """
        _check_shard(batch_size, shard)
        if not 0 <= seed < 1 << 64:
            raise settings.Invalid(f"seed must be 0 to 2^64 - 1, got {seed}")
        if start < 0:
            raise settings.Invalid(
                f"start must be a batch number from 0 on, got {start}"
            )
        plan = self._plan("train")

        def load(number: int) -> Batch:
            rows = plan.training(seed, number, batch_size, shard)
            return self._made("train", rows, seed)

        return self._batches("train", load, start, sys.maxsize)

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
        _check_shard(batch_size, shard)
        plan, passes = self._plan(name), self._passes(name)

        def load(number: int) -> Batch:
            rows = plan.evaluation(number, batch_size, shard, passes)
            batch = self._made(name, rows, EVALUATION_SEED)
            batch["index"] = np.where(rows.weight > 0, rows.rows, -1)
            batch["weight"] = rows.weight
            return batch

        return self._batches(name, load, 0, plan.count(batch_size, passes))

    def objects(self, batch: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Masks of the object of each image, bool [B, H, W]; None if not known."""
        return batch.get("objects")

    def picture(self, image: np.ndarray) -> np.ndarray:
        """Undoes the normalisation, for reports: [..., C] -> float32 in [0, 1].

        Two channels, which no picture has, become red and cyan ones of three.
        """
        picture = image
        for entry in reversed(self.transforms):
            transform = entry.transform
            if (
                isinstance(transform, normalise.Normalise)
                and "image" in transform.fields
            ):
                picture = normalise.picture(picture, transform.statistics)
                break
        return picture[..., [0, 1, 1]] if picture.shape[-1] == 2 else picture

    def first(self) -> Batch:
        """The first training example, [1, ...], before all transforms."""
        return copy.deepcopy(self._first)

    def evaluated(self, batch: Batch, *, degraded: bool = False) -> Batch:
        """Examples of another source as evaluation has them, behind all transforms.

        Args:
            batch: fields as of `first`, of which some may be missing.
            degraded: whether to leave out those that degrade images.
        """
        left = {e.name for e in self.transforms if degraded and e.transform.degrades}
        counts = {n: c for n, c in self._evaluation[0].items() if n not in left}
        places = np.arange(len(batch["image"]))

        def numbers(stream: str, draws: int) -> np.ndarray:
            return _numbers(EVALUATION_SEED, "test", places, stream, draws)

        batch = self._transformed(batch, self.sources["test"], counts, numbers)
        if self._unlike:
            batch = {name: _kept(value) for name, value in batch.items()}
            size = np.max([image.shape[:2] for image in batch["image"]], axis=0)
            canvas = self._plan("test").holding(size)
            mirror = self.sources["test"].mirrored
            batch = padding.on_canvas(batch, canvas, mirror=mirror)
        return batch

    def check(self) -> None:
        """Makes an example of each kind.

        Raises:
            Invalid: a transform does not fit the examples, or training and
                evaluation have examples of unlike shape.
        """
        train, other = (self._traced(train=train)[1] for train in (True, False))
        parts = any(entry.transform.parts for entry in self.transforms)
        for name, field in train.items():
            if None in field.shape:
                raise settings.Invalid(
                    f"the examples differ in the size of {name!r}: set image_size (the"
                    " papers on ImageNet use 224), or a transform that gives all one"
                    " size"
                )
            given = other.get(name)
            if given != field and not (parts and given and given.like(field)):
                raise settings.Invalid(
                    f"transforms give {name!r} as {_describe(field)} in training and"
                    f" {_describe(given)} in evaluation"
                )
        if self.test_draws > 1 and not self._draws_in_evaluation():
            raise settings.Invalid(
                f"test_draws={self.test_draws} needs examples that are drawn, such as"
                " distorted or composed digits: without, every draw shows the same"
            )

    def _passes(self, split: str) -> int:
        return self.test_draws if split == "test" else 1

    def _plan(self, split: str) -> buckets.Buckets | canvases.Canvases:
        source = self.sources[split]
        if source.buckets is not None:
            return source.buckets
        if not self._unlike:
            return buckets.single(source.size)
        if split not in self._plans:
            evaluated = self._behind(self._sizes(split), lambda entry: None)
            found = canvases.plan(source.size, self._training_sizes, evaluated)
            self._plans[split] = found
        return self._plans[split]

    @functools.cached_property
    def _plans(self) -> dict[str, canvases.Canvases]:
        return {}

    @functools.cached_property
    def _unlike(self) -> bool:
        """Whether images that are known to differ in size do so behind transforms."""
        ends = [batch.get("image") for _, batch in (self._training, self._evaluation)]
        unlike = any(isinstance(end, list) for end in ends)
        return unlike and self._sizes("train") is not None

    def _sizes(self, split: str) -> np.ndarray | None:
        """Height and width of the images of a split before transforms, if known."""
        source, image = self.sources[split], self._first["image"]
        if source.sizes is None and isinstance(image, np.ndarray):
            return np.broadcast_to(image.shape[1:3], (source.size, 2))
        return source.sizes

    def _training_sizes(self, seed: int, rows: np.ndarray, first: int) -> np.ndarray:
        """Height and width of training images behind all transforms: int [n, 2]."""
        counts, _ = self._training
        places = np.arange(first, first + len(rows))

        def draws(entry: Entry) -> np.ndarray | None:
            if entry.name not in counts:
                return None
            stream = entry.stream(self.sources["train"])
            return _numbers(seed, "train", places, stream, counts[entry.name])

        return self._behind(self._sizes("train")[rows], draws)

    def _behind(
        self, sizes: np.ndarray, draws: Callable[[Entry], np.ndarray | None]
    ) -> np.ndarray:
        """Sizes of images behind all transforms, given those before them."""
        for entry in self.transforms:
            if type(entry.transform).sizes is not Transform.sizes:
                sizes = entry.transform.sizes(sizes, draws(entry))
        return sizes

    def _batches(
        self, split: str, load: Callable[[int], Batch], start: int, stop: int
    ) -> Batches:
        return Batches(load, start, stop, threads=self.sources[split].threads)

    def _made(self, split: str, rows: buckets.Rows, seed: int) -> Batch:
        """The batch of some rows, without a weight."""
        source = self.sources[split]
        counts, _ = self._training if split == "train" else self._evaluation

        def numbers(stream: str, draws: int) -> np.ndarray:
            return _numbers(seed, split, rows.places, stream + rows.stream, draws)

        batch = source.read(rows.rows, numbers("", source.draws))
        if isinstance(rows.length, int):
            batch = padding.padded(batch, rows.length, source.lengths)
        batch = self._transformed(batch, source, counts, numbers)
        if isinstance(rows.length, tuple):
            batch = padding.on_canvas(batch, rows.length, mirror=source.mirrored)
        return {**batch, "index": rows.rows}

    def _transformed(
        self,
        batch: Batch,
        source: Source,
        counts: Mapping[str, int],
        numbers: Callable[[str, int], np.ndarray],
    ) -> Batch:
        """A batch behind all transforms, of which those in `counts` are applied."""
        for entry in self.transforms:
            if entry.name in counts:
                draws = numbers(entry.stream(source), counts[entry.name])
                batch = entry.transform.apply(batch, draws)
            else:
                batch = entry.transform.otherwise(batch)
        return batch

    def _traced(self, *, train: bool) -> tuple[dict[str, int], dict[str, Field]]:
        """Random numbers of each transform that is applied, and the example at the end.

        Found by sending the first training example through all transforms.
        """
        counts, batch = self._training if train else self._evaluation
        if self._unlike:
            size = self._plan("test").largest  # training may be larger
            batch = padding.on_canvas(padding.cut(batch, size), size)
        return counts, abstract(batch)

    @functools.cached_property
    def _training(self) -> tuple[dict[str, int], Batch]:
        return self._trace(train=True)

    @functools.cached_property
    def _evaluation(self) -> tuple[dict[str, int], Batch]:
        return self._trace(train=False)

    @functools.cached_property
    def _first(self) -> Batch:
        """The first training example before all transforms."""
        source = self.sources["train"]
        batch = source.read(np.zeros(1, np.int64), np.zeros((1, source.draws)))
        if source.buckets is not None:
            batch = padding.padded(batch, source.buckets.lengths[-1], source.lengths)
        return {name: _kept(value) for name, value in batch.items()}

    def _trace(self, *, train: bool) -> tuple[dict[str, int], Batch]:
        batch, counts = copy.deepcopy(self._first), {}
        for entry in self.transforms:
            batch = {name: _kept(value) for name, value in batch.items()}
            if train or entry.transform.splits == "all":
                counts[entry.name] = entry.transform.draws(abstract(batch))
                draws = np.zeros((1, counts[entry.name]))
                batch = entry.transform.apply(batch, draws)
            else:
                batch = entry.transform.otherwise(batch)
        return counts, {name: _kept(value) for name, value in batch.items()}

    def _draws_in_evaluation(self) -> bool:
        counts, _ = self._traced(train=False)
        return self.sources["test"].draws > 0 or any(counts.values())


def _numbers(
    seed: int, split: str, places: np.ndarray, stream: str, draws: int
) -> np.ndarray:
    """Random numbers of some positions of a stream of a split: [n, draws]."""
    first, count = int(places.min()), int(np.ptp(places)) + 1
    purpose = order.PURPOSES[split]
    found = order.uniform(seed, purpose, first, count, draws, stream)
    return found if (np.diff(places) == 1).all() else found[places - first]


def _kept(value: Any) -> Any:
    """An array, or a list of those that an iterator gives."""
    return value if isinstance(value, np.ndarray) else list(value)


def _describe(field: Field | None) -> str:
    return "nothing" if field is None else f"{field.dtype} {list(field.shape)}"


def _check_shard(batch_size: int, shard: tuple[int, int]) -> None:
    index, count = shard
    if not 0 <= index < count:
        raise settings.Invalid(f"shard must be (i, n) with 0 <= i < n, got {shard}")
    if batch_size < 1 or batch_size % count:
        raise settings.Invalid(
            f"batch size {batch_size} must be a positive multiple of the number of"
            f" shards {count}"
        )
