"""Crops, mirror images and resized images, with all that is tied to their places.

The fields of a batch that move together are its images (as many as a transform names),
"objects" (bool [B, H, W]), and "boxes" (float32 [B, n, 4]: the edges x0, y0, x1, y1 in
pixels, zeros where "boxes_mask" [B, n] has none). A box is cut off at the edge of the
image; one that lies outside is left out, and its class in "labels" [B, n] is -1 then.
"keypoints" and "centred" ([B, J, 2], x and y) follow when images are mirrored, with
"visible" and "centred_visible"; all else refuses them. Captions do not follow,
whatever they say of left and right. Sizes and areas of images on disk are left out of
parts of these images, and of canvases.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from attn import settings
from attn.data.source import Batch, Field

Size = tuple[int, int]  # height and width
SIDES = ("left_", "right_")  # how names of paired joints begin
ON_DISK = ("boxes_area", "image_size")  # of whole images, however they are resized
KEYPOINTS = {"keypoints": "visible", "centred": "centred_visible"}


def planes(batch: Batch, fields: Sequence[str]) -> list[str]:
    """The fields that are images or masks of places.

    Raises:
        Invalid: a field that is not there, or whose images differ in size.
    """
    present(batch, fields)
    for name in fields:
        if not isinstance(batch[name], np.ndarray):
            raise settings.Invalid(
                f"images of field {name!r} differ in size: set image_size, or put a"
                " transform before it that gives all one size"
            )
    return [*fields, *(["objects"] if "objects" in batch else [])]


def present(batch: Batch, fields: Sequence[str]) -> None:
    """Refuses a field that is not there, or is no images, and no field at all."""
    if not fields:
        raise settings.Invalid("fields must name images, got ()")
    for name in fields:
        if name not in batch:
            raise settings.unknown("field", name, batch)
        if not _are_images(batch[name]):
            raise settings.Invalid(f"the field {name!r} holds no images")


def shape_of(example: Mapping[str, Field], field: str) -> tuple[int | None, ...]:
    """The shape of the images of an example, [H, W, C]; None for a side that varies.

    Raises:
        Invalid: a field that is not there, or is no images.
    """
    if field not in example:
        raise settings.unknown("field", field, example)
    shape = example[field].shape
    if len(shape) != 3:
        raise settings.Invalid(f"the field {field!r} holds no images")
    return shape


def _are_images(values: Any) -> bool:
    """Whether values are images of one size, or several of unlike size."""
    if isinstance(values, np.ndarray):
        return values.ndim == 4
    return not isinstance(values, list) or np.ndim(values[0]) == 3


def _refuse_apart(batch: Batch, fields: Sequence[str]) -> None:
    """Refuses to move images and not what is to be made of them."""
    if "target" in batch and "target" not in fields and _are_images(batch["target"]):
        raise settings.Invalid(
            "this transform would move the images and not their 'target': give it"
            ' fields=("image", "target"), or leave it out'
        )


def kept(images: Iterable[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Images as an array, or as a list where they are of unlike size."""
    return images if isinstance(images, np.ndarray) else list(images)


def crop(
    batch: Batch, fields: Sequence[str], corners: np.ndarray, size: Size, padding: int
) -> Batch:
    """Crops of images with black pixels around them.

    Args:
        batch: of images of one size.
        fields: the images among its fields.
        corners: int [B, 2], first row and column of each in the padded image.
        size: of the crops.
        padding: black pixels on each side.
    """
    _refuse_apart(batch, fields)
    found = off_disk(batch)
    for name in planes(batch, fields):
        images = batch[name]
        count, height, width, *rest = images.shape
        padded = (count, height + 2 * padding, width + 2 * padding, *rest)
        padded = np.zeros(padded, images.dtype)
        padded[:, padding : padding + height, padding : padding + width] = images
        crops = np.empty((count, *size, *rest), images.dtype)
        for i, (row, column) in enumerate(corners.tolist()):
            crops[i] = padded[i, row : row + size[0], column : column + size[1]]
        found[name] = crops
    return found | moved_boxes(batch, 1.0, padding - corners[:, ::-1], size)


def other_sides(names: Sequence[str]) -> tuple[int, ...]:
    """Which joint each is in a mirror: "left_knee" is "right_knee", "nose" is "nose".

    Raises:
        Invalid: a joint of one side that the other does not have.
    """
    number, found = {name: i for i, name in enumerate(names)}, []
    for name in names:
        other = name
        for side, opposite in (SIDES, SIDES[::-1]):
            if name.startswith(side):
                other = opposite + name.removeprefix(side)
        if other not in number:
            raise settings.Invalid(f"joint {name!r} has no {other!r} to be mirrored to")
        found.append(number[other])
    return tuple(found)


def mirror(
    batch: Batch,
    fields: Sequence[str],
    which: np.ndarray,
    joints: Sequence[int] | None = None,
) -> Batch:
    """Images mirrored left to right, in place, where `which`, bool [B], says so.

    They may be of unlike size. Keypoints need `joints`, as of `other_sides`.
    """
    if joints is None:
        _refuse_keypoints(batch)
    present(batch, fields)
    _refuse_apart(batch, fields)
    objects = ["objects"] if "objects" in batch else []
    batch = {**batch, **{name: kept(batch[name]) for name in (*fields, *objects)}}
    for name in (*fields, *objects):
        images = batch[name]
        if isinstance(images, np.ndarray):
            images[which] = images[which, :, ::-1]
        else:
            for i in np.flatnonzero(which):
                images[i] = images[i][:, ::-1]
    width = np.array([image.shape[1] for image in batch[fields[0]]])[which, None]
    if "boxes" in batch:
        left, top, right, bottom = np.moveaxis(batch["boxes"][which], -1, 0)
        boxes = np.stack([width - right, top, width - left, bottom], axis=-1)
        there = batch["boxes_mask"][which, :, None]
        batch["boxes"][which] = np.where(there, boxes, 0)
    for points, seen in KEYPOINTS.items():
        if points in batch:
            found = batch[points][which][:, joints]
            found[..., 0] = width - found[..., 0]
            batch[points][which] = found
            batch[seen][which] = batch[seen][which][:, joints]
    return batch


def moved_boxes(
    batch: Batch, scale: float | np.ndarray, shift: np.ndarray, size: Size | np.ndarray
) -> Batch:
    """Boxes, their mask and labels when images are scaled, then moved, then cut off.

    Args:
        batch: with or without boxes.
        scale: of x and y, broadcast against [B, 2].
        shift: [B, 2], of x and y, in pixels.
        size: height and width of the result, or of each, int [B, 2].
    """
    _refuse_keypoints(batch)
    if "boxes" not in batch:
        return {}
    scale = np.broadcast_to(scale, shift.shape)
    boxes = batch["boxes"].reshape(*batch["boxes"].shape[:2], 2, 2)
    boxes = boxes * scale[:, None, None] + shift[:, None, None]
    ends = np.broadcast_to(size, shift.shape)[:, ::-1]
    boxes = np.clip(boxes, 0, ends[:, None, None])
    there = batch["boxes_mask"] & (boxes[:, :, 1] > boxes[:, :, 0]).all(axis=-1)
    boxes = np.where(there[..., None, None], boxes, 0).astype(np.float32)
    found = {"boxes": boxes.reshape(batch["boxes"].shape), "boxes_mask": there}
    if "labels" in batch:
        found["labels"] = np.where(there, batch["labels"], -1)
    return found


def off_disk(batch: Batch) -> Batch:
    """A batch without what is told of images on disk, for parts and canvases."""
    return {name: batch[name] for name in batch if name not in ON_DISK}


def _refuse_keypoints(batch: Batch) -> None:
    if "keypoints" in batch:
        raise settings.Invalid(
            "this transform does not move keypoints along: data with keypoints take"
            " noise, normalise and, if they have joint_names, flip"
        )


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """An image resized by Pillow's bilinear filter, which averages when it shrinks.

    Args:
        image: [H, W, C], or [H, W] for a mask, of which the nearest pixels are taken.
        size: of the result.
    """
    if image.shape[:2] == size:
        return image
    if image.ndim == 2:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.intp)
            for new, old in zip(size, image.shape, strict=True)
        )
        return image[rows[:, None], columns]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(_resized(image, size))
    channels = [np.asarray(_resized(c, size)) for c in np.moveaxis(image, -1, 0)]
    return np.stack(channels, axis=-1)


def _resized(image: np.ndarray, size: Size) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return picture.resize(size[::-1], Image.Resampling.BILINEAR)
