"""Files of pictures: those that cannot be read are named, and skipped if asked."""

import concurrent.futures
import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from PIL import ExifTags, Image

from attn import settings

SUFFIXES = (".png", ".jpg", ".jpeg")
# Orientations of EXIF in which rows are shown as columns.
SIDEWAYS = (5, 6, 7, 8)


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Turns the errors by which Pillow says that a file is damaged into an Invalid.

    Args:
        what: cannot be read, in words.
    """
    try:
        yield
    except settings.Invalid:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise settings.Invalid(f"{what} cannot be read: {reason}") from error


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image that was opened, upright as its EXIF says."""
    # not that of the kind of file, which reads all of a PNG
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    width, height = image.size
    return (height, width) if orientation in SIDEWAYS else (width, height)


def intact(
    paths: Sequence[pathlib.Path], read: Callable[[pathlib.Path], Any], where: str
) -> list[pathlib.Path]:
    """The files that can be read; the others are named on standard error.

    All are read to their ends, as many a damaged file has a head that is not.

    Args:
        read: raises an Invalid for a file that cannot be read.
        where: the files are, in words.
    """

    def damaged(path: pathlib.Path) -> bool:
        try:
            read(path)
        except settings.Invalid:
            return True
        return False

    with concurrent.futures.ThreadPoolExecutor() as pool:
        skipped = list(pool.map(damaged, paths))
    if any(skipped):
        named = (str(p) for p, out in zip(paths, skipped, strict=True) if out)
        print(
            f"{where}: {sum(skipped)} of {len(paths)} files cannot be read and are"
            f" skipped: {', '.join(named)}",
            file=sys.stderr,
        )
    return [path for path, out in zip(paths, skipped, strict=True) if not out]


def intact_of_split(
    files: Mapping[str, list[pathlib.Path]],
    split: str,
    read: Callable[[pathlib.Path], Any],
    root: pathlib.Path,
) -> dict[str, list[pathlib.Path]]:
    """The files of each split of a folder, in the one that is opened `intact` ones.

    Args:
        files: by the name of their split.
        split: that is opened, such as "train[:90%]".
        read: as of `intact`.
        root: the folder.
    """
    name = split.partition("[")[0]
    if name not in files:
        return dict(files)
    return {**files, name: intact(files[name], read, f"{root}, split {name!r}")}
