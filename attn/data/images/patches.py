"""patches: random parts of images, turned and mirrored, for training on patches.

As super-resolution and dehazing train: Lim, Son, Kim, Nah, Lee, "Enhanced Deep Residual
Networks for Single Image Super-Resolution", CVPR Workshops 2017,
https://arxiv.org/abs/1707.02921, section 4.2 has patches of 48 pixels of the low
resolution, mirrored and turned by 90 degrees at random.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attn import settings
from attn.data.draws import integers
from attn.data.images import geometry
from attn.data.source import Batch, Field
from attn.data.transforms import Transform


@dataclasses.dataclass(frozen=True)
class Patches(Transform):
    """patches: a square at a random place; in evaluation the whole image.

    Attributes:
        splits: "train".
        size: side of the square, pixels of the first of `fields`.
        turn: whether it is mirrored and turned by 90 degrees at random, all eight ways
            being as likely.
        fields: the images, cropped alike. Those that are n times as high and wide as
            the first ones have patches of n times the size.
    """

    size: settings.Positive = 48
    turn: bool = True
    fields: tuple[str, ...] = ("image", "target")

    parts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.splits != "train":
            raise settings.Invalid(
                f"splits must be 'train', got {self.splits!r}: images are evaluated"
                " as a whole"
            )

    def draws(self, example: Mapping[str, Field]) -> int:
        """Row and column, then which of the eight ways."""
        del example
        return 3

    def sizes(self, sizes: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Those of squares, or of whole images."""
        if draws is None:
            return sizes
        self._room(sizes)
        return np.full_like(sizes, self.size)

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Squares of all fields, and of "objects" if there are any.

        Raises:
            Invalid: no such field, or boxes or keypoints, which do not move along.
        """
        geometry.present(batch, self.fields)
        for name in ("boxes", "keypoints"):
            if name in batch:
                raise settings.Invalid(
                    f"transform patches does not move {name!r} along, and the data have"
                    " them"
                )
        first = [image.shape[:2] for image in batch[self.fields[0]]]
        room = self._room(np.array(first))
        corners = integers(draws[:, :2], room + 1)
        ways = integers(draws[:, 2], 8) if self.turn else np.zeros(len(draws), int)
        found = dict(batch)
        objects = ["objects"] if "objects" in batch else []
        for name in (*self.fields, *objects):
            chosen = zip(batch[name], first, corners.tolist(), ways, strict=True)
            found[name] = np.stack([self._patch(*one) for one in chosen])
        return found

    def _room(self, sizes: np.ndarray) -> np.ndarray:
        """The last row and column at which a square may begin: int [B, 2]."""
        room = sizes - self.size
        if room.min() < 0:
            height, width = sizes[np.argmin(room.min(axis=1))].tolist()
            raise settings.Invalid(
                f"a patch of {self.size} pixels needs images as large, got"
                f" {height}x{width}"
            )
        return room

    def _patch(
        self, image: np.ndarray, first: tuple[int, int], corner: list[int], way: int
    ) -> np.ndarray:
        """A square of an image, given the size of the first field's image."""
        times = len(image) // first[0]
        row, column = (times * place for place in corner)
        side = times * self.size
        return turned(image[row : row + side, column : column + side], way)


def turned(image: np.ndarray, way: int) -> np.ndarray:
    """One of the eight ways to turn and mirror an image [H, W, ...]; 0 leaves it."""
    image = image[:, ::-1] if way & 1 else image
    image = image[::-1] if way & 2 else image
    return image.swapaxes(0, 1) if way & 4 else image
