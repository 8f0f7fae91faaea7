"""Pictures from elsewhere as examples of a data set, as its evaluation has them."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from attn import settings
from attn.data.images import augment
from attn.data.images.labelled import pixels
from attn.data.images.picture_files import SUFFIXES, intact, readable, shown_size
from attn.data.pipeline import Dataset
from attn.data.source import Batch

FORMATS = ("PNG", "JPEG")
# Of the sides of a picture, the part around its centre by which it is found again.
MIDDLE = 1 / 32


class Places(NamedTuple):
    """Where pictures lie in the images that are made of them.

    scale, shift: float64 [B, 2], of x and y: a place p of a picture, in pixels, is at
        scale * p + shift of the image.
    """

    scale: np.ndarray
    shift: np.ndarray


def named(text: str, *, skip_corrupt: bool = False) -> list[pathlib.Path]:
    """The files that a path of a picture or of a folder, or a pattern, names, in order.

    Args:
        skip_corrupt: whether files that cannot be read are left out, and named on
            standard error.

    Raises:
        Invalid: there are none.
    """
    found = _named(text)
    if not skip_corrupt:
        return found
    kept = intact(found, read, text)
    if not kept:
        raise settings.Invalid(f"none of the files that {text} names can be read")
    return kept


def _named(text: str) -> list[pathlib.Path]:
    path = pathlib.Path(text).expanduser()
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES]
        found = [p for p in found if not p.name.startswith(".")]
        what = f"the folder {text} has no PNG or JPEG files"
    elif path.exists():
        return [path]
    else:
        root = pathlib.Path(path.anchor)
        pattern = str(path.relative_to(path.anchor))
        try:
            found = [p for p in root.glob(pattern) if p.is_file()]
        except ValueError as error:  # such as a**
            raise settings.Invalid(f"{text} is no pattern: {error}") from error
        what = f"there is no file {text}, nor one that this matches as a pattern"
    if not found:
        raise settings.Invalid(what)
    return sorted(found)


def size(path: pathlib.Path) -> tuple[int, int]:
    """Width and height of a PNG or JPEG as it is shown, by its head.

    Raises:
        Invalid: the file is none.
    """
    return _opened(path, shown_size)


def read(path: pathlib.Path) -> np.ndarray:
    """A PNG or JPEG in RGB, upright as its EXIF says: uint8 [H, W, 3].

    Raises:
        Invalid: the file is none, or a damaged one.
    """
    return _opened(path, functools.partial(pixels, channels=3, upright=True))


def examples(
    dataset: Dataset, pictures: Sequence[np.ndarray], *, degraded: bool = False
) -> tuple[Batch, Places]:
    """Pictures behind all that a data set does to the images of its evaluation.

    If all images of the data set have one size, pictures are resized until they cover
    it, and cut to it around their centre.

    Args:
        dataset: with a field "image".
        pictures: uint8 [H, W, 3].
        degraded: whether they are so already, so that noise and the like is not added.

    Raises:
        Invalid: the data set has no images, or of other than 1 or 3 channels.
    """
    like = dataset.first().get("image")
    shape = () if like is None else like[0].shape
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise settings.Invalid(
            "pictures need a data set of images of 1 or 3 channels, and this one has"
            f" {'none' if like is None else f'images of shape {shape}'}"
        )
    images = [_like(picture, like[0]) for picture in pictures]
    batch: Batch = {"image": images, **_middles(images)}
    middles = batch["boxes"][:, 0].astype(np.float64)
    if isinstance(like, np.ndarray):
        batch = augment.centre_crops(batch, shape[:2])
    batch = dataset.evaluated(batch, degraded=degraded)
    boxes = batch.pop("boxes")[:, 0].astype(np.float64)
    del batch["boxes_mask"]
    scale = (boxes[:, 2:] - boxes[:, :2]) / (middles[:, 2:] - middles[:, :2])
    return batch, Places(scale, boxes[:, :2] - scale * middles[:, :2])


def _like(picture: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A picture with the channels and the type of an image of the data set."""
    if image.shape[-1] == 1:
        picture = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    return picture.astype(image.dtype)


def _middles(images: Sequence[np.ndarray]) -> Batch:
    """A box around the centre of each image, which no crop of the centre cuts off."""
    sizes = np.array([image.shape[1::-1] for image in images])
    half = np.maximum(sizes.min(axis=1, keepdims=True) * MIDDLE / 2, 0.5)
    boxes = np.concatenate([sizes / 2 - half, sizes / 2 + half], axis=1)
    boxes = boxes.astype(np.float32)[:, None]
    return {"boxes": boxes, "boxes_mask": np.ones((len(images), 1), bool)}


def _opened(path: pathlib.Path, of: Callable[[Image.Image], Any]) -> Any:
    with readable(f"the picture {path}"):
        try:
            with Image.open(path, formats=FORMATS) as image:
                return of(image)
        except UnidentifiedImageError as error:
            raise settings.Invalid(f"{path} is no PNG or JPEG") from error
