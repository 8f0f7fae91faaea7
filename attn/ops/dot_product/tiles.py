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
class Sight:
    """What decides which sources one head's targets see, beside a window.

    Attributes:
        mask: True = may attend.
        limit: how many sources there are; the rest is padding. None if none is.
        captured: what mask_mod captured.
        example: index of the example.
        head: index of the head.
        origin: of the first target and source, for windows and functions of places.
    """

    mask: Matrix | None
    limit: Index | None
    captured: tuple = ()
    example: Index = 0
    head: Index = 0
    origin: tuple[Index, Index] = (0, 0)

    def window(self, asked: Asked) -> tuple[Index | None, Index | None]:
        """The window as distances of places counted from the origin."""
        ahead = self.origin[0] - self.origin[1]
        left = None if asked.left is None else asked.left - ahead
        return left, None if asked.right is None else asked.right + ahead


@dataclasses.dataclass
class Head:
    """What one head attends with.

    Attributes:
        q: [J, q, D], its J blocks of queries.
        k: [I, k, D], its I blocks of keys.
        v: [I, k, Dv], its I blocks of values.
        bias: added to the logits.
        sight: who may attend to whom.
        sizes: T and S, without what fills up the blocks.
        captured: what score_mod captured.
        seen: of blocks [J, I], which hold anything; None if all may.
        sink: the logit beside those of the sources; None if there is none.
        seed: by which weights are dropped.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    bias: Matrix | None
    sight: Sight
    sizes: tuple[int, int]
    captured: tuple
    seen: jax.Array | None
    sink: jax.Array | None
    seed: jax.Array | None


def cut(x: jax.Array, size: int, filling: float = 0) -> jax.Array:
    """[T, ...] in blocks [J, size, ...], the last one filled up."""
    blocks = -(-x.shape[0] // size)
    missing = blocks * size - x.shape[0]
    if missing:
        pad = ((0, missing),) + ((0, 0),) * (x.ndim - 1)
        x = jnp.pad(x, pad, constant_values=filling)
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


def dot_first(a: jax.Array, b: jax.Array) -> jax.Array:
    """a^T b of two matrices, b in the type of a, summed in at least float32."""
    b = b.astype(a.dtype)
    if jnp.promote_types(a.dtype, jnp.float32) != a.dtype:
        # XLA on a CPU refuses such products of bfloat16 without a transposed copy.
        return dot(lax.optimization_barrier(a.T), b)
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())))


def scores(head: Head, asked: Asked, plan: Plan, j: Index, i: Index) -> jax.Array:
    """Products of targets j and sources i by the scale, with the bias, [k, q]."""
    x = asked.scale * dot(head.k[i], head.q[j], transposed=True)
    if head.bias is not None:
        x = x + head.bias.block(plan, j, i).astype(x.dtype)
    return x


def shaped(
    head: Head,
    asked: Asked,
    plan: Plan,
    j: Index,
    i: Index,
    x: jax.Array,
    captured: tuple,
) -> jax.Array:
    """What the cap and score_mod, which captured something, make of scores, [k, q]."""
    if asked.logits_cap is not None:
        x = asked.logits_cap * jnp.tanh(x / asked.logits_cap)
    if asked.score_mod is not None:
        where = _place(head.sight, plan, j, i, head.sizes)
        x = asked.score_mod.over(captured, x, **where)
    return x


def masked(
    head: Head, asked: Asked, plan: Plan, j: Index, i: Index, x: jax.Array
) -> jax.Array:
    """Logits, with -inf where a target may not attend, [k, q].

    A bias may have -inf where it may, so that no finite number is low enough.
    """
    may = may_attend(head.sight, asked, plan, j, i, head.sizes)
    return x if may is None else jnp.where(may, x, -jnp.inf)


def logits(head: Head, asked: Asked, plan: Plan, j: Index, i: Index) -> jax.Array:
    """The logits of targets j and sources i, [k, q]."""
    x = scores(head, asked, plan, j, i)
    x = shaped(head, asked, plan, j, i, x, head.captured)
    return masked(head, asked, plan, j, i, x)


def may_attend(
    sight: Sight,
    asked: Asked,
    plan: Plan,
    j: Index,
    i: Index,
    sizes: tuple[int, int],
) -> jax.Array | None:
    """Boolean [k, q], either of which may be 1; None if everything is allowed."""
    t, s = _positions(plan, j, i)
    left, right = sight.window(asked)
    parts = []
    if left is not None:
        parts.append(s >= t - left)
    if right is not None:
        parts.append(s <= t + right)
    if sight.limit is not None:
        parts.append(s < sight.limit)
    if sight.mask is not None:
        parts.append(sight.mask.block(plan, j, i))
    if asked.mask_mod is not None:
        where = _place(sight, plan, j, i, sizes)
        parts.append(asked.mask_mod.over(sight.captured, **where))
    may = None
    for part in parts:
        may = part if may is None else may & part
    return may


def _place(
    sight: Sight, plan: Plan, j: Index, i: Index, sizes: tuple[int, int]
) -> dict[str, Index]:
    """Example, head and positions [q], [k] of a block, none of them beyond T and S."""
    t, s = _positions(plan, j, i)
    t, s = jnp.minimum(t[0], sizes[0] - 1), jnp.minimum(s[:, 0], sizes[1] - 1)
    t, s = t + sight.origin[0], s + sight.origin[1]
    return {"b": sight.example, "n": sight.head, "t": t, "s": s}


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
    left: Index | None,
    right: Index | None,
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
