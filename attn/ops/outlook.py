"""Outlook attention: a place mixes the window around it by weights it alone predicts.

Yuan, Hou, Jiang, Feng, Yan, "VOLO: Vision Outlooker for Visual Recognition", 2021,
https://arxiv.org/abs/2106.13112, equations 3 to 5: unfold, a product in each window,
and fold, which adds what the windows have made of one place.

Letters used in shapes:
    B batch, H x W map, h x w centres of windows, N heads, D channels of one head, K
    places of a window, row by row, k x k with k odd.
"""

import functools
import math

import jax
import jax.numpy as jnp


def outlook_attention(
    weights: jax.Array, value: jax.Array, *, stride: int = 1
) -> jax.Array:
    """Sums over windows of what they make of their values, [B, H, W, N, D].

    Beyond the border values are zero, and what is made there is left out.

    Args:
        weights: [B, h, w, N, K, K], what each place of a window reads of each of it.
        value: [B, H, W, N, D].
        stride: steps from one centre to the next, so that h is H / stride rounded up.

    Raises:
        ValueError: K is not the square of an odd number, or the centres are not those
            of the map.
    """
    size = value.shape[1:3]
    _check(weights.shape, size, stride)
    window = functools.partial(_unfold, side=_side(weights.shape[-1]), stride=stride)
    mixed = jnp.einsum(
        "bhwnij,jbhwnd->ibhwnd", weights.astype(value.dtype), window(value)
    )
    like = jax.typeof(mixed).update(shape=value.shape)
    (folded,) = jax.linear_transpose(window, like)(mixed)  # to fold
    return folded


def outlook_matrix(
    weights: jax.Array, size: tuple[int, int], *, stride: int = 1
) -> jax.Array:
    """The matrix by which all values become the outputs, [B, N, H W, H W].

    Args:
        weights, stride: as in `outlook_attention`, which says what is raised.
        size: (H, W).
    """
    _check(weights.shape, size, stride)
    length = math.prod(size)
    place = 1 + jnp.arange(length).reshape(1, *size)  # 0 is beyond the border
    place = _unfold(place, side=_side(weights.shape[-1]), stride=stride)
    place = jnp.moveaxis(place[:, 0], 0, -1) - 1
    place = jnp.where(place < 0, length, place)  # which is dropped
    matrix = jnp.zeros((*weights.shape[:1], weights.shape[3], length, length))
    at = matrix.at[:, :, place[..., :, None], place[..., None, :]]
    return at.add(jnp.moveaxis(weights, 3, 1), mode="drop")


def _unfold(value: jax.Array, *, side: int, stride: int) -> jax.Array:
    """The places of each window, [B, H, W, ...] -> [K, B, h, w, ...]."""
    height, width = value.shape[1:3]
    margin = [(side // 2, side // 2)] * 2
    padded = jnp.pad(value, [(0, 0), *margin, *[(0, 0)] * (value.ndim - 3)])
    rows = jnp.stack([padded[:, y : y + height : stride] for y in range(side)])
    columns = [rows[:, :, :, x : x + width : stride] for x in range(side)]
    windows = jnp.stack(columns, axis=1)  # [k, k, B, h, w, ...]
    return windows.reshape(side**2, *windows.shape[2:])


def _side(places: int) -> int:
    return math.isqrt(places)


def _check(weights: tuple[int, ...], size: tuple[int, int], stride: int) -> None:
    side = _side(weights[-1])
    if weights[-1] != weights[-2] or side**2 != weights[-1] or side % 2 == 0:
        raise ValueError(
            f"weights [B, h, w, N, K, K] are of windows of an odd side, K = 1, 9, 25"
            f" and so on, got {weights}"
        )
    centres = tuple(-(-length // stride) for length in size)
    if weights[1:3] != centres:
        raise ValueError(
            f"a map of {size[0]}x{size[1]} has {centres[0]}x{centres[1]} centres with"
            f" stride {stride}, got weights of {weights[1]}x{weights[2]}"
        )
