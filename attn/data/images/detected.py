"""Images with boxes of one split, by row, without TensorFlow.

They come of any prepared detection set of TFDS in its usual form: an "image" of 1 or 3
channels of 8 bits, and "objects", a sequence of "bbox" (ymin, xmin, ymax, xmax as
shares of the image) and "label", perhaps with "is_crowd" and "area" (COCO). A batch
holds, for B examples of at most N objects,

    image         a list of uint8 [H, W, C], of unlike size
    boxes         float32 [B, N, 4], (x0, y0, x1, y1) in pixels of the image; zeros
                  where there is no object
    boxes_mask    bool [B, N], where there is an object; an image may have none
    labels        int32 [B, N], class of each; -1 where there is no object
    boxes_area    float32 [B, N], area in pixels of the image on disk: what the set
                  says, which is that of the outline in COCO, or else that of the box
    boxes_crowd   bool [B, N], whether the box is around many things
    image_size    int32 [B, 2], height and width of the image on disk

Boxes are cut off at the edges of the image, and those without area are left out, as in
the code that Carion et al. published with "End-to-End Object Detection with
Transformers", 2020, https://arxiv.org/abs/2005.12872 (`datasets/coco.py`); how many is
said on standard error. Objects that VOC calls difficult are objects like others.

Sizes and boxes of a whole split are read when it is opened, a minute for COCO, and are
kept on disk (`attn.data.cache`). Images are read and decoded at each access.
"""

import functools
import io
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from attn import settings
from attn.data import cache
from attn.data.images import labelled
from attn.data.source import Batch, Most, Source, Statistics

BLOCK = 256  # records read at a time while a split is opened
# Box, label, area and crowd of no object.
NONE = ((0.0, 0.0, 0.0, 0.0), -1, 0.0, False)
SLOW = 2000  # images from which on it is said that they are read


class Objects(NamedTuple):
    """Objects of all images of a split: those of image i are [ends[i]:ends[i + 1]].

    The last one stands for none: of no image, with the values that a batch has where
    there is no object.

    sizes: height and width of each image, int32 [n, 2].
    ends: int64 [n + 1], ascending from 0.
    boxes: float32 [m, 4], (x0, y0, x1, y1) in pixels.
    labels: int32 [m].
    area: float32 [m], in pixels.
    crowd: bool [m].
    left_out: how many boxes without area there were.
    """

    sizes: np.ndarray
    ends: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    left_out: np.ndarray


class Detection(NamedTuple):
    """One split: images with objects.

    fullest: the example with the most objects, in words.
    channels: of the images.
    class_names: by label.
    records: as of `labelled.Images`.
    objects: of all images.
    """

    fullest: str
    channels: int
    class_names: tuple[str, ...]
    records: Any
    objects: Objects

    def source(self, statistics: Statistics) -> Source:
        """The split with the fields of the head of this file.

        Args:
            statistics: by which images are normalised.
        """
        objects = self.objects
        most = max(1, int(np.diff(objects.ends).max()))
        facts = labelled.facts(self.class_names)
        return Source(
            len(objects.sizes),
            functools.partial(self.read, most),
            {**facts, "max_objects": Most(most, self.fullest)},
            threads=min(16, os.cpu_count() or 1),
            statistics=statistics,
            sizes=objects.sizes.astype(np.int64),
        )

    def read(self, most: int, rows: np.ndarray, draws: np.ndarray) -> Batch:
        """Some rows, with places for `most` objects each."""
        del draws
        records = self.records.__getitems__(rows.tolist())
        objects = self.objects
        place = objects.ends[rows, None] + np.arange(most)
        there = place < objects.ends[rows + 1, None]
        place = np.where(there, place, -1)
        return {
            "image": self._images(records),
            "boxes": objects.boxes[place],
            "boxes_mask": there,
            "labels": objects.labels[place],
            "boxes_area": objects.area[place],
            "boxes_crowd": objects.crowd[place],
            "image_size": objects.sizes[rows],
        }

    def _images(self, records: Iterable[Mapping[str, Any]]) -> list[np.ndarray]:
        return [
            labelled.decoded({**record, "name": _name(record)}, self.channels)
            for record in records
        ]


def fits(features: Any) -> bool:
    """Whether the features of a set of TFDS are those of detection."""
    import tensorflow_datasets as tfds

    parts = dict(features.items()) if hasattr(features, "items") else {}
    objects = getattr(parts.get("objects"), "feature", None)
    return isinstance(objects, tfds.features.FeaturesDict) and {
        "bbox",
        "label",
    } <= set(objects)


def open_split(name: str, split: str, builder: Any) -> Detection:
    """Opens a split of a prepared detection set.

    Raises:
        Invalid: an unknown split, images or boxes of another form, a picture that
            cannot be read, a box that is not finite or lies outside of its image, or a
            label that is none of the classes; says in which example.
    """
    return _open(name, split, builder.data_path)


@functools.lru_cache(maxsize=4)
def _open(name: str, split: str, path: Any) -> Detection:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    channels, class_names = _features(name, builder.info.features)
    labelled.check_split(name, split, builder.info.splits)
    encoded = {"image": tfds.decode.SkipDecoding()}
    records = builder.as_data_source(split, decoders=encoded)
    folder = pathlib.Path(path)
    state = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir()]
    code = pathlib.Path(__file__).read_bytes()
    key = [code, str(path), split, repr(sorted(state)), repr(class_names)]
    what = f"data set {name!r}, split {split!r}"
    content = cache.kept("objects", key, lambda: _scanned(what, records, class_names))
    with np.load(io.BytesIO(content)) as arrays:
        objects = Objects(**arrays)
    if objects.left_out:
        print(
            f"{what}: {objects.left_out} boxes without area are left out",
            file=sys.stderr,
        )
    row = int(np.diff(objects.ends).argmax())
    (record,) = records.__getitems__([row])
    fullest = _called(what, row, record)
    return Detection(fullest, channels, class_names, records, objects)


def _features(name: str, features: Any) -> tuple[int, tuple[str, ...]]:
    """Channels of the images and names of the classes, or an Invalid."""
    import tensorflow_datasets as tfds

    image = dict(features.items()).get("image")
    bbox, label = (features["objects"].feature[key] for key in ("bbox", "label"))
    if (
        not isinstance(image, tfds.features.Image)
        or image.np_dtype != np.uint8
        or image.shape[-1] not in (1, 3)
        or tuple(bbox.shape) != (4,)
        or not isinstance(label, tfds.features.ClassLabel)
    ):
        raise settings.Invalid(
            f"data set {name!r} is not a detection set of the usual form: it needs an"
            " 'image' of 1 or 3 channels of 8 bits and 'objects' with a 'bbox' of four"
            f" numbers and a 'label' of one class, and has {features}"
        )
    form = getattr(bbox, "bbox_format", None)
    known = tfds.features.bounding_boxes.bb_utils.BBoxFormat.REL_YXYX
    if form not in (None, known):  # old sets do not say
        raise settings.Invalid(
            f"boxes of data set {name!r} are {form.value}, and only {known.value} is"
            " read (ymin, xmin, ymax, xmax as shares of the image)"
        )
    return image.shape[-1], tuple(label.names)


def _scanned(what: str, records: Any, class_names: tuple[str, ...]) -> bytes:
    """The `Objects` of all records as the bytes of an .npz."""
    count = len(records)
    if count >= SLOW:
        said = f"reading sizes and boxes of {count} images of {what} (once)"
        print(said, file=sys.stderr)
    found = []
    for first in range(0, count, BLOCK):
        rows = range(first, min(first + BLOCK, count))
        for row, record in zip(rows, records.__getitems__(list(rows)), strict=True):
            found.append(_objects(_called(what, row, record), record, len(class_names)))
    sizes, *fields, left_out = zip(*found, strict=True)
    boxes, labels, area, crowd = (
        np.concatenate([*field, [none]])
        for field, none in zip(fields, NONE, strict=True)
    )
    file = io.BytesIO()
    np.savez_compressed(
        file,
        sizes=np.array(sizes, np.int32),
        ends=np.cumsum([0, *map(len, fields[1])], dtype=np.int64),
        boxes=boxes.astype(np.float32),
        labels=labels.astype(np.int32),
        area=area.astype(np.float32),
        crowd=crowd.astype(bool),
        left_out=np.array(sum(left_out)),
    )
    return file.getvalue()


def _called(what: str, row: int, record: Mapping[str, Any]) -> str:
    """An example in words, for errors."""
    name = _name(record)
    return f"example {row}{f' ({name})' if name else ''} of {what}"


def _name(record: Mapping[str, Any]) -> str:
    """The name of the file, as far as the data set knows it."""
    name = record.get("image/filename", b"")
    return name.decode() if isinstance(name, bytes) else str(name)


def _objects(called: str, record: Mapping[str, Any], classes: int) -> tuple:
    """Size of an image, its boxes, labels, areas, crowds, and how many are left out."""
    width, height = labelled.size_of(record["image"], called)
    objects = record["objects"]
    count = len(objects["label"])
    shares = np.array(objects["bbox"], np.float64).reshape(count, 4)
    labels = np.array(objects["label"], np.int64)
    _check(called, shares, labels, classes)
    size = np.array([width, height, width, height])
    edges = np.clip(shares, 0, 1)[:, [1, 0, 3, 2]] * size
    sides = edges[:, 2:] - edges[:, :2]
    there = (sides > 0).all(axis=1)
    area = np.array(objects.get("area", sides.prod(axis=1)), np.float64)
    crowd = np.array(objects.get("is_crowd", np.zeros(count)), bool)
    kept = (edges[there], labels[there], area[there], crowd[there])
    return (height, width), *kept, count - int(there.sum())


def _check(called: str, shares: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Refuses boxes that are not finite or lie outside, and labels of no class."""
    for number, (box, label) in enumerate(zip(shares, labels, strict=True)):
        shown = ", ".join(f"{edge:g}" for edge in box)
        if not np.isfinite(box).all():
            raise settings.Invalid(
                f"box ({shown}) of object {number} in {called} is not finite"
            )
        low, high = box[:2], box[2:]
        if (high > low).all() and ((low >= 1) | (high <= 0)).any():
            raise settings.Invalid(
                f"box ({shown}) of object {number} in {called} lies outside of the"
                " image: ymin, xmin, ymax, xmax are shares of it, 0 to 1"
            )
        if not 0 <= label < classes:
            raise settings.Invalid(
                f"label {label} of object {number} in {called} is none of the"
                f" {classes} classes 0 to {classes - 1}"
            )
