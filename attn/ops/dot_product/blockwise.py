"""Exact dot-product attention in blocks: memory for O(T + S), on any platform.

Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018,
https://arxiv.org/abs/1805.02867, algorithm 3; Rabe & Staats, "Self-attention Does Not
Need O(n^2) Memory", 2021, https://arxiv.org/abs/2112.05682; Dao, "FlashAttention-2",
2023, https://arxiv.org/abs/2307.08691, algorithms 1 and 2. For a block of targets, over
blocks of sources, with logits x:

    m' = max(m, max x),  l' = l exp(m - m') + sum exp(x - m'),
    o' = o exp(m - m') + exp(x - m') v;  in the end y = o / l.

The backward pass makes p = exp(x - m) / l again, block by block, and with
delta = sum(dy y), dp = dy v^T:

    dv = p^T dy,  ds = p (dp - delta),  dq = ds k,  dk = ds^T q,  dbias = ds.

Weights by a sigmoid (Ramapuram et al., "Theory, Analysis, and Best Practices for
Sigmoid Self-Attention", 2024, https://arxiv.org/abs/2409.04431) need neither m nor l,
and ds = p (1 - p) dp.

A window or causal mask skips the blocks that it hides, lengths those of padding, and a
mask function those in which it allows nothing (`attn.ops.dot_product.skips`). It can be
differentiated forward as often as wanted, and backward once before that.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from attn.ops import varying
from attn.ops.dot_product import (
    blocks,
    dropout,
    heads,
    linear,
    mods,
    skips,
    tiles,
)
from attn.ops.dot_product.blocks import Plan
from attn.ops.dot_product.heads import Rows
from attn.ops.dot_product.problem import Asked, Inputs
from attn.ops.dot_product.tiles import Head


def attend(inputs: Inputs, asked: Asked, plan: Plan | None = None) -> jax.Array:
    """The read values [B, T, N, Dv], at least float32.

    Args:
        inputs: the arrays.
        asked: the settings.
        plan: how to go through the matrix; None is what `blocks` says.

    Raises:
        NotImplementedError: the weights are asked for, or normalized by sorting.
    """
    if asked.return_weights:
        raise NotImplementedError(
            "blockwise never has the weights to return; reference can"
        )
    if asked.normalize not in ("softmax", "sigmoid"):
        raise NotImplementedError(
            f"blockwise cannot normalize by {asked.normalize}, which needs whole rows;"
            " reference can"
        )
    plan = plan or plan_for(inputs, asked)
    seeds = None
    if asked.dropout_rate > 0:
        assert inputs.dropout_rng is not None
        batch, heads_ = inputs.q.shape[0], inputs.q.shape[2]
        seeds = dropout.seeds(inputs.dropout_rng, batch, heads_)
    limit = inputs.kv_lengths
    if limit is not None:
        limit = jnp.minimum(limit, inputs.k.shape[1])
    fixed = {"mask": inputs.mask, "limit": limit, "seed": seeds, "seen": inputs.seen}
    given = {name: x for name, x in fixed.items() if x is not None}
    given["mask_captured"] = inputs.mask_captured
    captured, given["score_captured"] = mods.split(inputs.score_captured)
    learnt = {name: getattr(inputs, name) for name in ("q", "k", "v", "bias", "sinks")}
    learnt["learnt"] = captured
    return blockwise_attention(asked, plan, *varying.together((learnt, given)))


def plan_for(inputs: Inputs, asked: Asked) -> Plan:
    """How to go through the matrix on this platform."""
    return blocks.plan(
        inputs.q.shape,
        inputs.k.shape[1],
        asked,
        platform=jax.default_backend(),
        limits=blocks.chosen(inputs, asked),
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def blockwise_attention(asked, plan, learnt, fixed):
    """Both are parts of `heads.Arrays`; nobody differentiates by `fixed`."""
    return _read(asked, plan, learnt, fixed)[0]


@blockwise_attention.defjvp
def _attend_and_differentiate(asked, plan, primals, tangents):
    learnt, fixed = primals
    y, rows = _read(asked, plan, learnt, fixed)
    forward = functools.partial(_tangents, asked, plan)
    transpose = functools.partial(_cotangents, asked, plan)
    kept = (y, rows, learnt, fixed)
    return y, linear.call(forward, transpose, kept, tangents[0])


def _read(asked, plan, learnt, fixed):
    arrays = heads.Arrays(**learnt, **fixed)
    run = functools.partial(forward, asked=asked, plan=plan)
    return heads.read(run, arrays, plan)


def _tangents(asked, plan, kept, tangents):
    """The derivative of what is read along `tangents`, as JAX makes it of the loops."""
    *_, learnt, fixed = kept
    run = lambda learnt: _read(asked, plan, learnt, fixed)[0]
    return jax.jvp(run, (learnt,), (tangents,))[1]


def _cotangents(asked, plan, kept, dy):
    y, rows, learnt, fixed = kept
    arrays = heads.Arrays(**learnt, **fixed)
    run = functools.partial(backward, asked=asked, plan=plan)
    found = heads.differentiate(run, arrays, y, rows, dy, plan)
    grads = dict(zip(("q", "k", "v", "bias", "learnt"), found, strict=True))
    grads["sinks"] = None
    if arrays.sinks is not None:
        grads["sinks"] = of_sinks(arrays.sinks, rows, y, dy)
    return jax.tree.map(lambda grad, x: grad.astype(x.dtype), grads, learnt)


def of_sinks(sinks: jax.Array, rows: Rows, y: jax.Array, dy: jax.Array):
    """The gradient [N] of sinks: ds = p (dp - delta), in which dp is 0.

    Args:
        sinks: [N].
        rows: of [B, N, T], the sinks included.
        y: what was read, [B, T, N, Dv].
        dy: its gradient.
    """
    weights = jnp.exp(sinks[None, :, None] - rows.top) / rows.total
    return -jnp.einsum("bnt,btnd,btnd->n", weights, dy, y)


def forward(head: Head, *, asked: Asked, plan: Plan) -> tuple[jax.Array, Rows]:
    """One head: its values [J q, Dv] and rows of [J q], which a sigmoid leaves idle."""
    softmax = asked.normalize == "softmax"
    add = _add_softmax if softmax else _add_sigmoid
    head, asked, _ = _scaled(head, asked, plan)
    dtype = jnp.promote_types(head.q.dtype, jnp.float32)
    # A sink is a first source, of which nothing is read.
    sink, lowest = head.sink is not None, jnp.finfo(dtype).min
    # Finite, so that logits of -inf have weights of 0 where there are no others.
    top = jnp.maximum(head.sink.astype(dtype) if sink else -jnp.inf, lowest)
    row = lambda number: jnp.full((1, plan.q), number, dtype)
    start = row(top), row(sink), jnp.zeros((head.v.shape[2], plan.q), dtype)
    start = varying.like(start, head.q)
    if softmax and _is_plain(head, asked, plan):
        add = _softmax_of_all

    def targets(j):
        first, last, at = _sources(head, asked, plan, j)

        def sources(visit, carry):
            i = at(visit)
            x = tiles.logits(head, asked, plan, j, i)
            return add(carry, x, head.v[i], tiles.kept(head, asked, plan, j, i))

        top, total, read = tiles.repeat(first, last, sources, start)
        if not softmax:
            return read.T, Rows(top[0], total[0])
        # A target that sees nothing has no total.
        total = jnp.where(total > 0, total, 1)
        return (read / total).T, Rows(top[0], total[0])

    y, rows = _over_blocks(targets, head.q.shape[0])
    return y.reshape(-1, y.shape[-1]), jax.tree.map(jnp.ravel, rows)


def _scaled(head: Head, asked: Asked, plan: Plan) -> tuple[Head, Asked, float]:
    """The scale in the queries where they are float32, as that costs a pass less.

    The third is what gradients of the queries are still to be multiplied by.
    """
    if not plan.wide:
        return head, asked, 1.0
    head = dataclasses.replace(head, q=asked.scale * head.q)
    return head, dataclasses.replace(asked, scale=1.0), asked.scale


def _is_plain(head: Head, asked: Asked, plan: Plan) -> bool:
    """Whether every target sees all sources, which are one block, and nothing beside.

    No logit is -inf then.
    """
    if head.k.shape[0] > 1 or head.sink is not None or head.bias is not None:
        return False
    may = tiles.may_attend(head.sight, asked, plan, 0, 0, head.sizes)
    return may is None and asked.score_mod is None


def _softmax_of_all(start, x, values, keep):
    """`_add_softmax` where there is nothing to add to, and no -inf.

    XLA makes one program of product, maximum and exponential on a CPU if these are all.
    """
    del start
    top = _top(x)
    return top, *_weighted(x - top, values, keep)


def _add_softmax(carry, x, values, keep):
    """One more block of logits [k, q] with values [k, Dv]: running max, sum, values."""
    top, total, read = carry
    higher = jnp.maximum(top, _top(x))
    more, of_more = _weighted(x - higher, values, keep)
    shrink = jnp.exp(top - higher)
    return higher, total * shrink + more, read * shrink + of_more


def _weighted(x, values, keep):
    """The sum of exp(x), [1, q], and the values by it, [Dv, q]."""
    p = jnp.exp(x)
    total = jnp.sum(p, axis=0, keepdims=True)
    p = p if keep is None else p * keep.astype(p.dtype)
    return total, tiles.dot_first(values, p)


def _top(x):
    """The greatest logits, on which no result depends, and so no derivative."""
    return jnp.max(lax.stop_gradient(x), axis=0, keepdims=True)


def _add_sigmoid(carry, x, values, keep):
    top, total, read = carry
    p = jax.nn.sigmoid(x)
    p = p if keep is None else p * keep.astype(p.dtype)
    return top, total, read + tiles.dot_first(values, p)


def backward(
    head: Head,
    y: jax.Array,
    row: Rows,
    dy: jax.Array,
    shared: tuple,
    *,
    asked: Asked,
    plan: Plan,
) -> tuple[jax.Array, jax.Array, jax.Array, tuple]:
    """Gradients of one head, [J q, D], [I k, D], [I k, Dv], and `shared` with its own.

    Args:
        head: what it attended with.
        y: what it read, [T, Dv].
        row: of [T].
        dy: gradient of y, [T, Dv].
        shared: gradients so far, of the bias and of what score_mod captured.
        asked: the settings.
        plan: the block lengths.
    """
    head, asked, scale = _scaled(head, asked, plan)
    delta = jnp.sum(dy.astype(y.dtype) * y, axis=-1)
    delta = tiles.cut(delta, plan.q)[:, None]  # [J, 1, q]
    # What fills up the targets has weights of 0, however large its logits are.
    top = tiles.cut(row.top, plan.q, filling=jnp.finfo(row.top.dtype).max)[:, None]
    share = tiles.cut(1 / row.total, plan.q)[:, None]
    dy = tiles.cut(dy.astype(head.v.dtype), plan.q)
    count, channels = head.q.shape[0], head.q.shape[2]

    def sources(carry, i):
        first, last, at = _targets(head, asked, plan, i)
        by_keys = functools.partial(tiles.dot_first, head.k[i])
        if count > 1:  # transposed once for all targets
            by_keys = functools.partial(tiles.dot, head.k[i].T)

        def targets(visit, carry):
            dq, dk, dv, (dbias, dlearnt) = carry
            j = at(visit)
            own = top[j], share[j], delta[j]
            p, ds, more = _block_gradient(head, asked, plan, j, i, dy[j], own)
            dlearnt = jax.tree.map(jnp.add, dlearnt, more)
            if dbias is not None:
                dbias = _add_block(dbias, ds, head, plan, j, i)
            ds = (asked.scale * ds).astype(head.k.dtype)
            dq = dq.at[j].add(by_keys(ds))
            dv = dv + tiles.dot(p.astype(dy.dtype), dy[j])
            return dq, dk + tiles.dot(ds, head.q[j]), dv, (dbias, dlearnt)

        dq, shared = carry
        zeros = tuple(jnp.zeros(x.shape[1:], delta.dtype) for x in (head.k, head.v))
        zeros = varying.like(zeros, head.q)
        dq, dk, dv, shared = tiles.repeat(first, last, targets, (dq, *zeros, shared))
        return (dq, shared), (dk, dv)

    dq = varying.like(jnp.zeros((count, channels, plan.q), delta.dtype), head.q)
    (dq, shared), (dk, dv) = _scan(sources, (dq, shared), head.k.shape[0])
    dq = scale * dq.transpose(0, 2, 1)
    return *(x.reshape(-1, x.shape[-1]) for x in (dq, dk, dv)), shared


def _block_gradient(
    head: Head, asked: Asked, plan: Plan, j: Any, i: Any, dy: jax.Array, row: tuple
) -> tuple[jax.Array, jax.Array, tuple]:
    """Weights of a block, dropped ones as 0, and the gradient of its scores, [k, q].

    The third is the gradient of what score_mod captured.
    """
    top, share, delta = row
    learnt, fixed = mods.split(head.captured)
    x, back = jax.vjp(
        lambda x, learnt: tiles.shaped(
            head, asked, plan, j, i, x, mods.merge(learnt, fixed)
        ),
        tiles.scores(head, asked, plan, j, i),
        learnt,
    )
    x = tiles.masked(head, asked, plan, j, i, x)
    keep = tiles.kept(head, asked, plan, j, i)
    dp = tiles.dot(head.v[i], dy, transposed=True)
    dp = dp if keep is None else dp * keep.astype(dp.dtype)
    if asked.normalize == "softmax":
        p = jnp.exp(x - top) * share
        ds = p * (dp - delta)
    else:
        p = jax.nn.sigmoid(x)
        ds = p * (1 - p) * dp
    return p if keep is None else p * keep.astype(p.dtype), *back(ds)


def _add_block(dbias, ds, head, plan, j, i):
    """Adds ds [k, q] at its place in [B, N, T, S], of which any axis may be 1."""
    start, shape = head.bias.place(plan, j, i)
    if shape[2] == 1 and plan.q > 1:
        ds = jnp.sum(ds, axis=1, keepdims=True)
    if shape[3] == 1 and plan.k > 1:
        ds = jnp.sum(ds, axis=0, keepdims=True)
    there = lax.dynamic_slice(dbias, start, shape)
    return lax.dynamic_update_slice(dbias, there + ds.T[None, None], start)


def _sources(head: Head, asked: Asked, plan: Plan, j: Any) -> tuple[Any, Any, Any]:
    """From which to before which visit the targets j see something, and what then."""
    if head.seen is not None:
        return _visits(head.seen, j)
    count = head.k.shape[0]
    first, last = tiles.span(j, plan.q, plan.k, count, *head.sight.window(asked))
    limit = head.sight.limit
    if isinstance(limit, jax.Array) and count > 1:
        last = jnp.minimum(last, -(-limit // plan.k))
        first, last = (jnp.asarray(n, limit.dtype) for n in (first, last))
    return first, last, lambda i: i


def _targets(head: Head, asked: Asked, plan: Plan, i: Any) -> tuple[Any, Any, Any]:
    """From which to before which visit the sources i are seen, and by which targets."""
    if head.seen is not None:
        return _visits(head.seen.T, i)
    count = head.q.shape[0]
    left, right = head.sight.window(asked)
    first, last = tiles.span(i, plan.k, plan.q, count, right, left)
    if isinstance(head.sight.limit, jax.Array) and head.k.shape[0] > 1:
        last = jnp.where(i * plan.k < head.sight.limit, last, first)
    return first, last, lambda j: j


def _visits(seen: jax.Array, row: Any) -> tuple[int, jax.Array, Any]:
    """Visits to those blocks of a row of [J, I] that hold something."""
    order, count = skips.order(seen[row])
    return 0, count, lambda visit: order[visit]


def _over_blocks(function, count: int):
    """`function` of each index below `count`, results stacked."""
    if count == 1:
        return jax.tree.map(lambda x: x[None], function(0))
    return lax.map(function, jnp.arange(count))


def _scan(function, carry, count: int):
    """`lax.scan` over indices, and no loop where there is one."""
    if count == 1:
        carry, made = function(carry, 0)
        return carry, jax.tree.map(lambda x: x[None], made)
    return lax.scan(function, carry, jnp.arange(count))
