"""Whole photographs of one split, by row: embedded ones, a folder's, or a set of TFDS.

The embedded ones are carried inside packages that are needed anyway: those of
scikit-image and matplotlib are in the public domain or CC0, those of scikit-learn CC-BY
2.0 by the photographers that its README names. A photograph is in one split, so that
nothing of those that are tested on has been seen.
"""

import functools
import importlib.resources
import io
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from attn import settings
from attn.data import cache, prepare, splits
from attn.data.images import labelled, picture_files

EMBEDDED = "photographs"
SKIMAGE, SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")
MATPLOTLIB = ("matplotlib", "mpl-data/sample_data")
PHOTOGRAPHS = {  # package, folder and file, by split
    "train": {
        "camera": (*SKIMAGE, "camera.png"),
        "dahlia": (*SKLEARN, "flower.jpg"),
        "galaxies": (*SKIMAGE, "hubble_deep_field.jpg"),
        "gravel": (*SKIMAGE, "gravel.png"),
        "portrait": (*MATPLOTLIB, "grace_hopper.jpg"),
        "retina": (*SKIMAGE, "retina.jpg"),
        "rocket": (*SKIMAGE, "rocket.jpg"),
    },
    "validation": {
        "brick": (*SKIMAGE, "brick.png"),
        "cat": (*SKIMAGE, "chelsea.png"),
    },
    "test": {
        "astronaut": (*SKIMAGE, "astronaut.png"),
        "coffee": (*SKIMAGE, "coffee.png"),
        "grass": (*SKIMAGE, "grass.png"),
        "pagoda": (*SKLEARN, "china.jpg"),
    },
}


class Photographs(NamedTuple):
    """Whole photographs of one split.

    names: of each.
    sizes: height and width of each, int64 [n, 2].
    read: a row as uint8 [H, W, 3].
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    read: Callable[[int], np.ndarray]


def open_split(
    source: str, split: str, directory: str, *, skip_corrupt: bool = False
) -> Photographs:
    """Opens a split; remembers the last few.

    Args:
        source: "photographs", which are embedded; the path of a folder of PNG and JPEG
            files, ROOT/FILE (all "train") or ROOT/SPLIT/FILE; or a set of TensorFlow
            Datasets with images called "hr" or "image", such as "div2k/bicubic_x4".
        split: such as "train[:90%]".
        directory: where sets of TensorFlow Datasets lie; "" for the usual place.
        skip_corrupt: whether files of a folder that cannot be read are left out, and
            named on standard error; for that all of a split are read.

    Raises:
        Invalid: no such source or split, or a file that cannot be read.
    """
    root = pathlib.Path(source).expanduser()
    if source != EMBEDDED and (source.startswith(("/", ".", "~")) or root.is_dir()):
        return _folder(root, split, skip_corrupt)
    if skip_corrupt:
        raise settings.Invalid(
            f"skip_corrupt is for files of a folder, and source={source!r} is none"
        )
    if source == EMBEDDED:
        return _embedded(split)
    return _prepared(source, split, prepare.builder(source, directory).data_path)


@functools.lru_cache(maxsize=8)
def _embedded(split: str) -> Photographs:
    sizes = {name: len(found) for name, found in PHOTOGRAPHS.items()}
    name, rows = splits.part(split, sizes, EMBEDDED)
    chosen = list(PHOTOGRAPHS[name].items())[rows.start : rows.stop]
    encoded = []
    for _, (package, *place) in chosen:
        path = importlib.resources.files(package).joinpath(*place)
        encoded.append(path.read_bytes())
    names = tuple(name for name, _ in chosen)
    return _photographs(names, encoded.__getitem__)


@functools.lru_cache(maxsize=8)
def _folder(root: pathlib.Path, split: str, skip_corrupt: bool) -> Photographs:
    if not root.is_dir():
        raise settings.Invalid(f"the folder of images {str(root)!r} does not exist")
    inner = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    places = {place.name: place for place in inner} or {"train": root}
    files = {name: _files(place) for name, place in places.items()}
    if not any(files.values()):
        raise settings.Invalid(
            f"the folder {str(root)!r} has no images: they are looked for as FILE or"
            " SPLIT/FILE, PNG or JPEG"
        )
    if skip_corrupt:
        files = picture_files.intact_of_split(files, split, labelled.read, root)
    sizes = {name: len(found) for name, found in files.items()}
    name, rows = splits.part(split, sizes, str(root))
    paths = files[name][rows.start : rows.stop]
    names = tuple(map(str, paths))
    return _photographs(names, lambda row: paths[row].read_bytes(), upright=True)


def _files(place: pathlib.Path) -> list[pathlib.Path]:
    found = [p for p in place.iterdir() if p.suffix.lower() in picture_files.SUFFIXES]
    return sorted(path for path in found if not path.name.startswith("."))


@functools.lru_cache(maxsize=8)
def _prepared(source: str, split: str, path: Any) -> Photographs:
    """Of a prepared set of TensorFlow Datasets; sizes are kept on disk."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    parts = dict(builder.info.features.items())
    feature = next((name for name in ("hr", "image") if name in parts), None)
    if not isinstance(parts.get(feature), tfds.features.Image):
        raise settings.Invalid(
            f"data set {source!r} has no images called 'hr' or 'image', but"
            f" {', '.join(sorted(parts))}"
        )
    size = labelled.check_split(source, split, builder.info.splits)
    skipped = {
        name: tfds.decode.SkipDecoding()
        for name, part in parts.items()
        if isinstance(part, tfds.features.Image)
    }
    records = builder.as_data_source(split, decoders=skipped)
    names = tuple(f"{source} {split} {row}" for row in range(size))
    stats = [(f.name, f.stat()) for f in pathlib.Path(path).iterdir()]
    state = [(name, one.st_size, one.st_mtime_ns) for name, one in stats]
    key = (str(path), split, feature, repr(sorted(state)))
    return _photographs(names, lambda row: records[row][feature], key)


def _photographs(
    names: tuple[str, ...],
    encoded: Callable[[int], bytes],
    key: tuple[str, ...] | None = None,
    *,
    upright: bool = False,
) -> Photographs:
    """Photographs by their names and files; with a key their sizes are kept on disk.

    They are turned as their EXIF says if `upright`.
    """

    def measured() -> bytes:
        pairs = (
            labelled.size_of(encoded(row), name, upright=upright)[::-1]
            for row, name in enumerate(names)
        )
        file = io.BytesIO()
        np.save(file, np.array(list(pairs), np.int64))
        return file.getvalue()

    content = cache.kept("sizes", key, measured) if key else measured()
    sizes = np.load(io.BytesIO(content))

    def read(row: int) -> np.ndarray:
        record = {"image": encoded(row), "name": names[row], "upright": upright}
        return labelled.decoded(record, 3)

    return Photographs(names, sizes, read)
