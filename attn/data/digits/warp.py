"""Backward warps of a batch of grey images, vectorised in NumPy.

Coordinates are in pixels, (x, y) = (column, row), pixel centres at whole numbers, y
down. A warp asks for every pixel of the output where in the input it comes from, so
that a scale of s divides coordinates by s.

Letters: B batch, H and W of the input, h and w of the output, K control points.
"""

import functools
from collections.abc import Callable

import numpy as np

BLOCK = 25_000  # pixels that are warped at a time, a whole number of images

Where = Callable[[slice], tuple[np.ndarray, np.ndarray]]


def warped(images: np.ndarray, where: Where, size: int) -> np.ndarray:
    """Images sampled where a map says, bilinearly, zero outside.

    It works through the batch in blocks: temporary memory for a whole batch may be
    asked of the system and given back each time, which takes longer than the rest.

    Args:
        images: [B, H, W], any real type.
        where: takes a slice of the batch to x and y, as `bilinear` takes them.
        size: h = w.

    Returns:
        float32 [B, h, w].
    """
    out = np.empty((len(images), size, size), np.float32)
    block = max(1, BLOCK // size**2)
    for first in range(0, len(images), block):
        part = slice(first, first + block)
        bilinear(images[part], *where(part), out=out[part])
    return out


def bilinear(
    images: np.ndarray, x: np.ndarray, y: np.ndarray, *, out: np.ndarray
) -> None:
    """Values of images between their pixels; outside of them all is zero.

    Args:
        images: [B, H, W], any real type.
        x, y: float32 [B, h, w], where to sample, or what broadcasts to that, as
            columns and rows of their own do. They are overwritten, as copies would
            cost more than the arithmetic.
        out: float32 [B, h, w], for the result.
    """
    batch, height, width = images.shape
    # One ring of zeros makes the fall to zero at the border continuous; a second
    # row and column below and right lets the neighbours of a clipped point exist.
    stride, rows = width + 3, height + 3
    padded = np.zeros((batch, rows, stride), np.float32)
    padded[:, 1:-2, 1:-2] = images
    x += 1
    y += 1
    np.clip(x, 0, width + 1, out=x)
    np.clip(y, 0, height + 1, out=y)
    column, row = x.astype(np.int32), y.astype(np.int32)
    x -= column
    y -= row
    row *= stride
    first = np.arange(batch, dtype=np.intp)[:, None, None] * (rows * stride)
    index = (row + column) + first

    # top, then bottom, each between its left and right neighbour; then between them.
    flat = padded.reshape(-1)
    top, right = flat.take(index), flat[1:].take(index)
    right -= top
    right *= x
    top += right
    np.take(flat[stride:], index, out=out, mode="clip")
    np.take(flat[stride + 1 :], index, out=right, mode="clip")
    right -= out
    right *= x
    out += right
    out -= top
    out *= y
    out += top


def affine(matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates to which an affine map takes each pixel of a square output.

    Args:
        matrix: [B, 2, 3], (x, y) = matrix (column, row, 1).
        size: h = w.

    Returns:
        x and y, float32 [B, h, w].
    """
    matrix = matrix.astype(np.float32)
    column, row = _axes(size)
    plane = lambda i: (
        matrix[:, i, 0, None, None] * column
        + (matrix[:, i, 1, None, None] * row + matrix[:, i, 2, None, None])
    )
    return plane(0), plane(1)


def upright(
    step: np.ndarray, shift: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `affine` gives for maps that do not turn, a row and a column of it each.

    Args:
        step: [B, 2], by which x and y grow from one column and row to the next.
        shift: [B, 2], x and y of the first column and row.
        size: h = w.

    Returns:
        x, float32 [B, 1, w], and y, float32 [B, h, 1].
    """
    axis = lambda values, i: values[:, i, None, None].astype(np.float32)
    column, row = _axes(size)
    return (
        axis(step, 0) * column + axis(shift, 0),
        axis(step, 1) * row + axis(shift, 1),
    )


def similar(
    angle: np.ndarray, scale: np.ndarray, origin: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """The backward map that shows images turned and scaled about a point.

    Args:
        angle: [B], radians, positive against the clock as one sees it.
        scale: [B], above 1 enlarges.
        origin: [B, 2], (x, y) of that point in the output.
        centre: [2] or [B, 2], of the same point in the input.

    Returns:
        [B, 2, 3], as `affine` takes it.
    """
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    turn = np.array([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1)
    shift = centre - np.sum(turn * origin[:, None], axis=-1)
    return np.concatenate([turn, shift[:, :, None]], axis=2)


def projective(matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates to which a projective map takes each pixel of a square output.

    Pixels whose third homogeneous coordinate is not positive lie behind the viewer;
    they are sent far outside.

    Args:
        matrix: [B, 3, 3] on (column, row, 1), positive third coordinate in front.
        size: h = w.

    Returns:
        x and y, float32 [B, h, w].
    """
    x, y = affine(matrix[:, :2], size)
    depth, _ = affine(matrix[:, [2, 2]], size)
    np.maximum(depth, 1e-6, out=depth)
    x /= depth
    y /= depth
    return x, y


def quadrilateral(corners: np.ndarray) -> np.ndarray:
    """The projective map that takes the unit square to four points.

    Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, 2.2.3.

    Args:
        corners: [B, 4, 2], images of (0, 0), (1, 0), (0, 1), (1, 1).

    Returns:
        [B, 3, 3] on (u, v, 1), whose last entry is 1.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = np.moveaxis(corners, 0, -1)
    sum_x, sum_y = x0 - x1 - x2 + x3, y0 - y1 - y2 + y3
    area = (x1 - x3) * (y2 - y3) - (x2 - x3) * (y1 - y3)
    g = (sum_x * (y2 - y3) - (x2 - x3) * sum_y) / area
    h = ((x1 - x3) * sum_y - sum_x * (y1 - y3)) / area
    entries = [
        [x1 - x0 + g * x1, x2 - x0 + h * x2, x0],
        [y1 - y0 + g * y1, y2 - y0 + h * y2, y0],
        [g, h, np.ones_like(g)],
    ]
    return np.moveaxis(np.array(entries), -1, 0)


@functools.lru_cache(maxsize=4)
def spline_basis(side: int, size: int) -> np.ndarray:
    """Thin-plate spline: each pixel's move per control point's, float32 [K, h w].

    The thin-plate spline of Bookstein, "Principal Warps", PAMI 1989: kernel
    r^2 log r^2, with an affine part, through all control points. They are a
    regular grid of `side` by `side` from corner pixel to corner pixel, row by row.

    Args:
        side: control points along an edge, K = side^2.
        size: h = w.
    """
    edge = np.linspace(0, size - 1, side)
    points = np.stack(np.meshgrid(edge, edge), axis=-1).reshape(-1, 2)
    edge = np.arange(size, dtype=float)
    pixels = np.stack(np.meshgrid(edge, edge), axis=-1).reshape(-1, 2)

    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count] = _spline_terms(points, points)
    system[count:, :count] = system[:count, count:].T
    moves = np.eye(count + 3)[:, :count]
    basis = _spline_terms(pixels, points) @ np.linalg.solve(system, moves)
    basis = np.ascontiguousarray(basis.T, np.float32)
    basis.setflags(write=False)
    return basis


def windows(image: np.ndarray, corner: np.ndarray, side: int, width: int) -> np.ndarray:
    """Flat indices of square windows in images [N, width, width]: [B, side, side].

    Args:
        image: [B], of which image.
        corner: [B, 2], the window's first column and row.
        side: of the windows.
        width: of the images.
    """
    first = (image * width + corner[:, 1]) * width + corner[:, 0]
    inside = np.arange(side)[:, None] * width + np.arange(side)
    return first[:, None, None] + inside


def _spline_terms(at: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Kernel of each distance, then 1, x, y: [n, 2] and [K, 2] -> [n, K + 3]."""
    square = np.sum((at[:, None] - points) ** 2, axis=-1)
    kernel = square * np.log(np.where(square > 0, square, 1))
    return np.concatenate([kernel, np.ones((len(at), 1)), at], axis=1)


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Column numbers [1, 1, w] and row numbers [1, h, 1] of a square output."""
    numbers = np.arange(size, dtype=np.float32)
    return numbers[None, None, :], numbers[None, :, None]
