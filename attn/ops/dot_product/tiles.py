"""One head cut into blocks, and the logits of one block of keys by one of queries.

A block of logits is [k, q]: sources down, targets across. So the maximum and sum of
each target are taken along the first axis, and the products of the backward pass
(p do, ds q, k^T ds) need no transposed block; on a CPU both are several times faster
than their mirror images.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from attn.ops.dot_product import dropout
from attn.ops.dot_product.blocks import Plan
from attn.ops.dot_product.problem import Asked

Index = jax.Array | int


@dataclasses.dataclass
class Matrix:
    """Of an array [B, N, T, S] of which any axis may be 1, the part of one head."""

    array: jax.Array
    example: Index = 0
    head: Index = 0

    def place(self, plan: Plan, j: Index, i: Index) -> tuple[tuple, tuple]:
        """Where the block of targets j and sources i starts, and its shape."""
        wide = [size > 1 for size in self.array.shape]
        start = (self.example, self.head, j * plan.q, i * plan.k)
        start = tuple(x if w else 0 for x, w in zip(start, wide, strict=True))
        return start, (1, 1, plan.q if wide[2] else 1, plan.k if wide[3] else 1)

    def block(self, plan: Plan, j: Index, i: Index) -> jax.Array:
        """[k, q], either of which may be 1."""
        return lax.dynamic_slice(self.array, *self.place(plan, j, i))[0, 0].T


@dataclasses.dataclass
class Head:
    """What one head attends with.

    Attributes:
        q: [J, q, D], its J blocks of queries.
        k: [I, k, D], its I blocks of keys.
        v: [I, k, Dv], its I blocks of values.
        bias: added to the logits.
        mask: True = may attend.
        limit: how many sources there are; the rest is padding. None if none is.
        seed: by which weights are dropped.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    bias: Matrix | None
    mask: Matrix | None
    limit: Index | None
    seed: jax.Array | None


def cut(x: jax.Array, size: int) -> jax.Array:
    """[T, ...] in blocks [J, size, ...], the last one filled with zeros."""
    blocks = -(-x.shape[0] // size)
    missing = blocks * size - x.shape[0]
    if missing:
        x = jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))
    return x.reshape(blocks, size, *x.shape[1:])


def join(x: jax.Array, length: int) -> jax.Array:
    """What `cut` cut, [J, size, ...], as [length, ...]."""
    return x.reshape(-1, *x.shape[2:])[:length]


def filled(x: jax.Array | None, plan: Plan) -> jax.Array | None:
    """[B, N, T, S] with T and S filled up to whole blocks, where they are not 1."""
    if x is None:
        return None
    missing = [
        -n % size if n > 1 else 0
        for n, size in zip(x.shape[2:], (plan.q, plan.k), strict=True)
    ]
    if not any(missing):
        return x
    return jnp.pad(x, ((0, 0), (0, 0), *((0, n) for n in missing)))


def dot(a: jax.Array, b: jax.Array, *, transposed: bool = False) -> jax.Array:
    """a b, or a b^T, of two matrices, summed in at least float32."""
    dimensions = (((1,), (1 if transposed else 0,)), ((), ()))
    dtype = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, dimensions, preferred_element_type=dtype)


def logits(
    head: Head, asked: Asked, plan: Plan, j: Index, i: Index
) -> tuple[jax.Array, jax.Array | None]:
    """The logits of targets j and sources i, [k, q], and their slope under the cap.

    What may not be attended to has the least finite logit. The slope is the derivative
    of a logit by what it was before the cap; None stands for 1.
    """
    x = asked.scale * dot(head.k[i], head.q[j], transposed=True)
    if head.bias is not None:
        x = x + head.bias.block(plan, j, i).astype(x.dtype)
    slope = None
    if asked.logits_cap is not None:
        share = jnp.tanh(x / asked.logits_cap)
        x, slope = asked.logits_cap * share, 1 - share**2
    may = _may_attend(head, asked, plan, j, i)
    if may is not None:
        x = jnp.where(may, x, jnp.finfo(x.dtype).min)
    return x, slope


def _may_attend(
    head: Head, asked: Asked, plan: Plan, j: Index, i: Index
) -> jax.Array | None:
    """Boolean [k, q], either of which may be 1; None if everything is allowed."""
    t, s = _positions(plan, j, i)
    parts = []
    if asked.left is not None:
        parts.append(s >= t - asked.left)
    if asked.right is not None:
        parts.append(s <= t + asked.right)
    if head.limit is not None:
        parts.append(s < head.limit)
    if head.mask is not None:
        parts.append(head.mask.block(plan, j, i))
    may = None
    for part in parts:
        may = part if may is None else may & part
    return may


def kept(head: Head, asked: Asked, plan: Plan, j: Index, i: Index) -> jax.Array | None:
    """What dropout multiplies the weights of a block by, [k, q]; None without it."""
    if head.seed is None:
        return None
    keep = dropout.kept(head.seed, *_positions(plan, j, i), asked.dropout_rate)
    return jnp.where(keep, jnp.float32(1 / (1 - asked.dropout_rate)), 0)


def _positions(plan: Plan, j: Index, i: Index) -> tuple[jax.Array, jax.Array]:
    """Positions of the targets [1, q] and of the sources [k, 1] of a block."""
    t = j * plan.q + jnp.arange(plan.q)[None, :]
    s = i * plan.k + jnp.arange(plan.k)[:, None]
    return t, s


def span(
    block: Index,
    here: int,
    there: int,
    count: int,
    left: int | None,
    right: int | None,
) -> tuple[Index, Index]:
    """From which to before which of `count` blocks of length `there` one block looks.

    Args:
        block: index of the block of length `here` that looks.
        here: its length.
        there: length of the blocks that it looks at.
        count: how many of these there are.
        left: how far a position sees to the left; None is without limit.
        right: how far to the right.
    """
    first, last = 0, count
    if left is not None and count > 1:
        first = jnp.maximum(block * here - left, 0) // there
    if right is not None and count > 1:
        last = jnp.minimum(((block + 1) * here - 1 + right) // there + 1, count)
    return first, last


def repeat(first: Index, last: Index, body, carry):
    """`lax.fori_loop`, and no loop where there is one round."""
    if isinstance(first, int) and isinstance(last, int) and last - first == 1:
        return body(first, carry)
    return lax.fori_loop(first, last, body, carry)
