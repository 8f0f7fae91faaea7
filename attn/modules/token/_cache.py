"""The collection "cache" of a token module that decodes.

For self-attention it has the arrays of all sources so far, such as `cached_key`, with
`cached_kv_mask` [B, L], and `cached_index`, the number of places that are filled; a
module that keeps sums of its sources has no mask. For cross-attention it has the arrays
of the sources and their mask, but no index.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

CACHE = "cache"
PREFIX = "cached_"  # submodules have names such as "key" too


class State(NamedTuple):
    """What a call finds in the cache."""

    cross: bool = False
    """whether it holds the sources of cross-attention"""
    start: jax.Array | None = None
    """number of filled places"""
    length: int | None = None
    """number of places, where they are limited"""


NONE = State()


def find(module: Any, kv: jax.Array | None, q: jax.Array) -> State:
    """The state of the cache, for a call of `module` with `q` and `kv`.

    Raises:
        ValueError: there is no cache, it is of another kind of attention, or `kv` or
            `q` do not fit in it.
    """
    if module.is_initializing():
        return NONE._replace(cross=kv is not None)
    name = type(module).__name__
    filled = has(module, "index")
    if not filled and not has(module, "kv_mask"):
        raise ValueError(
            f"{name} needs a cache to decode: init(..., decode=True) with a call of"
            " full length makes it"
        )
    length = None
    if has(module, "kv_mask"):
        batch, length = get(module, "kv_mask").shape
        if q.shape[0] != batch:
            raise ValueError(
                f"the cache of this {name} is for {batch} examples, got {q.shape[0]}"
            )
    if not filled:
        if kv is not None and kv.shape[1] != length:
            raise ValueError(
                f"the cache of this {name} is for {length} sources, got {kv.shape[1]}"
            )
        return State(cross=True, length=length)
    if kv is not None:
        raise ValueError(
            f"the cache of this {name} is of self-attention, which takes no kv"
        )
    if length is not None and q.shape[1] > length:
        raise ValueError(
            f"the cache of this {name} has {length} places, got {q.shape[1]} tokens"
        )
    return State(start=get(module, "index"), length=length)


def exchange(
    module: Any, call: Any, made: dict[str, jax.Array] | None
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Stores what was made of the sources of a call, and gets all that is stored.

    Returns:
        The arrays by name, and what targets see of them, [B, N, T, S] of which any
        axis may be 1.
    """
    exchanged = _sources if call.start is None else _append
    arrays, seen = exchanged(module, call, made)
    return arrays, seen if call.mask is None else call.mask & seen


def create(
    module: Any, call: Any, made: dict[str, jax.Array], *, limited: bool = True
) -> None:
    """Makes an empty cache for arrays such as `made`.

    Args:
        module: the module, which is being initialised.
        call: the call.
        made: the arrays; what the cache begins with unless it is `limited`.
        limited: whether the arrays are of sources, of which there are none at first.
    """
    arrays = dict(made)
    if limited:
        arrays = {name: jnp.zeros_like(x) for name, x in arrays.items()}
        arrays["kv_mask"] = jnp.zeros(call.kv.shape[:2], bool)
    if not call.cross:
        arrays["index"] = jnp.zeros((), jnp.int32)
    for name, x in arrays.items():
        module.variable(CACHE, PREFIX + name, lambda x=x: x)


def has(module: Any, name: str) -> bool:
    """Whether the cache has an array."""
    return module.has_variable(CACHE, PREFIX + name)


def get(module: Any, name: str) -> jax.Array:
    """An array of the cache."""
    return module.get_variable(CACHE, PREFIX + name)


def put(module: Any, arrays: dict[str, jax.Array]) -> None:
    """Replaces arrays of the cache."""
    for name, x in arrays.items():
        module.put_variable(CACHE, PREFIX + name, x)


def _append(module, call, made):
    """Puts new sources behind those of the cache."""
    targets = call.q.shape[1]
    places = jnp.arange(call.length)
    before = places[None] <= call.start + jnp.arange(targets)[:, None]
    arrays = {}
    for name, x in {**made, "kv_mask": _real(call)}.items():
        old = get(module, name)
        arrays[name] = jax.lax.dynamic_update_slice_in_dim(
            old, x.astype(old.dtype), call.start, axis=1
        )
    put(module, arrays | {"index": call.start + targets})
    seen = arrays.pop("kv_mask")[:, None, None, :]
    return arrays, seen & before[None, None]


def _sources(module, call, made):
    """Sources of cross-attention: new ones, which are stored, or those of before."""
    if made is not None:
        arrays = {**made, "kv_mask": _real(call)}
        put(module, arrays)
        seen = arrays.pop("kv_mask")
        return arrays, seen[:, None, None, :]
    stored = [name.removeprefix(PREFIX) for name in module.variables[CACHE]]
    arrays = {name: get(module, name) for name in stored}
    seen = arrays.pop("kv_mask")
    seen = seen if call.kv_mask is None else seen & call.kv_mask
    return arrays, seen[:, None, None, :]


def _real(call) -> jax.Array:
    """`kv_mask` of the sources of a call, [B, S]."""
    shape = call.kv.shape[:2]
    if call.kv_mask is None:
        return jnp.ones(shape, bool)
    return jnp.broadcast_to(call.kv_mask, shape)
