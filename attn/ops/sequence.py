"""Dot-product attention over a sequence that is split over devices, exact.

Three ways. Of P devices with T targets and S sources each, N heads of queries and K of
keys and values, one holds beside its own, and sends forward at most, B D times as many
numbers as stand here:

    method       what moves                      holds           sends
    ring         keys and values, step by step   4 S K           2 S K (P - 1)
    all_gather   keys and values, at once        2 S K P         2 S K (P - 1)
    all_to_all   heads for places, and back      2 (T N + S K)   2 (T N + S K)

Backward the ring sends keys and values again, and their gradients; the others send
gradients only.

The ring (Liu, Zaharia & Abbeel, "Ring Attention with Blockwise Transformers for
Near-Infinite Context", ICLR 2024, https://arxiv.org/abs/2310.01889) computes while it
sends, and with a window sends no further than is seen; with a causal mask the first
devices wait for the last. What is read of each part counts by its sum of weights. The
all-to-all (Jacobs et al., "DeepSpeed Ulysses", 2023, https://arxiv.org/abs/2309.14509)
shares causal work equally, and needs heads that P divides.

With None it is the ring where a window spares it a round, else the gathering where all
keys and values are no more than what a device has anyway (K P <= N), else the
all-to-all where P divides N and K or is divided by K, else the ring.

Letters used in shapes:
    B batch (any number of axes), T targets and S sources of one device, N heads of
    queries, K heads of keys and values, D channels of a query, Dv of a value.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attn.ops import dot_product, varying
from attn.ops.dot_product import blocks, blockwise, heads, mods, problem, skips
from attn.ops.dot_product.mods import MaskMod, ScoreMod
from attn.ops.dot_product.problem import Asked, Inputs

METHODS = ("ring", "all_gather", "all_to_all")


def sequence_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    axis_name: str,
    method: Literal["ring", "all_gather", "all_to_all"] | None = None,
    bias: jax.Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: dot_product.Window = None,
    q_lengths: jax.Array | None = None,
    kv_lengths: jax.Array | None = None,
    logits_cap: float | None = None,
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    sinks: jax.Array | None = None,
) -> jax.Array:
    """What the targets of this device read of the whole sequence, [B, T, N, Dv].

    For use within `jax.shard_map` or `jax.pmap`. Device i of the axis has the i-th part
    of the sequence. Equals `dot_product_attention` on the whole of it, but that numbers
    of sources which a mask_mod, a window or the causal order hides from all targets
    must be finite for the ring and the gathering; memory is for O(T + S) numbers, but
    for what the methods hold. Only the all-to-all can be differentiated forward
    (`jax.jvp`). Places of windows and of the functions, and lengths, are those of the
    whole sequence, examples and heads those of this device's arrays.

    Args:
        q: queries [B, T, N, D] of this device.
        k: keys [B, S, K, D] of this device.
        v: values [B, S, K, Dv] of this device.
        axis_name: the mapped axis along which the sequence lies.
        method: one of `METHODS`; None chooses by the rule above.
        bias: of this device's targets and all sources, broadcastable to [B, N, T, S P].
            Where the types of arrays do not tell that they differ between devices, as
            within `jax.pmap` or without `check_vma`, one whose axis T is 1, of several
            targets, must be the same on all devices for all_to_all.
        is_causal: as all that follows, see `dot_product_attention`.
        scale: factor of the products.
        window: which distances are seen.
        q_lengths: integers [B]; targets of the sequence from there on are padding.
        kv_lengths: integers [B]; sources of the sequence from there on are padding.
        logits_cap: bound of the logits.
        mask_mod: whether target t of the sequence may attend to source s.
        score_mod: replaces the logits.
        sinks: logits [N] beside those of the sources.

    Raises:
        ValueError: something does not fit.
    """
    if method not in (None, *METHODS):
        raise ValueError(f"method must be None or one of {METHODS}, got {method!r}")
    inputs, asked = problem.check(
        *(q, k, v),
        is_causal=is_causal,
        scale=scale,
        window=window,
        q_lengths=q_lengths,
        kv_lengths=kv_lengths,
        logits_cap=logits_cap,
        mask_mod=mask_mod,
        score_mod=score_mod,
        sinks=sinks,
    )
    lead, (targets, count), sources = q.shape[:-3], q.shape[-3:-1], k.shape[-3]
    route = Route(axis_name, lax.axis_size(axis_name), targets, sources)
    if bias is not None:
        sizes = count, targets, sources * route.devices
        bias = problem.matrix("bias", problem.number(bias), lead, sizes)
        inputs = inputs._replace(bias=bias)
    inputs, rows = _without_padding(inputs, route)
    chosen = method or choose(route, asked, heads=count, key_heads=k.shape[-2])
    y = {"ring": _by_ring, "all_gather": _by_gathering, "all_to_all": _by_heads}[
        chosen
    ](inputs, asked, route)
    y = y if rows is None else jnp.where(rows, y, 0)
    return y.reshape(*q.shape[:-1], v.shape[-1]).astype(v.dtype)


@dataclasses.dataclass(frozen=True)
class Route:
    """How a sequence lies on devices.

    Attributes:
        axis_name: the axis along which they lie.
        devices: how many there are.
        targets: of each.
        sources: of each part that a device sees at once.
        first: from how many devices back the first part comes.
        count: how many parts then come by.
        gathered: whether all sources lie on each device.
    """

    axis_name: str
    devices: int
    targets: int
    sources: int
    first: int = 0
    count: int = 1
    gathered: bool = False

    def here(self) -> jax.Array:
        """Index of this device."""
        return lax.axis_index(self.axis_name)

    def around(self, asked: Asked) -> "Route":
        """The ring: from how far back parts are seen at all, and how many."""
        owner = np.arange(self.devices)
        t, s = self.targets * owner[:, None], self.sources * owner
        needed = np.ones((self.devices, self.devices), bool)
        if asked.right is not None:
            needed &= t + self.targets - 1 - s >= -asked.right
        if asked.left is not None:
            needed &= t - s - self.sources + 1 <= asked.left
        away = (owner[:, None] - owner)[needed]
        first, count = (int(away.min()), int(np.ptp(away) + 1)) if away.size else (0, 1)
        if count >= self.devices:
            first, count = 0, self.devices
        return dataclasses.replace(self, first=first, count=count)


def choose(route: Route, asked: Asked, *, heads: int, key_heads: int) -> str:
    """The method of None, by the rule at the top of this file."""
    if route.around(asked).count < route.devices:
        return "ring"
    if key_heads * route.devices <= heads:
        return "all_gather"
    return "all_to_all" if _fits(route, heads, key_heads) else "ring"


def _fits(route: Route, heads: int, key_heads: int) -> bool:
    devices = route.devices
    return heads % devices == 0 and (key_heads % devices) * (devices % key_heads) == 0


def _without_padding(inputs: Inputs, route: Route) -> tuple[Inputs, jax.Array | None]:
    """Zeros in what is padding, which may be NaN, and which targets are not padding."""

    def there(lengths, length):
        at = route.here() * length + jnp.arange(length)
        return (at[None] < lengths[:, None])[:, :, None, None]

    q, k, v, rows = inputs.q, inputs.k, inputs.v, None
    if inputs.q_lengths is not None:
        rows = there(inputs.q_lengths, route.targets)
        q = jnp.where(rows, q, jnp.zeros((), q.dtype))
    if inputs.kv_lengths is not None:
        seen = there(inputs.kv_lengths, route.sources)
        k, v = (jnp.where(seen, x, jnp.zeros((), x.dtype)) for x in (k, v))
    return inputs._replace(q=q, k=k, v=v), rows


def _by_heads(inputs: Inputs, asked: Asked, route: Route) -> jax.Array:
    """All-to-all: some heads of the whole sequence."""
    devices, count, key_heads = route.devices, inputs.q.shape[2], inputs.k.shape[2]
    if not _fits(route, count, key_heads):
        raise ValueError(
            f"all_to_all needs heads of queries that {devices} devices divide, and"
            f" heads of keys that they divide or that divide them, got {count} and"
            f" {key_heads}"
        )
    swap = functools.partial(lax.all_to_all, axis_name=route.axis_name, tiled=True)
    to_heads = lambda x: swap(x, split_axis=2, concat_axis=1)
    repeats = max(devices // key_heads, 1)
    k, v = (jnp.repeat(x, repeats, axis=2) for x in (inputs.k, inputs.v))
    mine = count // devices
    at = route.here() * mine
    bias, sinks = inputs.bias, inputs.sinks
    if bias is not None and route.axis_name in varying.axes(bias):
        bias = jnp.broadcast_to(bias, (*bias.shape[:2], route.targets, bias.shape[3]))
    each = bias is not None and bias.shape[2] == route.targets
    if bias is not None and bias.shape[1] > 1:
        if each:
            bias = swap(bias, split_axis=1, concat_axis=2)
        else:
            bias = lax.dynamic_slice_in_dim(bias, at, mine, axis=1)
    elif each:
        bias = lax.all_gather(bias, route.axis_name, axis=2, tiled=True)
    if sinks is not None:
        sinks = lax.dynamic_slice_in_dim(sinks, at, mine)
    y = dot_product.dot_product_attention(
        *map(to_heads, (inputs.q, k, v)),
        bias=bias,
        scale=asked.scale,
        window=(asked.left, asked.right),
        q_lengths=inputs.q_lengths,
        kv_lengths=inputs.kv_lengths,
        logits_cap=asked.logits_cap,
        mask_mod=_of_head(asked.mask_mod, inputs.mask_captured, at),
        score_mod=_of_head(asked.score_mod, inputs.score_captured, at),
        sinks=sinks,
    )
    return swap(y, split_axis=1, concat_axis=2)


def _of_head(mod: mods.Mod | None, captured: tuple, first: jax.Array):
    """The function of heads counted from the first of this device."""
    if mod is None:
        return None

    def function(*args):
        *scores, b, n, t, s = args
        return mod(captured, *scores, b, n + first, t, s)

    return function


def _by_gathering(inputs: Inputs, asked: Asked, route: Route) -> jax.Array:
    """All-gather: all sources on each device."""
    gather = functools.partial(
        lax.all_gather, axis_name=route.axis_name, axis=1, tiled=True
    )
    inputs = inputs._replace(k=gather(inputs.k), v=gather(inputs.v))
    sources = inputs.k.shape[1]
    return _visit(
        inputs, asked, dataclasses.replace(route, sources=sources, gathered=True)
    )


def _by_ring(inputs: Inputs, asked: Asked, route: Route) -> jax.Array:
    """Keys and values go around."""
    return _visit(inputs, asked, route.around(asked))


def _visit(inputs: Inputs, asked: Asked, route: Route) -> jax.Array:
    """What is read of all parts that come by, at least float32."""
    captured, fixed_captured = mods.split(inputs.score_captured)
    names = ("q", "k", "v", "bias", "sinks")
    learnt = {name: getattr(inputs, name) for name in names} | {"learnt": captured}
    fixed = {
        "lengths": inputs.kv_lengths,
        "mask_captured": inputs.mask_captured,
        "score_captured": fixed_captured,
        "seen": None,
    }
    learnt, fixed, _ = varying.together((learnt, fixed, route.here()))
    if asked.mask_mod is not None:
        fixed["seen"] = _seen(inputs, asked, route)
    return _visits(asked, route, learnt, fixed)


def _seen(inputs: Inputs, asked: Asked, route: Route) -> jax.Array:
    """Of each part, by its owner, the tiles that hold anything mask_mod allows."""

    def of(owner):
        limit = _limit(inputs.kv_lengths, route, owner)
        part = inputs._replace(kv_lengths=limit, q_lengths=None)
        return skips.find(part, asked, _origin(route, owner))[0].seen

    return lax.map(of, jnp.arange(1 if route.gathered else route.devices))


def _origin(route: Route, owner) -> tuple[jax.Array, jax.Array]:
    """Places in the sequence of the first target here and source there."""
    return route.here() * route.targets, owner * route.sources


def _limit(lengths: jax.Array | None, route: Route, owner) -> jax.Array | None:
    """How many sources of a part are not padding, [B]."""
    if lengths is None:
        return None
    return jnp.clip(lengths - owner * route.sources, 0, route.sources)


def _arrays(route: Route, learnt: dict, fixed: dict, moving: tuple, owner):
    """What attends to one part."""
    bias, seen = learnt["bias"], fixed["seen"]
    if bias is not None and bias.shape[3] > 1:
        at = owner * route.sources
        bias = lax.dynamic_slice_in_dim(bias, at, route.sources, axis=3)
    return heads.Arrays(
        learnt["q"],
        *moving,
        bias=bias,
        limit=_limit(fixed["lengths"], route, owner),
        seen=None if seen is None else seen[owner],
        mask_captured=fixed["mask_captured"],
        score_captured=fixed["score_captured"],
        learnt=learnt["learnt"],
        origin=_origin(route, owner),
    )


def _plan(route: Route, asked: Asked, q: jax.Array) -> blocks.Plan:
    platform = jax.default_backend()
    return blocks.plan(q.shape, route.sources, asked, platform=platform)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _visits(asked: Asked, route: Route, learnt: dict, fixed: dict) -> jax.Array:
    return _forward(asked, route, learnt, fixed)[0]


def _forward(asked, route, learnt, fixed):
    """What is read, and what the backward pass needs: O(T + S) numbers."""
    plan = _plan(route, asked, learnt["q"])
    run = functools.partial(blockwise.forward, asked=asked, plan=plan)

    def visit(state, moving, summed, owner):
        part = _arrays(route, learnt, fixed, moving, owner)
        return _merge(*state, *heads.read(run, part, plan)), summed

    q, v, sinks = learnt["q"], learnt["v"], learnt["sinks"]
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    lowest = jnp.finfo(dtype).min
    top = jnp.full((), lowest, dtype)
    if sinks is not None:
        top = jnp.maximum(sinks.astype(dtype)[None, :, None], lowest)
    y = jnp.zeros((*q.shape[:-1], v.shape[-1]), dtype)
    top = jnp.broadcast_to(top, (q.shape[0], q.shape[2], q.shape[1]))
    rows = heads.Rows(top, jnp.full_like(top, sinks is not None))
    state = varying.like((y, rows), q)
    (y, rows), _ = _around(route, visit, state, (learnt["k"], v), ())
    # A target that sees nothing has merged what is masked; NaN is to be seen.
    seen = ~(rows.top <= lowest / 2)
    y = jnp.where(seen.transpose(0, 2, 1)[..., None], y, 0)
    top = jnp.where(seen, rows.top, jnp.finfo(dtype).max)  # so that its weights are 0
    return y, (learnt, fixed, y, rows._replace(top=top))


def _merge(y, rows, more, of_more):
    """What is read of two parts, by their sums of weights."""
    top = jnp.maximum(rows.top, of_more.top)
    parts = [part.total * jnp.exp(part.top - top) for part in (rows, of_more)]
    total = parts[0] + parts[1]
    ours, theirs = ((x / total).transpose(0, 2, 1)[..., None] for x in parts)
    return y * ours + more * theirs, heads.Rows(top, total)


def _backward(asked, route, kept, dy):
    learnt, fixed, y, rows = kept
    plan = _plan(route, asked, learnt["q"])
    run = functools.partial(blockwise.backward, asked=asked, plan=plan)

    def visit(state, moving, summed, owner):
        part = _arrays(route, learnt, fixed, moving, owner)
        dq, dk, dv, dbias, more = heads.differentiate(run, part, y, rows, dy, plan)
        add = functools.partial(jax.tree.map, jnp.add)
        total, dtotal, dlearnt = state
        dtotal = _add_part(route, dtotal, dbias, owner)
        return (total + dq, dtotal, add(dlearnt, more)), add(summed, (dk, dv))

    zeros = lambda x: varying.like(jnp.zeros(x.shape, y.dtype), x)
    start = jax.tree.map(zeros, (learnt["q"], learnt["bias"], learnt["learnt"]))
    moving = learnt["k"], learnt["v"]
    home = jax.tree.map(zeros, moving)
    (dq, dbias, more), (dk, dv) = _around(route, visit, start, moving, home)
    grads = {"q": dq, "k": dk, "v": dv, "bias": dbias, "learnt": more, "sinks": None}
    if learnt["sinks"] is not None:
        grads["sinks"] = blockwise.of_sinks(learnt["sinks"], rows, y, dy)
    return jax.tree.map(lambda grad, x: grad.astype(x.dtype), grads, learnt), None


_visits.defvjp(_forward, _backward)


def _add_part(route, total, part, owner):
    """Adds the gradient of the bias of one part's sources."""
    if total is None or total.shape[3] == 1:
        return None if total is None else total + part
    return lax.dynamic_update_slice_in_dim(total, part, owner * route.sources, axis=3)


def _around(route: Route, visit, state, moving, summed):
    """Shows the parts of all devices to this one, and brings home what they gather.

    Args:
        route: how they go.
        visit: (state, moving, summed, owner) -> state, summed.
        state: what stays on this device.
        moving: what belongs to the sources of a device.
        summed: what is gathered for them on the way.
    """

    def meet(state, moving, summed, visits):
        owner = (route.here() - route.first - visits) % route.devices
        return visit(state, moving, summed, 0 if route.gathered else owner)

    def step(carry, visits):
        state, moving, summed = carry
        onward = _shift(route, moving, 1)  # on its way while this part is read
        state, summed = meet(state, moving, summed, visits)
        return (state, onward, _shift(route, summed, 1)), None

    carry = state, _shift(route, moving, route.first), summed
    last = route.count - 1
    carry, _ = lax.scan(step, carry, jnp.arange(last))
    state, summed = meet(*carry, last)
    return state, _shift(route, summed, -route.first - last)


def _shift(route: Route, arrays, by: int):
    """Sends arrays `by` devices on, around the ring."""
    if by % route.devices == 0 or not arrays:
        return arrays
    pairs = [(i, (i + by) % route.devices) for i in range(route.devices)]
    return lax.ppermute(arrays, route.axis_name, pairs)
