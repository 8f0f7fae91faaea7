"""Augmentations and sizes of images, and what evaluation does instead.

    pad_crop_flip            CIFAR: 4 black pixels on each side, a random crop of the
                             old size, mirrored or not (He et al., 2015, section 4.2)
    random_resized_crop_flip ImageNet: a random part of 8 to 100 % of the area and
                             ratio 3/4 to 4/3, resized, mirrored or not (Szegedy et
                             al., 2014, section 6); evaluation takes the centre of
                             the image whose short side is 256/224 of the crop
    crop, flip               parts of these
    resize_pad               the whole image, resized and with black bars
    noise                    Gaussian noise

Boxes and masks of objects move along, and joints when images are mirrored
(`attn.data.images.geometry`).
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np

from attn import settings
from attn.data import order
from attn.data.draws import integers, normal
from attn.data.images import geometry
from attn.data.images.geometry import Size
from attn.data.source import Batch, Field, Source
from attn.data.transforms import Transform

ATTEMPTS = 10  # of a random part, as in torchvision, before the whole image is taken
IMAGE = ("image",)


@dataclasses.dataclass(frozen=True)
class Crop(Transform):
    """crop: a crop at a random place, in evaluation the centre.

    Attributes:
        size: side of the crop, pixels; None for that of the image, with padding.
        padding: black pixels added on each side before.
        fields: the images, cropped alike.
    """

    size: settings.Positive | None = None
    padding: settings.Count = 0
    fields: tuple[str, ...] = IMAGE

    def draws(self, example: Mapping[str, Field]) -> int:
        """Row and column."""
        del example
        return 2

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Random crops."""
        size, room = self._room(batch)
        corners = integers(draws, room + 1)
        return geometry.crop(batch, self.fields, corners, size, self.padding)

    def otherwise(self, batch: Batch) -> Batch:
        """The centres."""
        size, room = self._room(batch)
        corners = np.tile(room // 2, (len(batch[self.fields[0]]), 1))
        return geometry.crop(batch, self.fields, corners, size, self.padding)

    def sizes(self, sizes: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Those of the crops."""
        del draws
        if self.size is None:
            return sizes
        return np.full_like(sizes, self.size)

    def _room(self, batch: Batch) -> tuple[Size, np.ndarray]:
        """Size of a crop, and the last row and column at which one may begin."""
        geometry.planes(batch, self.fields)
        shape = batch[self.fields[0]].shape[1:3]
        size = shape if self.size is None else (self.size, self.size)
        room = np.array(shape) + 2 * self.padding - size
        if (room < 0).any():
            raise settings.Invalid(
                f"a crop of {self.size} pixels needs images as large, got"
                f" {shape[0]}x{shape[1]} with padding {self.padding}"
            )
        return size, room


@dataclasses.dataclass(frozen=True)
class Flip(Transform):
    """flip: images mirrored left to right, each with a probability.

    Of data with `joint_names`, left joints become right ones and right ones left.
    Captions stay as they are: those of "digits_scene", which say what is left of what,
    are wrong of an image that is mirrored.

    Attributes:
        probability: 0 to 1.
        fields: the images, mirrored alike.
    """

    probability: Annotated[float, settings.Range("a number in [0, 1]", 0, 1)] = 0.5
    fields: tuple[str, ...] = IMAGE

    _joints: ClassVar[tuple[int, ...] | None] = None  # what each is in a mirror

    def bound(self, source: Source) -> Transform:
        """The transform with what each joint of the data set is in a mirror."""
        names = source.facts.get("joint_names")
        if names is None:
            return self
        bound = copy.copy(self)
        object.__setattr__(
            bound, "_joints", geometry.other_sides(names)
        )  # it is frozen
        return bound

    def draws(self, example: Mapping[str, Field]) -> int:
        """One: mirrored if below the probability."""
        del example
        return 1

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Some mirrored."""
        which = draws[:, 0] < self.probability
        return geometry.mirror(batch, self.fields, which, self._joints)


@dataclasses.dataclass(frozen=True)
class PadCropFlip(Transform):
    """pad_crop_flip: as the head of this file says.

    Attributes:
        padding: black pixels on each side.
        fields: the images, cropped and mirrored alike.
    """

    padding: settings.Positive = 4
    fields: tuple[str, ...] = IMAGE

    def draws(self, example: Mapping[str, Field]) -> int:
        """Row, column, mirrored if below 1/2."""
        del example
        return 3

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Random crops of the padded images, half of them mirrored."""
        batch = Crop(padding=self.padding, fields=self.fields).apply(
            batch, draws[:, :2]
        )
        return Flip(fields=self.fields).apply(batch, draws[:, 2:])


@dataclasses.dataclass(frozen=True)
class RandomResizedCropFlip(Transform):
    """random_resized_crop_flip: as the head of this file says; of field "image".

    Attributes:
        size: side of the result, pixels.
        area: range of the share of the image's area.
        ratio: range of width to height.
        margin: evaluation crops the centre of images margin times as large.
    """

    size: settings.Positive = 224
    area: tuple[settings.PositiveFloat, settings.PositiveFloat] = (0.08, 1.0)
    ratio: tuple[settings.PositiveFloat, settings.PositiveFloat] = (3 / 4, 4 / 3)
    margin: Annotated[float, settings.Range("a number of at least 1", 1)] = 256 / 224

    def __post_init__(self) -> None:
        for name, (low, high) in (("area", self.area), ("ratio", self.ratio)):
            if low > high or (name == "area" and high > 1):
                raise settings.Invalid(f"{name} is not a range: {low} to {high}")

    def draws(self, example: Mapping[str, Field]) -> int:
        """Ten pairs (area, ratio), row, column, mirrored if below 1/2."""
        del example
        return 2 * ATTEMPTS + 3

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Random parts, resized, half of them mirrored."""
        size = (self.size, self.size)
        images, objects, scales, shifts = [], [], [], []
        for i, image in enumerate(batch["image"]):
            top, left, height, width = random_part(
                *image.shape[:2], draws[i], self.area, self.ratio
            )
            part = np.s_[top : top + height, left : left + width]
            images.append(geometry.resize(image[part], size))
            if "objects" in batch:
                objects.append(geometry.resize(batch["objects"][i][part], size))
            scales.append((self.size / width, self.size / height))
            shifts.append((-left, -top))
        scale = np.array(scales)
        found = {**geometry.off_disk(batch), "image": np.stack(images)}
        found |= geometry.moved_boxes(batch, scale, scale * shifts, size)
        if objects:
            found["objects"] = np.stack(objects)
        return geometry.mirror(found, IMAGE, draws[:, -1] < 0.5)

    def sizes(self, sizes: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Those of squares."""
        del draws
        return np.full_like(sizes, self.size)

    def otherwise(self, batch: Batch) -> Batch:
        """The centres."""
        return centre_crops(batch, (self.size, self.size), self.margin)


@dataclasses.dataclass(frozen=True)
class ResizePad(Transform):
    """resize_pad: the whole image resized to fit, black bars beside it; of "image".

    Attributes:
        splits: "all".
        size: side of the result, pixels.
    """

    splits: Literal["train", "all"] = "all"
    size: settings.Positive = 224

    def __post_init__(self) -> None:
        if self.splits != "all":
            raise settings.Invalid("images are resized in all splits or in none")

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Images of one size."""
        del draws
        size = (self.size, self.size)
        return _placed(batch, size, lambda shape: self.size / max(shape))

    def sizes(self, sizes: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """Those of squares."""
        del draws
        return np.full_like(sizes, self.size)


@dataclasses.dataclass(frozen=True)
class Noise(Transform):
    """noise: Gaussian noise, of its own in each pixel and channel.

    Attributes:
        deviation: of the noise, in the units of the images where it is added: of
            0..255, or of normalised ones behind `normalise`.
        field: the images.
        into: the field that is written, so that the other stays clean; "" for the same.
            It is normalised where `normalise` lists it among its fields.
    """

    deviation: settings.NotNegative = 25.0
    field: str = "image"
    into: str = ""

    degrades: ClassVar[bool] = True

    def draws(self, example: Mapping[str, Field]) -> int:
        """One a pixel and channel, and one more where that is odd.

        Of images of unlike size there is one, by which those of its pixels are drawn.
        """
        shape = geometry.shape_of(example, self.field)
        if None in shape:
            return 1
        return -(-int(np.prod(shape)) // 2) * 2

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """Noisy images, float32."""
        images = geometry.kept(batch[self.field])
        if isinstance(images, np.ndarray):
            noisy = self._noisy(images, draws)
        else:
            pairs = zip(images, draws[:, 0], strict=True)
            noisy = [self._noisy(one[None], _more(d, one.size))[0] for one, d in pairs]
        return {**batch, self.field: images, self.into or self.field: noisy}

    def _noisy(self, images: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Images of one size with noise, float32."""
        noise = normal(draws)[:, : int(np.prod(images.shape[1:]))]
        noisy = images + self.deviation * noise.reshape(images.shape)
        return noisy.astype(np.float32)

    def otherwise(self, batch: Batch) -> Batch:
        """Clean images under both names, float32."""
        images = geometry.kept(batch[self.field])
        alike = isinstance(images, np.ndarray)
        clean = [np.array(image, np.float32) for image in images]
        clean = np.stack(clean) if alike else clean
        batch = {**batch, self.field: images}
        return {**batch, self.into or self.field: clean}


def _more(draw: float, count: int) -> np.ndarray:
    """An even number of draws, at least `count`, that follow from one: [1, n]."""
    seed = int(draw * 2**53)
    return order.uniform(seed, order.ORDER, 0, 1, -(-count // 2) * 2, "noise")


def centre_crops(batch: Batch, size: Size, margin: float = 1.0) -> Batch:
    """The centres of images, shrunk or grown until they just cover margin * size.

    An array of images that have the right size already is left as it is.
    """
    images, wanted = batch["image"], _scaled(size, margin)
    if isinstance(images, np.ndarray) and images.shape[1:3] == size == wanted:
        return geometry.off_disk(batch)

    def scale(shape: Size) -> float:
        return max(wanted[0] / shape[0], wanted[1] / shape[1])

    return _placed(batch, size, scale, wanted)


def random_part(
    height: int,
    width: int,
    draws: np.ndarray,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """First row and column, height and width of a random part of an image.

    The first of ten pairs (share of the area, ratio of width to height) whose part
    fits is taken; the ratio is drawn on a logarithmic scale. If none fits it is the
    largest centred part of an allowed ratio.

    Args:
        height, width: of the image.
        draws: [2 ATTEMPTS + 2] or more: the pairs, then row and column.
        area: range of the share of the area.
        ratio: range of width to height.
    """
    pairs = draws[: 2 * ATTEMPTS].reshape(-1, 2)
    areas = height * width * (area[0] + (area[1] - area[0]) * pairs[:, 0])
    low, high = np.log(ratio)
    ratios = np.exp(low + (high - low) * pairs[:, 1])
    widths = np.rint(np.sqrt(areas * ratios)).astype(int)
    heights = np.rint(np.sqrt(areas / ratios)).astype(int)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    if fits.any():
        chosen = int(np.argmax(fits))
        part = int(heights[chosen]), int(widths[chosen])
        row, column = draws[2 * ATTEMPTS : 2 * ATTEMPTS + 2]
        top = int(row * (height - part[0] + 1))
        left = int(column * (width - part[1] + 1))
    else:
        part = (
            min(height, max(1, round(width / ratio[0]))),
            min(width, max(1, round(height * ratio[1]))),
        )
        top, left = (height - part[0]) // 2, (width - part[1]) // 2
    return top, left, *part


def _placed(batch: Batch, size: Size, scale, least: Size = (1, 1)) -> Batch:
    """Images scaled about their centres onto a canvas of `size`, black outside.

    Args:
        batch: images of any sizes.
        size: of the result.
        scale: by height and width of an image, how much it is scaled.
        least: a smallest height and width of the scaled image.
    """
    images, objects, scales, shifts = [], [], [], []
    for i, image in enumerate(batch["image"]):
        shape = image.shape[:2]
        new = tuple(map(max, _scaled(shape, scale(shape)), least))
        # How far the scaled image's corner lies inside the canvas, or outside.
        inside = [
            (canvas - n) // 2 if n <= canvas else -((n - canvas) // 2)
            for canvas, n in zip(size, new, strict=True)
        ]
        images.append(_pasted(geometry.resize(image, new), inside, size))
        if "objects" in batch:
            mask = geometry.resize(batch["objects"][i], new)
            objects.append(_pasted(mask, inside, size))
        scales.append((new[1] / shape[1], new[0] / shape[0]))
        shifts.append(inside[::-1])
    found = {**geometry.off_disk(batch), "image": np.stack(images)}
    found |= geometry.moved_boxes(batch, np.array(scales), np.array(shifts), size)
    return found | ({"objects": np.stack(objects)} if objects else {})


def _pasted(image: np.ndarray, inside: list[int], size: Size) -> np.ndarray:
    """An image cut off at, or surrounded by black on, a canvas."""
    (top, left), (height, width) = inside, size
    image = image[max(0, -top) :, max(0, -left) :][:height, :width]
    if image.shape[:2] == size:
        return image
    canvas = np.zeros((*size, *image.shape[2:]), image.dtype)
    top, left = max(0, top), max(0, left)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def _scaled(size: Size, factor: float) -> Size:
    return round(size[0] * factor), round(size[1] * factor)
