"""Keypoints: joints as heatmaps and back, and how right those that are found are.

Heatmaps with a Gaussian at each joint are those of Tompson et al., "Joint Training of a
Convolutional Network and a Graphical Model for Human Pose Estimation", NeurIPS 2014,
https://arxiv.org/abs/1406.2984; Newell, Yang, Deng, "Stacked Hourglass Networks for
Human Pose Estimation", ECCV 2016, https://arxiv.org/abs/1603.06937, read them off at
the maximum, moved by a quarter of a pixel; Xiao, Wu, Wei, "Simple Baselines for Human
Pose Estimation and Tracking", ECCV 2018, https://arxiv.org/abs/1804.06208, do both.

Points (x, y) are in pixels of an image, whose upper left corner is (0, 0): the centre
of its first pixel is (0.5, 0.5). A map covers the whole image, so a pixel of a map
[h, w] of an image [H, W] is H / h x W / w pixels of the image.

Differs from the released code of Newell et al. and Xiao et al.: it rounds joints to
pixels of the map before it draws Gaussians, cuts these off at three deviations, and
multiplies places in the map by the stride, which loses half a pixel of the map. Here
the middle of the Gaussian is the joint, and a place in the map is its centre.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

STEP = 0.25  # toward the higher neighbour, in pixels of a map


def gaussian_heatmaps(
    points: jax.Array, size: tuple[int, int], image: tuple[int, int], *, sigma: float
) -> jax.Array:
    """Maps with a Gaussian of height 1 at each joint: [..., J, 2] -> [..., h, w, J].

    Joints outside of the image have the part of their Gaussian that is inside.

    Args:
        points: (x, y) of joints, in pixels of the image.
        size: height and width of the maps.
        image: height and width of the image.
        sigma: standard deviation, in pixels of the maps.

    Returns:
        In float32 at least.
    """
    points = jnp.asarray(points)
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))
    falls = []
    for axis, side, length in ((1, size[0], image[0]), (0, size[1], image[1])):
        centres = jnp.arange(side, dtype=points.dtype) + 0.5
        centres = centres.reshape(*(1,) * (points.ndim - 2), side, 1)
        apart = centres - points[..., None, :, axis] * (side / length)
        falls.append(jnp.exp(-jnp.square(apart / sigma) / 2))
    rows, columns = falls
    return rows[..., :, None, :] * columns[..., None, :, :]


def decode_heatmaps(
    maps: jax.Array, image: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
    """Joints where maps are highest: [..., h, w, J] -> [..., J, 2] and [..., J].

    Along each axis a joint is a quarter of a pixel of the map away from the centre of
    the highest one, toward the higher of its two neighbours; not where these are equal,
    or where one of them is beyond the edge.

    Args:
        maps: heatmaps; of equal maxima, the first counts.
        image: height and width of the image.

    Returns:
        (x, y) in pixels of the image, and the scores, which are the maxima, in float32
        at least.
    """
    maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
    *_, height, width, joints = maps.shape
    flat = maps.reshape(*maps.shape[:-3], height * width, joints)
    best = jnp.argmax(flat, axis=-2)
    row, column = best // width, best % width

    def value(row: jax.Array, column: jax.Array) -> jax.Array:
        place = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
        return jnp.take_along_axis(flat, place[..., None, :], axis=-2)[..., 0, :]

    def moved(place: jax.Array, side: int, rise: jax.Array) -> jax.Array:
        inside = (place > 0) & (place < side - 1)
        return place + 0.5 + STEP * jnp.where(inside, jnp.sign(rise), 0)

    right = value(row, column + 1) - value(row, column - 1)
    down = value(row + 1, column) - value(row - 1, column)
    x = moved(column, width, right) * (image[1] / width)
    y = moved(row, height, down) * (image[0] / height)
    return jnp.stack([x, y], axis=-1), value(row, column)


def correct_keypoints(
    points: jax.Array, truth: jax.Array, head: jax.Array, *, share: float = 0.5
) -> jax.Array:
    """Whether joints are right by PCKh: [..., J, 2], [..., J, 2], [...] -> [..., J].

    Those are whose distance to the truth is at most `share` of the size of the head, as
    in Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art
    Analysis", CVPR 2014, where the size is 0.6 of the diagonal of the head's box. PCKh
    is the share of these among the visible joints.

    Args:
        points, truth: (x, y) of joints.
        head: size of each head, in the same unit.
        share: 0.5 for PCKh@0.5.
    """
    square = jnp.sum(jnp.square(points - truth), axis=-1)
    return square <= jnp.square(share * head)[..., None]


def keypoint_similarity(
    points: jax.Array,
    truth: jax.Array,
    visible: jax.Array,
    area: jax.Array,
    *,
    sigmas: Sequence[float],
) -> jax.Array:
    """Object keypoint similarity (OKS) of COCO, in [0, 1]: [..., J, 2] -> [...].

        sum over visible j of exp(-d_j^2 / (2 s^2 k_j^2)) / number of visible joints,

    d_j being the distance of a joint to the truth, s^2 the area of the object and
    k_j = 2 sigma_j; https://cocodataset.org/#keypoints-eval. As pycocotools computes
    it, with double precision's least step added to the area.

    Differs from pycocotools where no joint is visible: there it takes the distance to
    the object's box, enlarged to three times its sides, and here it is 0.

    Args:
        points, truth: (x, y) of joints.
        visible: bool [..., J], the joints that count.
        area: [...], of each object, in square units of the points.
        sigmas: of each of the J joints, how far people's labels of it lie apart.
    """
    square = jnp.sum(jnp.square(points - truth), axis=-1)
    square = square.astype(jnp.promote_types(square.dtype, jnp.float32))
    spread = jnp.asarray(2 * np.square(2 * np.asarray(sigmas)), square.dtype)
    area = (area + float(np.finfo(np.float64).eps))[..., None]
    room = jnp.broadcast_to(spread, square.shape) * area
    near = jnp.where(visible, jnp.exp(-square / room), 0)
    count = visible.sum(axis=-1, dtype=near.dtype)
    return near.sum(axis=-1) / jnp.maximum(count, 1)
