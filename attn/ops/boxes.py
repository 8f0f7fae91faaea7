"""Boxes: conversions, areas, and how far two boxes overlap.

Intersection over union (IoU), and the generalised one of Rezatofighi et al.,
"Generalized Intersection over Union", CVPR 2019, https://arxiv.org/abs/1902.09630,
algorithm 1, whose gradient does not vanish where boxes lie apart.

A box is (x0, y0, x1, y1), its left upper and right lower corner, in any unit, x1 and y1
being outside; "centred" boxes are (cx, cy, w, h). A box with x1 < x0 or y1 < y0 has no
area and meets nothing.

Differs from the paper: where a quotient is 0 / 0 it is 0, with gradient 0. So two boxes
without area have an IoU of 0, and those whose common hull has no area a GIoU of 0; all
gradients of finite boxes are finite.
"""

import jax
import jax.numpy as jnp

# Of a divisor, below which it counts as 0: its square is still a normal float32.
LEAST = 1e-18


def corners(centred: jax.Array) -> jax.Array:
    """(cx, cy, w, h) [..., 4] -> (x0, y0, x1, y1) [..., 4]."""
    centre, half = centred[..., :2], centred[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def centred(boxes: jax.Array) -> jax.Array:
    """(x0, y0, x1, y1) [..., 4] -> (cx, cy, w, h) [..., 4]."""
    first, last = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(first + last) / 2, last - first], axis=-1)


def area(boxes: jax.Array) -> jax.Array:
    """Areas of boxes: [..., 4] -> [...], in float32 at least."""
    boxes = _exact(boxes)
    return _extent(boxes[..., :2], boxes[..., 2:])


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """IoU of boxes with boxes, in [0, 1]: [..., 4], [..., 4] -> [...].

    Shapes are broadcast. In float32 at least.
    """
    common, union, _ = _areas(a, b)
    return _over(common, union)


def giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised IoU of boxes with boxes, in [-1, 1]: [..., 4], [..., 4] -> [...].

    The IoU, less the share of the common hull that neither of them covers. Shapes are
    broadcast. In float32 at least.
    """
    common, union, hull = _areas(a, b)
    return _over(common, union) - _over(hull - union, hull)


def pairwise_iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """IoU of each box with each: [..., N, 4], [..., M, 4] -> [..., N, M]."""
    return iou(a[..., :, None, :], b[..., None, :, :])


def pairwise_giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """GIoU of each box with each: [..., N, 4], [..., M, 4] -> [..., N, M]."""
    return giou(a[..., :, None, :], b[..., None, :, :])


def _areas(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of the intersection, the union and the hull, each [...]."""
    a, b = _exact(a), _exact(b)
    starts, ends = (a[..., :2], b[..., :2]), (a[..., 2:], b[..., 2:])
    common = _extent(jnp.maximum(*starts), jnp.minimum(*ends))
    hull = _extent(jnp.minimum(*starts), jnp.maximum(*ends))
    return common, area(a) + area(b) - common, hull


def _extent(first: jax.Array, last: jax.Array) -> jax.Array:
    """Area between two corners, [..., 2] each; 0 if they are the wrong way round."""
    sides = jnp.maximum(last - first, 0)
    return sides[..., 0] * sides[..., 1]


def _over(part: jax.Array, whole: jax.Array) -> jax.Array:
    nothing = whole < LEAST
    return jnp.where(nothing, 0, part / jnp.where(nothing, 1, whole))


def _exact(boxes: jax.Array) -> jax.Array:
    boxes = jnp.asarray(boxes)
    return boxes.astype(jnp.promote_types(boxes.dtype, jnp.float32))
