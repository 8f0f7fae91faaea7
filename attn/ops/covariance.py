"""Covariance pooling, and the square root of the covariance by Newton-Schulz.

Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by
Iterative Matrix Square Root Normalization" (iSQRT-COV), CVPR 2018,
https://arxiv.org/abs/1712.01034, equations 1 and 3 to 7.

Products are taken in full precision: what is lost in one iteration is not recovered
in the next. Letters in shapes: B examples, P positions, C channels.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

Norm = Literal["trace", "frobenius"]
# A matrix of a smaller norm is divided by this one, so that zero stays zero.
SMALLEST_NORM = 1e-12


def covariance_pool(x: jax.Array) -> jax.Array:
    """The covariance of the channels over all positions, (1/P) sum_p d_p d_p^T.

    d_p = x_p - mean_p x_p; divided by P, not by P - 1, as in the paper.

    Args:
        x: features [B, ..., C], such as a map [B, H, W, C].

    Returns:
        [B, C, C], at least float32.

    Raises:
        ValueError: no axis of positions.
    """
    if x.ndim < 3:
        raise ValueError(
            f"covariance is pooled over positions of [B, ..., C], got {x.shape}"
        )
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    places = tuple(range(1, x.ndim - 1))
    x = x - jnp.mean(x, axis=places, keepdims=True)
    total = jnp.einsum("b...c,b...d->bcd", x, x, precision=jax.lax.Precision.HIGHEST)
    return total / math.prod(x.shape[1:-1])


def newton_schulz_sqrt(
    a: jax.Array, *, iterations: int = 5, norm: Norm = "trace"
) -> jax.Array:
    """The square root of positive semi-definite matrices, by products alone.

    Y_0 = A / n, Z_0 = I; Y_k = Y (3 I - Z Y) / 2, Z_k = (3 I - Z Y) Z / 2; the result
    is sqrt(n) Y_K. The norm n brings all eigenvalues into [0, 1], where the iteration
    converges; sqrt(n) gives back their size. Gradients are those of the iterations,
    finite where eigenvalues are zero or equal, also at the matrix zero.

    Args:
        a: symmetric positive semi-definite matrices [..., C, C].
        iterations: K; the paper uses 5. With 0 the result is A / sqrt(n).
        norm: n, the "trace" of A or its "frobenius" norm, which is smaller, so that it
            needs fewer iterations.

    Returns:
        [..., C, C], at least float32.

    Raises:
        ValueError: matrices that are not square, fewer than 0 iterations, or an
            unknown norm.
    """
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"a square root is of matrices [..., C, C], got {a.shape}")
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    a = a.astype(jnp.promote_types(a.dtype, jnp.float32))
    size = _norm(a, norm)[..., None, None]
    three = jnp.broadcast_to(3 * jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    y, z = a / size, None  # None stands for the identity
    for k in range(iterations):
        step = (three - (y if z is None else _product(z, y))) / 2
        y = _product(y, step)
        if k + 1 < iterations:  # nobody reads the last Z
            z = step if z is None else _product(step, z)
    return jnp.sqrt(size) * y


def upper_triangle(a: jax.Array) -> jax.Array:
    """The entries on and above the diagonal, row by row: [..., C, C] to [..., N].

    N = C (C + 1) / 2: all that a symmetric matrix holds.
    """
    rows, columns = jnp.triu_indices(a.shape[-1])
    return a[..., rows, columns]


def _norm(a: jax.Array, norm: Norm) -> jax.Array:
    """The norm of each matrix, at least SMALLEST_NORM, with a gradient also at zero."""
    if norm == "trace":
        return jnp.maximum(jnp.trace(a, axis1=-2, axis2=-1), SMALLEST_NORM)
    if norm == "frobenius":
        # The square of a large entry is no float32; the largest one becomes 1, so that
        # the sum is below 1 for matrices that are almost zero alone.
        largest = jnp.max(jnp.abs(a), axis=(-2, -1), keepdims=True)
        largest = jax.lax.stop_gradient(jnp.maximum(largest, SMALLEST_NORM))
        square = jnp.sum(jnp.square(a / largest), axis=(-2, -1))
        return largest[..., 0, 0] * jnp.sqrt(jnp.maximum(square, 0.5))
    raise ValueError(f"norm must be 'trace' or 'frobenius', got {norm!r}")


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
