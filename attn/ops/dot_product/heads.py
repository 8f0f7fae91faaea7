"""From batches of heads to single ones and back: in a loop, or all in one.

A CPU is fastest with a loop whose blocks stay in its cache, over heads whose products
are two-dimensional, or over some examples with all their heads where these are small;
accelerators, and a CPU with tiny heads, with all heads in one product.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attn.ops import varying
from attn.ops.dot_product import mods, skips, tiles
from attn.ops.dot_product.blocks import Plan
from attn.ops.dot_product.tiles import Head, Matrix, Sight


class Rows(NamedTuple):
    """What the weights of each target come to: p = exp(x - top) / total.

    Not in one log-sum-exp, in which a large `top` would swallow the logarithm of
    `total`.
    """

    top: jax.Array
    """the greatest logit, [..., T]"""
    total: jax.Array
    """the sum of exp(x - top), 1 where nothing is seen"""


class Arrays(NamedTuple):
    """What all heads attend with.

    The shapes are those of `Inputs`; the limit is [B], the seed [B, N], and `seen`
    tells of tiles. What was captured is None where it has gradients in `learnt`. The
    origin is where the first target and source are in the sequence, and `first` where
    the first example is in the batch.
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    bias: jax.Array | None = None
    mask: jax.Array | None = None
    limit: jax.Array | None = None
    seed: jax.Array | None = None
    seen: jax.Array | None = None
    mask_captured: tuple = ()
    score_captured: tuple = ()
    learnt: tuple = ()
    sinks: jax.Array | None = None
    origin: tuple = (0, 0)
    first: jax.Array | int = 0

    @property
    def dtype(self) -> jnp.dtype:
        """In which sums are taken."""
        return jnp.promote_types(self.q.dtype, jnp.float32)


def read(run, arrays: Arrays, plan: Plan):
    """`run(head) -> values [T, Dv], Rows of [T]` for all heads.

    Returns:
        Values [B, T, N, Dv] and `Rows` of [B, N, T], at least float32.
    """
    arrays = _prepared(arrays, plan)
    cast = _cast(arrays, plan)
    if not plan.loop:
        return _read_at_once(run, arrays, plan, cast)
    if plan.examples:
        of_some = lambda part: _read_at_once(run, _part(arrays, part), plan, cast)
        return _joined(lax.map(of_some, _parts(arrays, plan)))
    return _read_in_loop(run, arrays, plan, cast)


def _read_at_once(run, arrays: Arrays, plan: Plan, cast):
    targets = arrays.q.shape[1]
    of_one = lambda leaves: run(_head_of(leaves, plan, arrays, cast))
    y, rows = _vmapped(of_one, _leaves(arrays), arrays)
    return _tokens(y)[:, :targets], jax.tree.map(
        lambda x: _rows(x)[..., :targets], rows
    )


def _read_in_loop(run, arrays: Arrays, plan: Plan, cast):
    batch, targets, heads, _ = arrays.q.shape

    def body(index, made):
        y, rows = made
        b, n = index // heads, index % heads
        of_one, row = run(_head_at(arrays, b, n, plan, cast))
        y = lax.dynamic_update_slice(y, of_one[None, :targets, None], (b, 0, n, 0))
        put = lambda all_, own: lax.dynamic_update_slice(
            all_, own[None, None, :targets], (b, n, 0)
        )
        return y, jax.tree.map(put, rows, row)

    y = jnp.zeros((*arrays.q.shape[:3], arrays.v.shape[3]), arrays.dtype)
    row = jnp.zeros((batch, heads, targets), arrays.dtype)
    made = varying.like((y, Rows(row, row)), arrays.q)
    return lax.fori_loop(0, batch * heads, body, made)


def differentiate(run, arrays: Arrays, y, rows: Rows, dy, plan: Plan):
    """`run(head, y, row, dy, shared) -> dq, dk, dv, shared` for all heads.

    What all heads add to is `shared`: gradients of the bias and of `learnt`.

    Returns:
        Gradients of the shapes of q, k, v, the bias and `learnt`, at least float32.
    """
    shape = None if arrays.bias is None else arrays.bias.shape
    arrays = _prepared(arrays, plan)
    cast = _cast(arrays, plan)
    inside = _differentiate_in_loop if plan.loop else _differentiate_at_once
    if plan.examples:
        inside = _differentiate_by_examples
    dq, dk, dv, (dbias, dlearnt) = inside(run, arrays, y, rows, dy, plan, cast)
    if shape is not None:
        dbias = dbias[:, :, : shape[2], : shape[3]]
    return dq, dk, dv, dbias, dlearnt


def _differentiate_in_loop(run, arrays: Arrays, y, rows, dy, plan: Plan, cast):
    batch, _, heads, _ = arrays.q.shape
    group = heads // arrays.k.shape[2]

    def body(index, made):
        dq, dk, dv, shared = made
        b, n = index // heads, index % heads
        head = _head_at(arrays, b, n, plan, cast)
        row = jax.tree.map(
            lambda x: lax.dynamic_slice(x, (b, n, 0), (1, 1, x.shape[2]))[0, 0], rows
        )
        dq_, dk_, dv_, shared = run(head, _of(y, b, n), row, _of(dy, b, n), shared)
        return (
            _add(dq, dq_, b, n),
            *(
                _add(total, part, b, n // group)
                for total, part in ((dk, dk_), (dv, dv_))
            ),
            shared,
        )

    start = [jnp.zeros(x.shape, arrays.dtype) for x in arrays[:3]]
    start = varying.like(start, arrays.q)
    shared = _shared(arrays.bias, arrays)
    return lax.fori_loop(0, batch * heads, body, (*start, shared))


def _differentiate_by_examples(run, arrays: Arrays, y, rows, dy, plan: Plan, cast):
    alone = arrays.bias is not None and arrays.bias.shape[0] > 1

    def body(shared, part):
        of = jax.tree.map(lambda x: _cut(x, part), (y, rows, dy))
        found = _differentiate_at_once(run, _part(arrays, part), *of, plan, cast)
        *own, (dbias, dlearnt) = found
        if alone:
            own, dbias = [*own, dbias], None
        return jax.tree.map(jnp.add, shared, (dbias, dlearnt)), own

    shared = _shared(None if alone else arrays.bias, arrays)
    shared, own = lax.scan(body, shared, _parts(arrays, plan))
    dq, dk, dv, *dbias = _joined(own)
    return dq, dk, dv, (dbias[0], shared[1]) if alone else shared


def _parts(arrays: Arrays, plan: Plan) -> jax.Array:
    """Indices of examples, [B / examples, examples]."""
    return jnp.arange(arrays.q.shape[0]).reshape(-1, plan.examples)


def _part(arrays: Arrays, part: jax.Array) -> Arrays:
    """What the examples of a part attend with."""
    names = ("q", "k", "v", "bias", "mask", "limit", "seed", "seen")
    cut = {name: _cut(getattr(arrays, name), part) for name in names}
    return arrays._replace(**cut, first=arrays.first + part[0])


def _cut(x: jax.Array | None, part: jax.Array) -> jax.Array | None:
    """Of [B, ...], or [1, ...] where all examples share it, those of a part."""
    if x is None or x.shape[0] == 1:
        return x
    return lax.dynamic_slice_in_dim(x, part[0], part.shape[0])


def _joined(parts):
    """[B / examples, examples, ...] -> [B, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)


def _shared(bias: jax.Array | None, arrays: Arrays):
    """Zeros, to which gradients of the bias and of `learnt` are added."""
    zeros = lambda x: jnp.zeros(x.shape, arrays.dtype)
    made = jax.tree.map(zeros, (bias, arrays.learnt))
    return varying.like(made, arrays.q)


def _differentiate_at_once(run, arrays: Arrays, y, rows, dy, plan: Plan, cast):
    key_heads = arrays.k.shape[2]

    def of_one(leaves):
        head = _head_of(leaves, plan, arrays, cast)
        shared = _shared(None if head.bias is None else head.bias.array, arrays)
        row = Rows(leaves["top"], leaves["total"])
        return run(head, leaves["y"], row, leaves["dy"], shared)

    leaves = _leaves(arrays) | {
        "y": _grouped_tokens(y, key_heads),
        "dy": _grouped_tokens(dy, key_heads),
        "top": _grouped_rows(rows.top, key_heads),
        "total": _grouped_rows(rows.total, key_heads),
    }
    dq, dk, dv, (dbias, dlearnt) = _vmapped(of_one, leaves, arrays)
    dq = _tokens(dq)[:, : arrays.q.shape[1]]
    dk, dv = (
        jnp.sum(x, axis=2).transpose(0, 2, 1, 3)[:, : arrays.k.shape[1]]
        for x in (dk, dv)
    )
    if arrays.bias is not None:
        dbias = dbias.reshape(dbias.shape[0], arrays.q.shape[2], *dbias.shape[-2:])
        axes = tuple(a for a in (0, 1) if arrays.bias.shape[a] == 1)
        dbias = jnp.sum(dbias, axis=axes, keepdims=True)
    dlearnt = jax.tree.map(lambda x: jnp.sum(x, axis=(0, 1, 2)), dlearnt)
    return dq, dk, dv, (dbias, dlearnt)


def _prepared(arrays: Arrays, plan: Plan) -> Arrays:
    bias, mask = (tiles.filled(x, plan) for x in (arrays.bias, arrays.mask))
    seen = arrays.seen
    if seen is not None:
        sizes = arrays.q.shape[1], arrays.k.shape[1]
        seen = skips.of_blocks(seen, sizes, plan)
    return arrays._replace(bias=bias, mask=mask, seen=seen)


def _cast(arrays: Arrays, plan: Plan):
    """A CPU multiplies in float32, other platforms in the type that they are given."""
    return lambda x: x.astype(arrays.dtype) if plan.wide else x


def _head_at(arrays: Arrays, b, n, plan: Plan, cast) -> Head:
    """The head n of the example b."""
    group = arrays.q.shape[2] // arrays.k.shape[2]
    limit, seed, seen = arrays.limit, arrays.seed, arrays.seen
    return Head(
        q=tiles.cut(cast(_of(arrays.q, b, n)), plan.q),
        k=tiles.cut(cast(_of(arrays.k, b, n // group)), plan.k),
        v=tiles.cut(cast(_of(arrays.v, b, n // group)), plan.k),
        bias=None if arrays.bias is None else Matrix(arrays.bias, b, n),
        sight=Sight(
            mask=None if arrays.mask is None else Matrix(arrays.mask, b, n),
            limit=_padding(arrays, plan) if limit is None else limit[b],
            captured=arrays.mask_captured,
            example=b,
            head=n,
            origin=arrays.origin,
        ),
        sizes=(arrays.q.shape[1], arrays.k.shape[1]),
        captured=mods.merge(arrays.learnt, arrays.score_captured),
        seen=None if seen is None else _pick(seen, b, n),
        sink=None if arrays.sinks is None else arrays.sinks[n],
        seed=None if seed is None else seed[b, n],
    )


def _of(x: jax.Array, b, n) -> jax.Array:
    """Of [B, T, N, D] one head, [T, D]."""
    shape = (1, x.shape[1], 1, x.shape[3])
    return lax.dynamic_slice(x, (b, 0, n, 0), shape)[0, :, 0]


def _pick(x: jax.Array, b, n) -> jax.Array:
    """Of [B, N, J, I], of which B and N may be 1, the part of one head."""
    return x[b if x.shape[0] > 1 else 0, n if x.shape[1] > 1 else 0]


def _add(total: jax.Array, part: jax.Array, b, n) -> jax.Array:
    """Adds [at least T, D] to one head of [B, T, N, D]."""
    part = _of(total, b, n) + part[: total.shape[1]]
    return lax.dynamic_update_slice(total, part[None, :, None], (b, 0, n, 0))


def _padding(arrays: Arrays, plan: Plan) -> int | None:
    """S where blocks go beyond it."""
    return arrays.k.shape[1] if arrays.k.shape[1] % plan.k else None


def _leaves(arrays: Arrays) -> dict[str, jax.Array]:
    """All that is there as [B, K, N / K, ...], of which any of the three may be 1."""
    key_heads = arrays.k.shape[2]
    leaves = {
        "q": _grouped_tokens(arrays.q, key_heads),
        "k": arrays.k.transpose(0, 2, 1, 3)[:, :, None],
        "v": arrays.v.transpose(0, 2, 1, 3)[:, :, None],
    }
    for name in ("bias", "mask", "seed", "seen"):
        if getattr(arrays, name) is not None:
            leaves[name] = _grouped_rows(getattr(arrays, name), key_heads)
    if arrays.sinks is not None:
        leaves["sinks"] = _grouped_rows(arrays.sinks[None], key_heads)
    if arrays.limit is not None:
        leaves["limit"] = arrays.limit[:, None, None]
    batch, _, heads, _ = arrays.q.shape
    leaves["example"] = arrays.first + jnp.arange(batch)[:, None, None]
    leaves["head"] = _grouped_rows(jnp.arange(heads)[None], key_heads)
    return leaves


def _head_of(leaves: dict[str, jax.Array], plan: Plan, arrays: Arrays, cast) -> Head:
    """The head of which `leaves` has everything, without the first three axes."""
    whole = lambda name: Matrix(leaves[name][None, None]) if name in leaves else None
    return Head(
        q=tiles.cut(cast(leaves["q"]), plan.q),
        k=tiles.cut(cast(leaves["k"]), plan.k),
        v=tiles.cut(cast(leaves["v"]), plan.k),
        bias=whole("bias"),
        sight=Sight(
            mask=whole("mask"),
            limit=leaves.get("limit", _padding(arrays, plan)),
            captured=arrays.mask_captured,
            example=leaves["example"],
            head=leaves["head"],
            origin=arrays.origin,
        ),
        sizes=(arrays.q.shape[1], arrays.k.shape[1]),
        captured=mods.merge(arrays.learnt, arrays.score_captured),
        seen=leaves.get("seen"),
        sink=leaves.get("sinks"),
        seed=leaves.get("seed"),
    )


def _vmapped(function, leaves: dict[str, jax.Array], arrays: Arrays):
    """`function` of single heads over B, K and N / K."""
    batch, _, heads, _ = arrays.q.shape
    key_heads = arrays.k.shape[2]

    def over(leaves, sizes):
        if not sizes:
            return function(leaves)
        if sizes[0] == 1:
            made = over({k: x[0] for k, x in leaves.items()}, sizes[1:])
            return jax.tree.map(lambda x: x[None], made)
        shared = {k for k, x in leaves.items() if x.shape[0] == 1}
        axes = {k: None if k in shared else 0 for k in leaves}
        leaves = {k: x[0] if k in shared else x for k, x in leaves.items()}
        return jax.vmap(lambda x: over(x, sizes[1:]), in_axes=(axes,))(leaves)

    return over(leaves, (batch, key_heads, heads // key_heads))


def _grouped_tokens(x: jax.Array, key_heads: int) -> jax.Array:
    """[B, T, N, D] -> [B, K, N / K, T, D]."""
    batch, length, heads, channels = x.shape
    x = x.reshape(batch, length, key_heads, heads // key_heads, channels)
    return x.transpose(0, 2, 3, 1, 4)


def _tokens(x: jax.Array) -> jax.Array:
    """[B, K, N / K, T, D] -> [B, T, N, D]."""
    return x.reshape(x.shape[0], -1, *x.shape[3:]).transpose(0, 2, 1, 3)


def _grouped_rows(x: jax.Array, key_heads: int) -> jax.Array:
    """[B, N, ...] -> [B, K, N / K, ...], or [B, 1, 1, ...] where N is 1."""
    if x.shape[1] == 1:
        return x[:, None]
    return x.reshape(x.shape[0], key_heads, -1, *x.shape[2:])


def _rows(x: jax.Array) -> jax.Array:
    """[B, K, N / K, T] -> [B, N, T]."""
    return x.reshape(x.shape[0], -1, x.shape[3])
