"""Pooling: averages to a size that is given, and the largest value over whole axes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def adaptive_average_pool(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Means of the cells of a grid over a map, as torch's `adaptive_avg_pool2d`.

    Cell i of h along H pixels are those from floor(i H / h) to ceil((i + 1) H / h), so
    that cells overlap where h does not divide H, and repeat pixels where h > H.

    Args:
        x: [B, H, W, C].
        size: (h, w).

    Returns:
        [B, h, w, C], of the type of x, summed in at least float32.
    """
    exact = jnp.promote_types(x.dtype, jnp.float32)
    rows, columns = (
        jnp.asarray(_cells(to, of), exact)
        for to, of in zip(size, x.shape[1:3], strict=True)
    )
    precise = {"precision": jax.lax.Precision.HIGHEST}
    y = jnp.einsum("hH,bHWc->bhWc", rows, x.astype(exact), **precise)
    return jnp.einsum("wW,bhWc->bhwc", columns, y, **precise).astype(x.dtype)


@functools.cache
def _cells(cells: int, length: int) -> np.ndarray:
    """The share of each pixel in each cell, [cells, length]; rows sum to 1."""
    first = np.arange(cells) * length // cells
    end = -(-(np.arange(cells) + 1) * length // cells)
    place = np.arange(length)
    inside = (place >= first[:, None]) & (place < end[:, None])
    return inside / inside.sum(axis=1, keepdims=True)


def largest(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """The largest value over axes, whose gradient goes to the first place that has it.

    `jnp.max` finds the places for the gradient by comparing x with the result. Where
    XLA makes x anew for that, in another loop than before, a rounding may differ, so
    that no place is equal and the gradient is 0 / 0. Here a place is told by its
    number. Of equal values the first one gets all, as in torch's max pooling;
    `jnp.max` shares it among them.

    Args:
        x: of any shape.
        axis: one axis, or several that follow one another.

    Raises:
        ValueError: there is another axis between those.
    """
    axes = sorted(n % x.ndim for n in np.atleast_1d(axis))
    first, end = axes[0], axes[-1] + 1
    if axes != list(range(first, end)):
        raise ValueError(f"axis must be axes that follow one another, got {axis}")
    values = math.prod(x.shape[first:end])
    return _largest(x.reshape(*x.shape[:first], values, *x.shape[end:]), first)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest(x: jax.Array, axis: int) -> jax.Array:
    return jnp.max(x, axis)


@_largest.defjvp
def _of_the_place(axis, primals, tangents):
    (x,), (tangent,) = primals, tangents
    place = jnp.argmax(x, axis, keepdims=True)
    there = jax.lax.broadcasted_iota(place.dtype, x.shape, axis) == place
    return _largest(x, axis), jnp.where(there, tangent, 0).sum(axis)
