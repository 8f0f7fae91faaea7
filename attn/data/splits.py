"""Parts of splits in the words of TFDS: "train", "train[:90%]", "train[100:]"."""

import re
from collections.abc import Mapping

from attn import settings

_EDGE = r"(-?\d+%?)?"
_SPLIT = re.compile(rf"([^\[\]]+)(?:\[{_EDGE}:{_EDGE}\])?")


def part(split: str, sizes: Mapping[str, int], name: str) -> tuple[str, range]:
    """The split that is named, and which of its rows.

    Percentages are rounded to the nearest row, as TFDS does.

    Args:
        split: such as "train[:90%]".
        sizes: examples of each split that there is.
        name: of the data set, for errors.

    Raises:
        Invalid: no such split, an empty part of one, or one that reaches beyond it.
    """
    found = _SPLIT.fullmatch(split)
    if not found or found[1] not in sizes:
        valid = [*sorted(sizes), "parts such as train[:90%]"]
        raise settings.unknown(f"split of data set {name!r}", split, valid)
    size = sizes[found[1]]
    start, stop = _row(found[2], size, 0), _row(found[3], size, size)
    if start < 0 or stop > size:
        raise settings.Invalid(
            f"split {split!r} of data set {name!r} reaches beyond its {size} examples"
        )
    if start >= stop:
        raise settings.Invalid(f"split {split!r} of data set {name!r} is empty")
    return found[1], range(start, stop)


def _row(text: str | None, size: int, default: int) -> int:
    if text is None:
        return default
    row = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    return row + size if text.startswith("-") else row
