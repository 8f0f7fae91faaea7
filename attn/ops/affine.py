"""Affine maps of the plane: their inverses, and points that they move.

A map theta [B, 2, 3] takes (x, y) to theta (x, y, 1)^T, as in `attn.ops.grid`. The
inverse is that of the spatial de-transformer of Fang, Xie, Tai, Lu, "RMPE: Regional
Multi-Person Pose Estimation", ICCV 2017, https://arxiv.org/abs/1612.00137, equations 2
to 4: with theta = [A t] it is [A^-1, -A^-1 t].

As in `attn.ops.grid`, no matrix product in an accelerator's default precision.
"""

import jax
import jax.numpy as jnp

SMALLEST_RATIO = 1e-6
SMALLEST = 1e-12


def invert_affine(theta: jax.Array) -> jax.Array:
    """The inverse maps: theta [B, 2, 3] -> [B, 2, 3], at least float32.

    What the inverse of [A t] returns is adj(A) / det(A), where det(A) is kept away from
    0: at least 1e-6 |A|^2 / 2 in size, |A|^2 being the sum of squares, and at least
    1e-12, with its sign (a plus where it is 0). So a map that is singular, or less
    than 1e-6 as wide in one direction as in the other, has no inverse, but values that
    are large and finite, as their gradients are; zeros where A is 0. Others, however
    small, are inverted to rounding; a bound does not depend on theta in gradients.

    Raises:
        ValueError: `theta` of another shape.
    """
    _check(theta)
    theta = theta.astype(jnp.promote_types(theta.dtype, jnp.float32))
    (a, b, x), (c, d, y) = (theta[:, row].T for row in range(2))
    determinant = a * d - b * c
    least = SMALLEST_RATIO / 2 * jnp.sum(theta[..., :2] ** 2, axis=(1, 2))
    least = jax.lax.stop_gradient(jnp.maximum(least, SMALLEST))
    least = jnp.where(determinant < 0, -least, least)
    below = jnp.where(jnp.abs(determinant) < jnp.abs(least), least, determinant)
    rows = [d, -b, b * y - d * x], [-c, a, c * x - a * y]
    return (
        jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=1)
        / (below[:, None, None])
    )


def move_points(theta: jax.Array, points: jax.Array) -> jax.Array:
    """Points (x, y) moved by a map each: [B, 2, 3], [B, ..., 2] -> [B, ..., 2].

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(theta)
    if points.shape[:1] != theta.shape[:1] or points.shape[-1:] != (2,):
        raise ValueError(
            f"points are [B, ..., 2] with B = {len(theta)}, got {list(points.shape)}"
        )
    theta = theta.reshape(len(theta), *[1] * (points.ndim - 2), 2, 3)
    x, y = points[..., :1], points[..., 1:]
    return theta[..., 0] * x + theta[..., 1] * y + theta[..., 2]


def _check(theta: jax.Array) -> None:
    if theta.ndim != 3 or theta.shape[1:] != (2, 3):
        raise ValueError(f"an affine theta is [B, 2, 3], got {list(theta.shape)}")
