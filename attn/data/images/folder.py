"""Folders of images: ROOT/CLASS/FILE or ROOT/SPLIT/CLASS/FILE.

ROOT/SPLIT/CLASS is meant where a folder of ROOT has folders itself. Classes have the
order of their names, over all splits. Images come in the order of a hash of their path
below the split, so that every part of a split has its share of each class. Names that
begin with a dot, and files other than .png, .jpg and .jpeg, are passed over. They are
turned as their EXIF says.
"""

import concurrent.futures
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from PIL import Image

from attn import settings
from attn.data import splits
from attn.data.images import labelled
from attn.data.images.labelled import Images
from attn.data.images.picture_files import (
    SUFFIXES,
    intact_of_split,
    readable,
    shown_size,
)

GREY = ("1", "L", "LA", "I", "I;16")  # modes of Pillow


class Files(NamedTuple):
    """Image files with their labels, as `Images` reads them."""

    paths: Sequence[pathlib.Path]
    labels: Sequence[int]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {
                "image": _bytes(self.paths[row]),
                "label": self.labels[row],
                "name": str(self.paths[row]),
                "upright": True,
            }
            for row in rows
        ]


def open_split(name: str, split: str, *, skip_corrupt: bool = False) -> Images:
    """Opens a split of a folder of images; remembers the last few.

    Args:
        name: the path of the folder.
        split: such as "train[:90%]".
        skip_corrupt: whether files that cannot be read are left out, and named on
            standard error; for that all of a split are read.

    Raises:
        Invalid: no such folder or split, no images in it, or a file that is none.
    """
    root = pathlib.Path(name).expanduser()
    if not root.is_dir():
        raise settings.Invalid(f"the folder of images {name!r} does not exist")
    return _open(root, split, skip_corrupt)


@functools.lru_cache(maxsize=4)
def _open(root: pathlib.Path, split: str, skip_corrupt: bool) -> Images:
    places = class_folders(root)
    class_names = tuple(sorted({c.name for place in places.values() for c in place}))
    files = {
        name: sorted(
            (path for folder in place for path in _images(folder)),
            key=hash_of,
        )
        for name, place in places.items()
    }
    if skip_corrupt:
        files = intact_of_split(files, split, labelled.read, root)
    sizes = {name: len(found) for name, found in files.items()}
    if not any(sizes.values()):
        raise settings.Invalid(
            f"the folder {str(root)!r} has no images: they are looked for as"
            " CLASS/FILE or SPLIT/CLASS/FILE, PNG or JPEG"
        )
    chosen, rows = splits.part(split, sizes, str(root))
    paths = [files[chosen][row] for row in rows]
    number = {name: label for label, name in enumerate(class_names)}
    labels = [number[path.parent.name] for path in paths]
    # of all splits, so that every part has images of the same shape
    heads = {name: _heads(tuple(found)) for name, found in files.items()}
    _, damaged = heads[chosen]
    for path in paths:
        if path in damaged:
            _shape(path)  # which says what is wrong
    shapes = set().union(*(found for found, _ in heads.values()))
    channels = max(shape[-1] for shape in shapes)
    sizes = {shape[:2] for shape in shapes}
    size = sizes.pop() if len(sizes) == 1 else (None, None)
    records = Files(paths, labels)
    return Images(
        (*size, channels), class_names, len(paths), records, None, None
    ).kept()


@functools.lru_cache(maxsize=8)
def _heads(
    paths: tuple[pathlib.Path, ...],
) -> tuple[frozenset[tuple[int, int, int]], frozenset[pathlib.Path]]:
    """The shapes of some files, and those that have none that can be read."""

    def shape(path: pathlib.Path) -> tuple[int, int, int] | None:
        try:
            return _shape(path)
        except settings.Invalid:
            return None

    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = list(pool.map(shape, paths))
    wrong = (path for path, one in zip(paths, found, strict=True) if one is None)
    return frozenset(filter(None, found)), frozenset(wrong)


def class_folders(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Folders of classes by split, ROOT/CLASS (all "train") or ROOT/SPLIT/CLASS."""
    folders = list(_folders(root))
    inner = {folder.name: list(_folders(folder)) for folder in folders}
    if any(inner.values()):
        return inner
    return {"train": folders}


def _folders(place: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in sorted(place.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            yield path


def _images(place: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in place.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            yield path


def hash_of(path: pathlib.Path) -> bytes:
    """By which files are put in order."""
    return hashlib.blake2b(os.fsencode(f"{path.parent.name}/{path.name}")).digest()


def _shape(path: pathlib.Path) -> tuple[int, int, int]:
    """Height, width and channels by the head of a file."""
    with readable(f"the image {path}"), Image.open(path) as image:
        width, height = shown_size(image)
        return height, width, 1 if image.mode in GREY else 3


def _bytes(path: pathlib.Path) -> bytes:
    with readable(f"the image {path}"):
        return path.read_bytes()
