"""Transforms: pure functions of a batch and random numbers, in the order of a config.

    config.data.transforms = {
        "crop": {"size": 24, "order": 1},
        "mirrored": {"name": "flip", "order": 2},
    }

An entry says which transform it is by `name` (else the name of the entry is that), its
place by `order`, as the order of a mapping is lost in a ConfigDict, and the settings of
the transform. `order` may be left out where there is one entry.

The random numbers of an entry are keyed by the name of the entry: entries that come or
go leave the numbers of the others as they are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from attn import settings
from attn.data.source import Batch, Field, Source

# Entries that draw from the data set's own stream where it draws nothing itself, as
# they did before there were streams.
FIRST = ("pad_crop_flip", "random_resized_crop_flip")


@dataclasses.dataclass(frozen=True)
class Transform:
    """Base of transforms: a frozen dataclass of settings.

    Attributes:
        splits: "train", or "all" for validation and test too, where the random
            numbers are the same in every run.
        parts: whether it leaves parts of images in training and whole ones in
            evaluation, for models that take images of any size.
        degrades: whether it makes images worse, for a model to restore them.
    """

    splits: Literal["train", "all"] = "train"

    parts: ClassVar[bool] = False
    degrades: ClassVar[bool] = False

    def bound(self, source: Source) -> "Transform":
        """The transform with what it takes from the data set."""
        del source
        return self

    def draws(self, example: Mapping[str, Field]) -> int:
        """Random numbers that an example takes, given the example it is applied to."""
        del example
        return 0

    def sizes(self, sizes: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Height and width of the images behind it, int [B, 2]; here as before it.

        By these, images of unlike size are grouped before any of them is read.

        Args:
            sizes: of the images that it is applied to, int [B, 2].
            draws: as of `apply`; None for what the other splits get, `otherwise`, or
                `apply` where `splits` is "all".
        """
        del draws
        return sizes

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """The batch transformed; `draws` is float64 [B, draws] in [0, 1).

        An example may depend on its own draws only. Arrays of `batch` may be
        overwritten.
        """
        raise NotImplementedError

    def otherwise(self, batch: Batch) -> Batch:
        """The batch of a split that the transform does not apply to, such as a crop's
        centre; here as it is."""
        return batch


class Entry(NamedTuple):
    """A transform of a config, under its name."""

    name: str
    transform: Transform

    def stream(self, source: Source) -> str:
        """Name of the stream of random numbers."""
        return "" if self.name in FIRST and not source.draws else self.name


def create(table: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Entry, ...]:
    """The entries of `config.data.transforms`, in their order.

    Args:
        table: transforms by name.
        config: settings by entry, `name` and `order` among them.

    Raises:
        Invalid: an unknown transform, a setting that it lacks or of another type, or
            several entries without an order of their own.
    """
    found = []
    for name, given in config.items():
        if not hasattr(given, "items"):  # a ConfigDict is no collections Mapping
            raise settings.Invalid(
                f"transform {name!r} needs a mapping of its settings, got {given!r}"
            )
        rest = dict(given.items())
        kind, place = rest.pop("name", name), rest.pop("order", None)
        if place is not None and (
            isinstance(place, bool) or not isinstance(place, int)
        ):
            raise settings.Invalid(
                f"order of transform {name!r} must be an int, got {place!r}"
            )
        target = settings.choose(table, "transform", kind)
        transform = settings.build(target, "transform", name, rest)
        found.append((place, Entry(name, transform)))
    places = [place for place, _ in found]
    if len(found) > 1 and (None in places or len(set(places)) < len(places)):
        orders = ", ".join(f"{entry.name}: {place}" for place, entry in found)
        raise settings.Invalid(
            f"each of several transforms needs an `order` of its own, got {orders}"
        )
    found.sort(key=lambda pair: pair[0] or 0)
    return tuple(entry for _, entry in found)
