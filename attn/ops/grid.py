"""Sampling grids: the place in the input that each position of an output reads.

A grid is [B, H, W, 2] and holds (x, y), x along the width, in units in which the
input spans [-1, 1]: with `align_corners` from the centre of its first to the centre
of its last pixel, without from its outer edge to its outer edge. The grids of
Jaderberg et al., "Spatial Transformer Networks", NIPS 2015,
https://arxiv.org/abs/1506.02025, equation 1 and section 3.2, with the two
conventions of `torch.nn.functional.affine_grid`. `attn.ops.sample` reads them.

Letters: B batch, H and W height and width of the output, K control points.

Nothing here is a matrix product in the accelerator's default precision, in which a
position would be off by a tenth of a pixel.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST_DENOMINATOR = 1e-6


def regular_grid(size: tuple[int, int], *, align_corners: bool) -> np.ndarray:
    """The places of the pixels themselves, float64 [H, W, 2]; a single one is at 0."""
    height, width = size
    x, y = np.meshgrid(_places(width, align_corners), _places(height, align_corners))
    return np.stack([x, y], axis=-1)


def _places(length: int, align_corners: bool) -> np.ndarray:
    if align_corners:
        return np.zeros(1) if length == 1 else np.linspace(-1, 1, length)
    return (2 * np.arange(length) + 1) / length - 1


def between_edges(grid: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The same places in units of outer edges, of those in units of pixel centres.

    Args:
        grid: [..., 2], made with `align_corners`.
        size: (H, W) of the map that it reads.
    """
    height, width = size
    x, y = grid[..., 0] * (width - 1) / width, grid[..., 1] * (height - 1) / height
    return jnp.stack([x, y], axis=-1)


def affine_grid(
    theta: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
    """Grid of an affine map: (x, y) read at (x', y') is theta (x', y', 1)^T.

    Args:
        theta: [B, 2, 3]; the identity is [[1, 0, 0], [0, 1, 0]].
        size: (H, W) of the output.
        align_corners: which points of the map -1 and 1 are, see above.

    Returns:
        [B, H, W, 2], at least float32. The identity gives `regular_grid` exactly.

    Raises:
        ValueError: `theta` of another shape.
    """
    if theta.ndim != 3 or theta.shape[1:] != (2, 3):
        raise ValueError(f"an affine theta is [B, 2, 3], got {list(theta.shape)}")
    theta, x, y = _prepare(theta, size, align_corners)
    return jnp.stack([_row(theta[:, 0], x, y), _row(theta[:, 1], x, y)], axis=-1)


def projective_grid(
    theta: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
    """Grid of a projective map: (x, y, 1) is proportional to theta (x', y', 1)^T.

    Where the denominator is closer to 0 than 1e-6 (a point at infinity), it is taken
    to be 1e-6 with its sign, so that values and gradients stay finite. Points with
    a negative denominator are read too.

    Args:
        theta: [B, 3, 3], or [B, 8] row by row with a last entry of 1.
        size: (H, W) of the output.
        align_corners: which points of the map -1 and 1 are, see above.

    Returns:
        [B, H, W, 2], at least float32. The identity gives `regular_grid` exactly.

    Raises:
        ValueError: `theta` of another shape.
    """
    if theta.ndim == 2 and theta.shape[1] == 8:
        theta = jnp.pad(theta, ((0, 0), (0, 1)), constant_values=1)
        theta = theta.reshape(theta.shape[0], 3, 3)
    if theta.ndim != 3 or theta.shape[1:] != (3, 3):
        shape = list(theta.shape)
        raise ValueError(f"a projective theta is [B, 3, 3] or [B, 8], got {shape}")
    theta, x, y = _prepare(theta, size, align_corners)
    below = _row(theta[:, 2], x, y)
    smallest = jnp.where(below < 0, -SMALLEST_DENOMINATOR, SMALLEST_DENOMINATOR)
    below = jnp.where(jnp.abs(below) < SMALLEST_DENOMINATOR, smallest, below)
    above = [_row(theta[:, 0], x, y), _row(theta[:, 1], x, y)]
    return jnp.stack(above, axis=-1) / below[..., None]


def _prepare(
    theta: jax.Array, size: tuple[int, int], align_corners: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`theta` in at least float32, and x and y of the output, [1, H, W]."""
    dtype = jnp.promote_types(theta.dtype, jnp.float32)
    target = jnp.asarray(regular_grid(size, align_corners=align_corners), dtype)
    return theta.astype(dtype), target[None, ..., 0], target[None, ..., 1]


def _row(row: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """One row of a matrix, [B, 3], times (x, y, 1)^T: [B, H, W]."""
    a, b, c = (row[:, i, None, None] for i in range(3))
    return a * x + b * y + c


def control_grid(side: int) -> np.ndarray:
    """The side x side control points of `thin_plate_grid`, row by row, [K, 2].

    They lie at equal distances from corner to corner of [-1, 1]^2 in either
    convention, x fastest.
    """
    return regular_grid((side, side), align_corners=True).reshape(-1, 2)


def thin_plate_grid(
    points: jax.Array, size: tuple[int, int], *, align_corners: bool
) -> jax.Array:
    """Grid of the thin plate spline that takes `control_grid` to `points`.

    Of all maps through the control points it bends least (Bookstein, "Principal
    Warps", 1989). It is linear in `points`, so that the system is solved in float64
    when the function is traced, and a grid is one product with a constant [H W, K].

    Args:
        points: [B, K, 2], the place (x, y) read at each control point; K is the
            square of at least 2.
        size: (H, W) of the output.
        align_corners: which points of the map -1 and 1 are, see above.

    Returns:
        [B, H, W, 2], at least float32. Points that are `control_grid` itself give
        `regular_grid` exactly.

    Raises:
        ValueError: `points` of another shape, or K not a square of at least 2.
    """
    side = math.isqrt(points.shape[1]) if points.ndim == 3 else 0
    if side < 2 or points.shape[1:] != (side * side, 2):
        raise ValueError(
            "thin plate points are [B, K, 2] with K = 4, 9, 16, ..., got"
            f" {list(points.shape)}"
        )
    dtype = jnp.promote_types(points.dtype, jnp.float32)
    target = regular_grid(size, align_corners=align_corners)
    weights = jnp.asarray(_thin_plate_weights(side, target.reshape(-1, 2)), dtype)
    # In displacements, so that rounding is relative to how far a point moved.
    moved = points.astype(dtype) - jnp.asarray(control_grid(side), dtype)[None]
    moved = jnp.einsum(
        "pk,bkc->bpc", weights, moved, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.asarray(target, dtype)[None] + moved.reshape(moved.shape[0], *size, 2)


def _thin_plate_weights(side: int, places: np.ndarray) -> np.ndarray:
    """How far each control point drags each place [P, 2] along, float64 [P, K]."""
    control = control_grid(side)
    count = len(control)
    affine = np.concatenate([np.ones((count, 1)), control], axis=1)
    system = np.block(
        [[_bending(control, control), affine], [affine.T, np.zeros((3, 3))]]
    )
    values = np.eye(count + 3)[:, :count]
    basis = [_bending(places, control), np.ones((len(places), 1)), places]
    return np.concatenate(basis, axis=1) @ np.linalg.solve(system, values)


def _bending(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """r^2 log r^2 for each pair of points, 0 where they meet."""
    square = np.sum((a[:, None] - b[None]) ** 2, axis=-1)
    return square * np.log(np.where(square > 0, square, 1))
