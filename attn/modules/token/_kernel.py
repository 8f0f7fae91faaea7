"""Attention by features of queries and keys, for `linear` and `performer`."""

import jax

from attn import settings
from attn.modules.capture import sow
from attn.modules.token import _cache
from attn.modules.token.base import Call, Heads
from attn.ops import linear_attention as ops


def attend(module: Heads, call: Call, features: ops.Features) -> jax.Array:
    """The output [B, T, C] of `module`, whose kernel is a product of `features`."""
    query, made = module.project(call)
    if call.decode:
        y = _decode(module, call, query, made, features)
        return module.merge(y, call.q.shape[-1])
    key, value = made["key"], made["value"]
    hidden = {"kv_mask": call.kv_mask}

    def factors():
        return ops.linear_factors(query, key, features, **hidden)

    def matrix():
        return ops.causal_weights(query, key, features, **hidden)

    if call.causal:
        sow(module, "token_matrix", matrix, grid=call.grid)
    else:
        sow(module, "factors", factors, grid=call.grid)
    y = ops.linear_attention(query, key, value, features, causal=call.causal, **hidden)
    return module.merge(y, call.q.shape[-1])


def _decode(module, call, query, made, features) -> jax.Array:
    """Values of queries, from the state of all sources so far, [B, T, N, D].

    Raises:
        Invalid: a mask of sources that are in the state already.
    """
    if module.is_initializing():
        key, value = made["key"], made["value"]
        state = ops.empty_state(key, value, features)
        _cache.create(module, call, state._asdict(), limited=call.cross)
        return ops.linear_attention(
            query, key, value, features, kv_mask=call.kv_mask, causal=call.causal
        )
    state = ops.LinearState(
        *(_cache.get(module, name) for name in ops.LinearState._fields)
    )
    if call.causal:
        y, state = ops.causal_step(
            query, made["key"], made["value"], features, state, kv_mask=call.kv_mask
        )
        _cache.put(module, state._asdict() | {"index": call.start + query.shape[1]})
        return y
    if made is None and call.kv_mask is not None:
        raise settings.Invalid(
            f"{type(module).__name__} keeps a sum of its sources, which cannot be"
            " masked afterwards: give kv_mask with kv alone"
        )
    if made is not None:
        key, value = made["key"], made["value"]
        state = ops.linear_state(key, value, features, kv_mask=call.kv_mask)
        _cache.put(module, state._asdict())
    return ops.linear_read(query, state, features).astype(query.dtype)
