"""Dot-product attention over a sequence that is split over devices, exact.

Liu, Zaharia & Abbeel, "Ring Attention with Blockwise Transformers for Near-Infinite
Context", ICLR 2024, https://arxiv.org/abs/2310.01889. Each device keeps its targets;
the keys and values go around from device to device. What is read of each block is
merged by a running maximum and sum, as in Milakov & Gimelshein, "Online normalizer
calculation for softmax", 2018, https://arxiv.org/abs/1805.02867. The backward pass
sends the blocks around again, and their gradients with them, and makes the weights
anew from the log-sum-exp.

Letters used in shapes:
    B batch, T targets and S sources of one device, N heads of queries, K heads of keys
    and values, G = N / K, D channels of a query, Dv of a value.

Inside, arrays are cut into blocks along the sequence, the axis of blocks first:
queries [blocks, B, K, G, block, D], keys [blocks, B, K, block, D]. The logits of one
pair of blocks are all that is ever held of the matrix.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BLOCK = 512


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is static: the settings, and the sizes on one device."""

    axis_name: str
    scale: float
    left: int | None
    right: int | None
    targets: int
    sources: int
    block: int

    def overlaps(self, t, s, num_t, num_s):
        """Whether any of the targets from t on may see any of the sources from s on."""
        return self.inside(t + num_t - 1 - s, t - s - num_s + 1)

    def inside(self, most, least=None):
        """Whether a distance t - s of at most `most` and at least `least` is seen."""
        least = most if least is None else least
        seen = np.True_
        if self.right is not None:
            seen = seen & (most >= -self.right)
        if self.left is not None:
            seen = seen & (least <= self.left)
        return seen

    def visits(self, devices: int) -> tuple[int, int]:
        """From how far back the first block comes, and how many blocks then pass."""
        owner = np.arange(devices)
        t, s = self.targets * owner[:, None], self.sources * owner
        needed = self.overlaps(t, s, self.targets, self.sources)
        away = (owner[:, None] - owner)[np.broadcast_to(needed, (devices, devices))]
        first, count = int(away.min()), int(away.max() - away.min() + 1)
        return (first, count) if count < devices else (0, devices)


def ring_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    axis_name: str,
    is_causal: bool = False,
    window: int | tuple[int | None, int | None] | None = None,
    scale: float | None = None,
    block_size: int = BLOCK,
) -> jax.Array:
    """softmax(q k^T * scale) v of a sequence split over `axis_name`, [B, T, N, Dv].

    To be called where the axis is mapped, such as inside pmap; device i has the
    targets from i T and the sources from i S on. Result and gradients are those of
    `dot_product_attention` on the whole sequence. Memory on a device is O(T + S) for
    any number of devices, forward and backward. Blocks that a causal mask or a window
    hides are not computed, and with a window not sent around further than is seen.

    Args:
        q: queries [B, T, N, D] of this device.
        k: keys [B, S, K, D] of this device; K divides N.
        v: values [B, S, K, Dv] of this device.
        axis_name: the mapped axis along which the sequence lies.
        is_causal: whether targets see no later sources, counted in the sequence.
        window: how many sources a target sees on each side of its own place, one
            number or (left, right), in which None is no limit; None sees all.
        scale: factor of the products; None is 1 / sqrt(D).
        block_size: how many targets and sources are computed at once.

    Returns:
        What the targets read, in the dtype of `v`; zeros where they see nothing.
        Logits and sums are float32 whatever the inputs are.

    Raises:
        ValueError: shapes that do not fit, or a negative window.
    """
    _check(q, k, v, block_size)
    left, right = window if isinstance(window, tuple | list) else (window, window)
    if min(0 if side is None else side for side in (left, right)) < 0:
        raise ValueError(f"a window reaches at least 0 places, got {window}")
    if is_causal:
        right = 0
    plan = _Plan(
        axis_name=axis_name,
        scale=q.shape[-1] ** -0.5 if scale is None else float(scale),
        left=left,
        right=right,
        targets=q.shape[1],
        sources=k.shape[1],
        block=min(block_size, max(q.shape[1], k.shape[1])),
    )
    batch, length, heads, dim = q.shape
    q = q.reshape(batch, length, k.shape[2], -1, dim)
    blocks = (_cut(x, plan.block) for x in (q, k, v))
    y = _ring(plan, *blocks)
    y = jnp.moveaxis(y, (0, 4), (1, 2)).reshape(batch, -1, heads, v.shape[-1])
    return y[:, :length]


def _check(q: jax.Array, k: jax.Array, v: jax.Array, block_size: int) -> None:
    if {q.ndim, k.ndim, v.ndim} != {4} or not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ValueError(
            "queries [B, T, N, D], keys [B, S, K, D] and values [B, S, K, Dv] must"
            f" agree in B, got {q.shape}, {k.shape} and {v.shape}"
        )
    if k.shape[:3] != v.shape[:3]:
        raise ValueError(
            f"keys and values must agree in S and K, got {k.shape} and {v.shape}"
        )
    if q.shape[3] != k.shape[3]:
        raise ValueError(
            f"heads of queries have {q.shape[3]} channels, of keys {k.shape[3]}"
        )
    if q.shape[2] % k.shape[2]:
        raise ValueError(
            f"{k.shape[2]} heads of keys do not divide {q.shape[2]} heads of queries"
        )
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")


def _cut(x: jax.Array, block: int) -> jax.Array:
    """[B, T, heads ..., D] -> [blocks, B, heads ..., block, D], padded with zeros."""
    batch, length, *heads, dim = x.shape
    count = -(-length // block)
    pad = [(0, 0)] * x.ndim
    pad[1] = (0, count * block - length)
    x = jnp.pad(x, pad).reshape(batch, count, block, *heads, dim)
    return jnp.moveaxis(x, (1, 2), (0, -2))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(plan: _Plan, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """What is read, in blocks as `q` is."""
    return _forward(plan, q, k, v)[0]


def _forward(plan, q, k, v):
    """What is read, and what the backward pass needs: O(T + S) numbers."""
    visit = functools.partial(_read, plan, q)
    shape = (*q.shape[:-1], v.shape[-1])
    state = _zeros(shape, q, k, v), _zeros(shape[:-1], q, k, v)
    state = (*state, state[1] - jnp.inf)
    (total, norm, top), _ = _around(plan, visit, state, (k, v), ())
    y = total / jnp.where(norm > 0, norm, 1)[..., None]
    y = y.astype(v.dtype)
    # Of a target that sees nothing: anything finite, since its weights are masked.
    log_norm = jnp.where(norm > 0, top + jnp.log(jnp.where(norm > 0, norm, 1)), 0)
    return y, (q, k, v, y, log_norm)


def _backward(plan, saved, dy):
    q, k, v, y, log_norm = saved
    inner = jnp.sum(dy.astype(jnp.float32) * y.astype(jnp.float32), axis=-1)
    visit = functools.partial(_send_back, plan, q, dy, log_norm, inner)
    zeros = lambda x: _zeros(x.shape, q, k, v)
    dq, (dk, dv) = _around(plan, visit, zeros(q), (k, v), (zeros(k), zeros(v)))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


_ring.defvjp(_forward, _backward)


def _around(plan, visit, state, fixed, summed):
    """Shows the blocks of all devices to this one, and brings home what they gather.

    Args:
        plan: the settings.
        visit: (state, fixed, summed, t, s) -> state, summed, for targets from t and
            sources from s on.
        state: what stays on this device.
        fixed: what belongs to the sources of a device.
        summed: what is gathered for them on the way.
    """
    devices = lax.axis_size(plan.axis_name)
    here = lax.axis_index(plan.axis_name)
    first, count = plan.visits(devices)

    def meet(state, fixed, summed, visits):
        owner = (here - first - visits) % devices
        t, s = here * plan.targets, owner * plan.sources
        return visit(state, fixed, summed, t, s)

    def step(carry, visits):
        state, fixed, summed = carry
        onward = _shift(plan, fixed, 1)  # on its way while this block is read
        state, summed = meet(state, fixed, summed, visits)
        return (state, onward, _shift(plan, summed, 1)), None

    carry = state, _shift(plan, fixed, first), summed
    carry, _ = lax.scan(step, carry, jnp.arange(count - 1))
    state, summed = meet(*carry, count - 1)
    return state, _shift(plan, summed, 1 - first - count)


def _shift(plan, arrays, by):
    """Sends arrays `by` devices on, around the ring."""
    devices = lax.axis_size(plan.axis_name)
    if by % devices == 0 or not arrays:
        return arrays
    pairs = [(i, (i + by) % devices) for i in range(devices)]
    return lax.ppermute(arrays, plan.axis_name, pairs)


def _read(plan, q, state, fixed, summed, t, s):
    """Adds to the sums of all targets what they read of one device's sources."""

    def of_targets(_, item):
        index, q, state = item

        def of_sources(state, item):
            other, k, v = item
            places = (t, s, index, other)
            add = lambda state: _merge(plan, q, k, v, state, places)
            return lax.cond(_visible(plan, places), add, lambda x: x, state), None

        return None, lax.scan(of_sources, state, _numbered(*fixed))[0]

    return lax.scan(of_targets, None, _numbered(q, state))[1], summed


def _merge(plan, q, k, v, state, places):
    """The sums with one more block of sources, relative to the new largest logit."""
    total, norm, top = state
    logits, seen = _logits(plan, q, k, places)
    new_top = jnp.maximum(top, jnp.max(jnp.where(seen, logits, -jnp.inf), axis=-1))
    base = jnp.where(jnp.isneginf(new_top), 0, new_top)
    weights = jnp.where(seen, jnp.exp(logits - base[..., None]), 0)
    shrink = jnp.exp(top - base)
    read = _product("bkgts,bksd->bkgtd", weights.astype(v.dtype), v)
    total = total * shrink[..., None] + read
    return total, norm * shrink + jnp.sum(weights, axis=-1), new_top


def _send_back(plan, q, dy, log_norm, inner, dq, fixed, summed, t, s):
    """Adds to the gradients what one device's sources and all targets exchange."""

    def of_targets(summed, item):
        index, dq, *targets = item

        def of_sources(dq, item):
            other, sources, summed = item
            places = (t, s, index, other)
            add = lambda *sums: _gradients(plan, targets, sources, sums, places)
            keep = lambda *sums: sums
            dq, *summed = lax.cond(_visible(plan, places), add, keep, dq, *summed)
            return dq, tuple(summed)

        dq, summed = lax.scan(of_sources, dq, _numbered(fixed, summed))
        return summed, dq

    summed, dq = lax.scan(of_targets, summed, _numbered(dq, q, dy, log_norm, inner))
    return dq, summed


def _gradients(plan, targets, sources, sums, places):
    """dq, dk and dv with the part of one pair of blocks."""
    (q, dy, log_norm, inner), (k, v), (dq, dk, dv) = targets, sources, sums
    logits, seen = _logits(plan, q, k, places)
    weights = jnp.where(seen, jnp.exp(logits - log_norm[..., None]), 0)
    dweights = _product("bkgtd,bksd->bkgts", dy, v)
    dlogits = (plan.scale * weights * (dweights - inner[..., None])).astype(q.dtype)
    dq = dq + _product("bkgts,bksd->bkgtd", dlogits, k)
    dk = dk + _product("bkgts,bkgtd->bksd", dlogits, q)
    dv = dv + _product("bkgts,bkgtd->bksd", weights.astype(dy.dtype), dy)
    return dq, dk, dv


def _logits(plan, q, k, places):
    """Logits [B, K, G, block, block] of a pair of blocks, and which of them count."""
    t, s, index, other = places
    target, source = (plan.block * i + jnp.arange(plan.block) for i in (index, other))
    distance = (t + target)[:, None] - (s + source)[None]
    seen = plan.inside(distance) & (source < plan.sources)[None]
    logits = plan.scale * _product("bkgtd,bksd->bkgts", q, k)
    return logits, seen[None, None, None]


def _visible(plan, places):
    t, s, index, other = places
    t, s = t + plan.block * index, s + plan.block * other
    return jnp.asarray(plan.overlaps(t, s, plan.block, plan.block))


def _numbered(first, *rest):
    """Something to scan over: the number of each block, and the blocks."""
    count = jax.tree.leaves(first)[0].shape[0]
    return (jnp.arange(count), first, *rest)


def _product(formula, a, b):
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32)


def _zeros(shape, *like):
    """Zeros that differ between devices as `like` do, which the types of loops tell.

    They are made of these arrays, but without what in them may be infinite.
    """
    nothing = sum(0.0 * jnp.isnan(x[(0,) * x.ndim]) for x in like)
    return jnp.zeros(shape, jnp.float32) + nothing
