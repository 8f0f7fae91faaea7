"""The distorted MNIST digits of two papers, drawn on the fly.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", NeurIPS
2015, https://arxiv.org/abs/1506.02025, sections 4.1 and A.4:

    r    rotated by U(-90, 90) degrees, 28x28
    rts  rotated by U(-45, 45) degrees, scaled by U(0.7, 1.2), at a random place of
         a 42x42 canvas
    p    scaled by U(0.75, 1), then each corner moved by N(0, 5 pixels), 28x28
    e    scaled by U(0.75, 1), then 16 thin-plate-spline control points moved by
         N(0, 1.5 pixels), 28x28
    tc   at a random place of a 60x60 canvas, with six random 6x6 patches of others

and of Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NIPS
2014, https://arxiv.org/abs/1406.6247, section 4.1:

    translated  at a random place of a 60x60 canvas
    cluttered   the same with four random 8x8 patches of others

The numbers of p, e and tc are those of the appendix. What it leaves open is settled
here so: turning and scaling are about the centre of the image; in rts the scaled
frame of 28x28 stays inside the canvas when it is not turned; in p the corners are
those of the scaled frame, moved forward; in e the control points are a regular 4x4
grid from corner to corner of the output, moved backward (their moves say where the
output looks), as the spline of that direction has one matrix for all images; in tc
digit and patches lie wholly inside the canvas, and where they meet the lighter wins.

Every function maps (digits, rows, draws) to float32 [B, size, size, 1] in 0..255:
`digits` uint8 [N, 28, 28, 1] is the whole split (tc cuts its patches from it), `rows`
int [B] the digits to distort, `draws` [B, draws] numbers in [0, 1). The result of an
example depends on its own row and draws only. Sampling is bilinear, zero outside.
Where the digit is, bool [B, size, size], is where its ink is (`attn.data.digits.ink`).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from attn.data.digits import ink, warp
from attn.data.draws import integers, normal, other_rows, uniform

SIDE = 28  # of the digits
CENTRE = (SIDE - 1) / 2
CONTROL = 4  # points along an edge


def rotated(digits: np.ndarray, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """r. Draws: angle. A positive angle turns against the clock as one sees it."""
    angle = uniform(draws[:, 0], -np.pi / 2, np.pi / 2)
    still, moved = np.ones_like(angle), np.zeros((len(angle), 2))
    return _similar(digits[rows], angle, still, moved, SIDE)


def placed(digits: np.ndarray, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """rts. Draws: angle, scale, column, row."""
    canvas = 42
    angle = uniform(draws[:, 0], -np.pi / 4, np.pi / 4)
    scale = uniform(draws[:, 1], 0.7, 1.2)
    room = (canvas - SIDE * scale[:, None]) / 2
    return _similar(
        digits[rows], angle, scale, uniform(draws[:, 2:4], -room, room), canvas
    )


def projected(digits: np.ndarray, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """p. Draws: scale, then x and y of four corners, two numbers to two normals.

    Where corners move so far that the frame is no longer convex, the side of the
    horizon is shown on which the centre of the digit is.
    """
    scale = uniform(draws[:, 0], 0.75, 1.0)[:, None, None]
    frame = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) - 0.5
    corners = CENTRE + scale * (SIDE - 1) * frame
    corners = corners + 5.0 * normal(draws[:, 1:9]).reshape(-1, 4, 2)

    forward = warp.quadrilateral(corners)
    backward = np.linalg.inv(forward)
    # The third coordinate is then positive just where the forward map's is on the
    # side of the centre.
    backward *= np.sign(forward[:, 2] @ [0.5, 0.5, 1.0])[:, None, None]
    backward[:, :2] *= SIDE - 1
    return _warped(
        digits[rows], lambda part: warp.projective(backward[part], SIDE), SIDE
    )


def stretched(digits: np.ndarray, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """e. Draws: scale, then x and y of 16 points, two numbers to two normals."""
    zoom = 1 / uniform(draws[:, 0], 0.75, 1.0)
    moves = 1.5 * normal(draws[:, 1:33]).reshape(len(rows), -1, 2)
    matrix = np.zeros((len(rows), 2, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = zoom
    matrix[:, :, 2] = (CENTRE * (1 - zoom))[:, None]
    moves = (moves * zoom[:, None, None]).transpose(0, 2, 1).astype(np.float32)
    moves = np.ascontiguousarray(moves)
    basis = warp.spline_basis(CONTROL, SIDE)

    def where(part: slice) -> tuple[np.ndarray, np.ndarray]:
        # One small product an example: one of the whole batch would round as its
        # size tells, and start threads of BLAS, which wait for busy cores.
        shift = (moves[part] @ basis).reshape(-1, 2, SIDE, SIDE)
        x, y = warp.affine(matrix[part], SIDE)
        x += shift[:, 0]
        y += shift[:, 1]
        return x, y

    return _warped(digits[rows], where, SIDE)


def cluttered(
    digits: np.ndarray,
    rows: np.ndarray,
    draws: np.ndarray,
    patches: int,
    side: int,
) -> np.ndarray:
    """tc, translated and cluttered, by how many patches there are, of which side.

    Draws: column and row of the digit; of each patch which other digit, its column and
    row there, its column and row on the canvas.
    """
    canvas = 60
    image = _alone(digits, rows, draws, canvas)
    draws = draws[:, 2:].reshape(len(rows), patches, 5)
    other = other_rows(draws[..., 0], rows, len(digits))
    source = integers(draws[..., 1:3], SIDE - side + 1)
    target = integers(draws[..., 3:5], canvas - side + 1)
    for k in range(patches):  # one after the other, as they may overlap
        patch = digits.reshape(-1)[warp.windows(other[:, k], source[:, k], side, SIDE)]
        at = warp.windows(np.arange(len(rows)), target[:, k], side, canvas)
        image.reshape(-1)[at] = np.maximum(image.reshape(-1)[at], patch)
    return image[..., None].astype(np.float32)


def inked(
    digits: np.ndarray, rows: np.ndarray, draws: np.ndarray, image: np.ndarray
) -> np.ndarray:
    """Mask of the digit in an image that holds nothing else."""
    del digits, rows, draws
    return image[..., 0] >= ink.INK


def uncluttered(
    digits: np.ndarray, rows: np.ndarray, draws: np.ndarray, image: np.ndarray
) -> np.ndarray:
    """Mask of the digit among patches."""
    return _alone(digits, rows, draws, image.shape[1]) >= ink.INK


def _alone(
    digits: np.ndarray, rows: np.ndarray, draws: np.ndarray, canvas: int
) -> np.ndarray:
    """The digits of tc before there are patches: uint8 [B, canvas, canvas]."""
    image = np.zeros((len(rows), canvas, canvas), np.uint8)
    place = integers(draws[:, :2], canvas - SIDE + 1)
    at = warp.windows(np.arange(len(rows)), place, SIDE, canvas)
    image.reshape(-1)[at] = digits[rows, :, :, 0]
    return image


class Distortion(NamedTuple):
    """A distortion, and what the pipeline must know of it.

    apply: (digits, rows, draws) -> float32 [B, size, size, 1].
    size: side of the output, pixels.
    draws: random numbers that an example takes.
    objects: (digits, rows, draws, image) -> where the digit is, bool [B, size, size].
    """

    apply: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    size: int
    draws: int
    objects: Callable[..., np.ndarray] = inked


def _clutter(patches: int, side: int) -> Distortion:
    apply = functools.partial(cluttered, patches=patches, side=side)
    return Distortion(apply, 60, 2 + 5 * patches, uncluttered)


DISTORTIONS = {
    "cluttered": _clutter(4, 8),
    "e": Distortion(stretched, SIDE, 1 + 2 * CONTROL**2),
    "p": Distortion(projected, SIDE, 9),
    "r": Distortion(rotated, SIDE, 1),
    "rts": Distortion(placed, 42, 4),
    "tc": _clutter(6, 6),
    "translated": _clutter(0, 1),
}


def _similar(
    images: np.ndarray,
    angle: np.ndarray,
    scale: np.ndarray,
    moved: np.ndarray,
    size: int,
) -> np.ndarray:
    """Turned by `angle` [B], scaled by `scale` [B], moved by (x, y) [B, 2]."""
    origin = (size - 1) / 2 + moved
    matrix = warp.similar(angle, scale, origin, np.array([CENTRE, CENTRE]))
    return _warped(images, lambda part: warp.affine(matrix[part], size), size)


def _warped(images: np.ndarray, where: warp.Where, size: int) -> np.ndarray:
    return warp.warped(images[..., 0], where, size)[..., None]
