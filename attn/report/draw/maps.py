"""Attention maps of a point, reduced to strips of pictures: one value map an example.

Every kind of recorded attention becomes one or more strips: a heat map over the
image, a bar for each channel, a matrix, or a sampling grid. Letters: n examples,
H W positions, C channels, N heads, T targets, S sources, R rank.

A file holds the maps under names of their own and "index", which tells by JSON the
path, kind and grid of each and the names of its arrays. The examples are "images"
[n, H, W, C] in [0, 1], with "captions" [n] and where the model is "wrong" [n], or the
numbers of "labels" and "predictions" among the names in "classes". Examples that are
no images have captions alone.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from attn.report.read.damages import DAMAGES

# A deep network records one map a block; of each kind this many are shown.
MOST_OF_A_KIND = 4
# The channels of an image that are shown as red, green and blue: of two the first is
# red and the second cyan.
CHANNELS = {1: [0, 0, 0], 2: [0, 1, 1], 3: [0, 1, 2]}
NOTHING = "none"  # the class of a place without a character, in a row of classes
Form = Literal["heat", "bars", "grid", "matrix"]


@dataclasses.dataclass(frozen=True)
class Map:
    """One record of attention, as `attn.modules.capture` describes the kinds."""

    path: str
    kind: str
    grid: tuple[int, int] | None
    arrays: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Attention:
    """Attention maps on some examples.

    Attributes:
        images: of the examples [n, H, W, 3] in [0, 1]; black where there are none.
        pictured: whether the examples are images.
        captions: of each example, and whether the model is wrong about it.
        maps: of all examples.
    """

    images: np.ndarray
    pictured: bool
    captions: tuple[tuple[str, bool], ...]
    maps: tuple[Map, ...]


@dataclasses.dataclass(frozen=True)
class Strip:
    """One line of pictures.

    Attributes:
        path: where in the network it was recorded.
        what: what the values are, in words.
        form: how to draw them.
        values: [n, H, W] for heat and matrices, [n, C] for bars, [n, H, W, 2] for
            grids.
        query: the place (row, column) in [0, 1] whose attention it is, if one is.
    """

    path: str
    what: str
    form: Form
    values: np.ndarray
    query: tuple[float, float] | None = None


def load(path: pathlib.Path, most: int) -> tuple[Attention | None, str | None]:
    """The maps in a file of its first `most` examples, or None and why not."""
    if not path.is_file():
        return None, f"it has no {path.name}"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return _attention(archive, most), None
    except DAMAGES as error:
        return None, f"its {path.name} cannot be read ({type(error).__name__})"


def as_colours(images: np.ndarray) -> np.ndarray:
    """Images [n, H, W, C] as red, green and blue [n, H, W, 3] in [0, 1].

    Raises:
        ValueError: they have another shape.
    """
    images = np.nan_to_num(np.asarray(images, np.float32))
    if images.ndim != 4 or images.shape[-1] not in CHANNELS:
        raise ValueError(f"images of shape {images.shape}")
    return np.clip(images[..., CHANNELS[images.shape[-1]]], 0.0, 1.0)


def strips(attention: Attention) -> tuple[list[Strip], list[str]]:
    """The strips of a point, in network order, and remarks on what is not shown."""
    found, remarks = [], []
    chosen = _spread(attention.maps, remarks)
    for entry in chosen:
        try:
            if any(len(array) != len(attention.images) for array in entry.arrays):
                raise ValueError("it has not one map for each example")
            made = _choose(entry.kind)(entry)
        except (ValueError, IndexError, TypeError) as error:
            kind = entry.kind.replace("_", " ")
            remarks.append(f"{kind} of {entry.path} is not shown: {error}")
            continue
        found.extend(made)
    return found, remarks


def _choose(kind: str) -> Callable[[Map], list[Strip]]:
    if kind not in REDUCTIONS:
        raise ValueError("a kind without a picture")
    return REDUCTIONS[kind]


def _attention(archive: Any, most: int) -> Attention:
    index = json.loads(str(archive["index"]))
    images = as_colours(archive["images"]) if "images" in archive else None
    total = len(archive["captions"] if images is None else images)
    count = min(total, most)

    def first(key: str) -> np.ndarray:
        array = np.asarray(archive[key], np.float32)
        return np.nan_to_num(array[:count] if len(array) == total else array)

    maps = tuple(
        Map(
            path=str(entry["path"]).rpartition("/")[0] or "whole network",
            kind=str(entry["kind"]),
            grid=tuple(entry["grid"]) if entry.get("grid") else None,
            arrays=tuple(map(first, entry["keys"])),
        )
        for entry in index
    )
    return Attention(
        images=np.zeros((count, 1, 1, 3)) if images is None else images[:count],
        pictured=images is not None,
        captions=tuple(_captions(archive, count)),
        maps=maps,
    )


def _captions(archive: Any, count: int) -> list[tuple[str, bool]]:
    """Caption of each example, and whether the model is wrong about it."""
    if "captions" in archive:
        texts = [str(text) for text in archive["captions"][:count]]
        wrong = archive["wrong"] if "wrong" in archive else [False] * len(texts)
        return list(zip(texts, map(bool, wrong[: len(texts)]), strict=True))
    if "labels" not in archive:
        return [("", False)] * count
    names = [str(name) for name in archive["classes"]]
    labels, predictions = (
        [_called(label, names) for label in np.asarray(archive[key])[:count]]
        for key in ("labels", "predictions")
    )
    return [
        (f"{label} \N{RIGHTWARDS ARROW} {predicted}", label != predicted)
        for label, predicted in zip(labels, predictions, strict=True)
    ]


def _called(label: np.ndarray, names: Sequence[str]) -> str:
    """A class by its name; a row of classes as one word, without those named none."""
    classes = [
        names[i] if 0 <= i < len(names) else str(i)
        for i in np.ravel(label).astype(int).tolist()
    ]
    if np.ndim(label) == 0:
        return classes[0]
    return "".join(name for name in classes if name != NOTHING) or NOTHING


def _spread(maps: Sequence[Map], remarks: list[str]) -> list[Map]:
    """Of each kind at most MOST_OF_A_KIND maps, evenly spaced from first to last."""
    keep: set[int] = set()
    for kind in dict.fromkeys(entry.kind for entry in maps):
        places = [i for i, entry in enumerate(maps) if entry.kind == kind]
        if len(places) > MOST_OF_A_KIND:
            remarks.append(
                f"{kind.replace('_', ' ')}: {MOST_OF_A_KIND} of {len(places)} shown"
            )
            chosen = np.linspace(0, len(places) - 1, MOST_OF_A_KIND).round()
            places = [places[int(i)] for i in chosen]
        keep.update(places)
    return [entry for i, entry in enumerate(maps) if i in keep]


def _expect(values: np.ndarray, letters: str) -> np.ndarray:
    if values.ndim != len(letters):
        raise ValueError(f"its shape {values.shape} is not {' '.join(letters)}")
    return values


def _channel_gate(entry: Map) -> list[Strip]:
    """Gates [n, C], channels sorted by their mean over the images."""
    gates = _expect(entry.arrays[0], "nC")
    order = np.argsort(gates.mean(axis=0), kind="stable")
    what = f"gates of {gates.shape[1]} channels, sorted by their mean"
    return [Strip(entry.path, what, "bars", gates[:, order])]


def _spatial_map(entry: Map) -> list[Strip]:
    values = _expect(entry.arrays[0], "nHW")
    return [Strip(entry.path, f"spatial map, {_size(values)}", "heat", values)]


def _pixel_gate(entry: Map) -> list[Strip]:
    values = _expect(entry.arrays[0], "nHWC").mean(axis=-1)
    channels = entry.arrays[0].shape[-1]
    what = f"pixel gates, {_size(values)}, mean over {channels} channels"
    return [Strip(entry.path, what, "heat", values)]


def _sampling_grid(entry: Map) -> list[Strip]:
    grid = _expect(entry.arrays[0], "nHW2")
    return [Strip(entry.path, f"sampling grid, {_size(grid)}", "grid", grid)]


def _token_matrix(entry: Map) -> list[Strip]:
    """Rows of the matrix [n, N, T, S], mean over heads, for a few targets."""
    matrix = _expect(entry.arrays[0], "nNTS")

    def row(target: int) -> np.ndarray:
        return matrix[:, :, target].mean(axis=1)

    return _rows(entry, *matrix.shape[1:], row)


def _channel_matrix(entry: Map) -> list[Strip]:
    """Matrices of channels [n, N, D, D], the heads beside and below each other.

    A head's channels are its own, so that a mean over heads would mean nothing.
    """
    values = _expect(entry.arrays[0], "nNDE")
    count, heads, rows, columns = values.shape
    down = max(n for n in range(1, heads + 1) if heads % n == 0 and n * n <= heads)
    values = values.reshape(count, down, heads // down, rows, columns)
    values = values.swapaxes(2, 3).reshape(count, down * rows, -1)
    over = f", {heads} heads as {down} x {heads // down}" if heads > 1 else ""
    what = f"what {rows} channels read of {columns}{over}"
    return [Strip(entry.path, what, "matrix", values)]


def _covariance(entry: Map) -> list[Strip]:
    """How channels vary together [n, C, C], and its root."""
    both = [_expect(array, "nCC") for array in entry.arrays]
    channels = both[0].shape[1]
    names = (f"covariance of {channels} channels", "its square root")
    return [
        Strip(entry.path, what, "matrix", values)
        for what, values in zip(names, both, strict=True)
    ]


def _factors(entry: Map) -> list[Strip]:
    """Rows of the product of [n, N, T, R] and [n, N, R, S], which is never built."""
    left, right = (_expect(array, "nNTR") for array in entry.arrays)

    def row(target: int) -> np.ndarray:
        return np.einsum("bnr,bnrs->bs", left[:, :, target], right) / left.shape[1]

    return _rows(entry, left.shape[1], left.shape[2], right.shape[3], row)


def _rows(
    entry: Map,
    heads: int,
    targets: int,
    sources: int,
    row: Callable[[int], np.ndarray],
) -> list[Strip]:
    """A strip for each chosen target: over the image if the sources lie on a grid."""
    over = f", mean over {heads} heads" if heads > 1 else ""
    if entry.grid is None or entry.grid[0] * entry.grid[1] > sources:
        matrix = np.stack([row(target) for target in range(targets)], axis=1)
        return [
            Strip(entry.path, f"matrix {targets} x {sources}{over}", "matrix", matrix)
        ]
    height, width = entry.grid
    extra = sources - height * width  # tokens before the grid, such as a class token
    found = []
    for name, target, place in _queries(targets, sources, height, width):
        values = row(target)[:, extra:].reshape(-1, height, width)
        what = f"{name}, {_size(values)}{over}"
        found.append(Strip(entry.path, what, "heat", values, place))
    return found


def _queries(
    targets: int, sources: int, height: int, width: int
) -> list[tuple[str, int, tuple[float, float] | None]]:
    """The targets whose rows are shown: (name, index, place on the image).

    Where targets are the sources themselves, on their grid, these are its centre and a
    place towards the upper left; a class token in front of the grid takes the place of
    the latter. Other targets (one pooled query, words, places of a finer grid) have no
    place that is known.
    """
    extra = targets - height * width
    if targets == 1:
        return [("what the one query reads", 0, None)]
    if targets != sources:
        return [
            (f"what query {t} of {targets} reads", t, None) for t in (0, targets // 2)
        ]
    ringed = [
        (
            "what the ringed place reads",
            extra + row * width + column,
            ((row + 0.5) / height, (column + 0.5) / width),
        )
        for row, column in ((height // 2, width // 2), (height // 4, width // 4))
    ]
    if extra:
        return [("what the class token reads", 0, None), ringed[0]]
    return ringed


def _size(values: np.ndarray) -> str:
    return f"{values.shape[1]}\N{MULTIPLICATION SIGN}{values.shape[2]}"


REDUCTIONS: dict[str, Callable[[Map], list[Strip]]] = {
    "channel_gate": _channel_gate,
    "channel_matrix": _channel_matrix,
    "covariance": _covariance,
    "factors": _factors,
    "pixel_gate": _pixel_gate,
    "sampling_grid": _sampling_grid,
    "spatial_map": _spatial_map,
    "token_matrix": _token_matrix,
}
