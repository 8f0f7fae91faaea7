"""The standard augmentations of image classification, and how each is evaluated.

    none                     training images as test images
    pad_crop_flip            CIFAR: 4 black pixels on each side, a random crop of the
                             old size, mirrored or not (He et al., 2015, section 4.2)
    random_resized_crop_flip ImageNet: a random part of 8 to 100 % of the area and
                             ratio 3/4 to 4/3, resized, mirrored or not (Szegedy et
                             al., 2014, section 6); evaluation takes the centre of
                             the image whose short side is 256/224 of the crop

Everything maps images, uint8 [H, W, C] each, of one size or of many, to one uint8
array [B, h, w, C] for a size of (h, w). Resizing is Pillow's bilinear filter, which
averages when it shrinks, as torchvision's reference training does.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

PADDING = 4
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10  # as in torchvision, before the whole image is taken


Size = tuple[int, int]  # height and width


class Augmentation(NamedTuple):
    """An augmentation with its evaluation.

    train: (images, draws [B, draws] in [0, 1), size) -> [B, h, w, C].
    margin: evaluation crops the centre of images margin times as large.
    draws: random numbers that a training example takes.
    """

    train: Callable[[Iterable[np.ndarray], np.ndarray, Size], np.ndarray]
    margin: float
    draws: int


def centre_crops(
    images: Iterable[np.ndarray], size: Size, margin: float = 1.0
) -> np.ndarray:
    """The centres of images, shrunk or grown until they just cover margin * size.

    An array of images that have the right size already is returned as it is.
    """
    if (
        isinstance(images, np.ndarray)
        and images.shape[1:3] == size
        and _scaled(size, margin) == size
    ):
        return images
    return np.stack([_centre_crop(image, size, margin) for image in images])


def plain(images: Iterable[np.ndarray], draws: np.ndarray, size: Size) -> np.ndarray:
    """none: the centre, resized where the image has another size."""
    del draws
    return centre_crops(images, size)


def pad_crop_flip(
    images: Iterable[np.ndarray], draws: np.ndarray, size: Size
) -> np.ndarray:
    """A crop out of the padded image. Draws: row, column, mirrored if below 1/2."""
    images = centre_crops(images, size)
    batch, height, width, channels = images.shape
    padded = (batch, height + 2 * PADDING, width + 2 * PADDING, channels)
    padded = np.zeros(padded, np.uint8)
    padded[:, PADDING:-PADDING, PADDING:-PADDING] = images
    corners = (draws[:, :2] * (2 * PADDING + 1)).astype(np.intp)
    crops = np.empty_like(images)
    for i, (row, column) in enumerate(corners.tolist()):
        crops[i] = padded[i, row : row + height, column : column + width]
    mirrored = draws[:, 2] < 0.5
    crops[mirrored] = crops[mirrored, :, ::-1]
    return crops


def random_resized_crop_flip(
    images: Iterable[np.ndarray], draws: np.ndarray, size: Size
) -> np.ndarray:
    """A random part, resized. Draws: ten pairs (area, ratio), row, column, mirrored."""
    crops = []
    for image, draw in zip(images, draws, strict=True):
        top, left, height, width = random_part(image.shape[0], image.shape[1], draw)
        part = image[top : top + height, left : left + width]
        crop = _resize(part, size)
        crops.append(crop[:, ::-1] if draw[-1] < 0.5 else crop)
    return np.stack(crops)


def random_part(
    height: int, width: int, draws: np.ndarray
) -> tuple[int, int, int, int]:
    """First row and column, height and width of a random part of an image.

    The first of ten pairs (share of the area, ratio of width to height) whose part
    fits is taken; the ratio is drawn on a logarithmic scale. If none fits it is the
    largest centred part of an allowed ratio.
    """
    pairs = draws[: 2 * ATTEMPTS].reshape(-1, 2)
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * pairs[:, 0])
    low, high = np.log(RATIO)
    ratio = np.exp(low + (high - low) * pairs[:, 1])
    widths = np.rint(np.sqrt(area * ratio)).astype(int)
    heights = np.rint(np.sqrt(area / ratio)).astype(int)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    if fits.any():
        chosen = int(np.argmax(fits))
        part = int(heights[chosen]), int(widths[chosen])
        row, column = draws[2 * ATTEMPTS : 2 * ATTEMPTS + 2]
        top = int(row * (height - part[0] + 1))
        left = int(column * (width - part[1] + 1))
    else:
        part = (
            min(height, round(width / RATIO[0])),
            min(width, round(height * RATIO[1])),
        )
        top, left = (height - part[0]) // 2, (width - part[1]) // 2
    return top, left, *part


AUGMENTATIONS = {
    "none": Augmentation(plain, 1.0, 0),
    "pad_crop_flip": Augmentation(pad_crop_flip, 1.0, 3),
    "random_resized_crop_flip": Augmentation(
        random_resized_crop_flip, 256 / 224, 2 * ATTEMPTS + 3
    ),
}


def _centre_crop(image: np.ndarray, size: Size, margin: float) -> np.ndarray:
    shape, wanted = image.shape[:2], _scaled(size, margin)
    scale = max(wanted[0] / shape[0], wanted[1] / shape[1])
    covering = tuple(map(max, _scaled(shape, scale), wanted))
    image = _resize(image, covering)
    top, left = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def _scaled(size: Size, factor: float) -> Size:
    return round(size[0] * factor), round(size[1] * factor)


def _resize(image: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [H, W, 1 | 3] -> uint8 [h, w, 1 | 3]."""
    if image.shape[:2] == size:
        return image
    grey = image.shape[2] == 1
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
    picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(*size, -1)
