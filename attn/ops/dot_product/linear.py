"""A linear map with a transpose of its own, which forward and reverse mode both take.

`jax.custom_vjp` knows no forward mode, and the transpose that JAX makes of a
`jax.custom_jvp` would keep every block. So the tangents of a `custom_jvp` are a
primitive: run as it is forward, by the transpose in reverse, and differentiated once
more as the program that it stands for.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir

_map_p = core.Primitive("attention_tangent")


def call(forward: Callable, transpose: Callable, kept: Any, tangents: Any) -> jax.Array:
    """forward(kept, tangents), whose transpose is transpose(kept, cotangent).

    Args:
        forward: (kept, tangents) -> an array, linear in `tangents`.
        transpose: (kept, array) -> what is of the structure of `tangents`.
        kept: a tree of arrays.
        tangents: a tree of arrays.
    """
    kept, outer = jax.tree.flatten(kept)
    tangents, inner = jax.tree.flatten(tangents)

    def flat_forward(*args):
        return forward(outer.unflatten(args[: len(kept)]), inner.unflatten(args[-n:]))

    def flat_transpose(*args):
        return jax.tree.leaves(transpose(outer.unflatten(args[:-1]), args[-1]))

    n = len(tangents)
    made = jax.eval_shape(flat_forward, *kept, *tangents)
    return _map_p.bind(
        *kept,
        *tangents,
        forward=flat_forward,
        transpose=flat_transpose,
        count=len(kept),
        shape=made.shape,
        dtype=made.dtype,
    )


@_map_p.def_impl
def _run(*args, forward, **_):
    return forward(*args)


@_map_p.def_abstract_eval
def _abstract(*avals, shape, dtype, **_):
    return avals[0].update(shape=shape, dtype=dtype, weak_type=False)


def _transpose(cotangent, *args, transpose, count, **_):
    kept, tangents = args[:count], args[count:]
    made = transpose(*kept, cotangent)
    wanted = [ad.is_undefined_primal(x) for x in tangents]
    found = [x if want else None for x, want in zip(made, wanted, strict=True)]
    return [None] * count + found


def _differentiate(primals, tangents, *, forward, count, **params):
    params |= {"forward": forward, "count": count}
    value = _map_p.bind(*primals, **params)
    if all(isinstance(x, ad.Zero) for x in tangents[:count]):
        along = map(ad.instantiate_zeros, tangents[count:])
        return value, _map_p.bind(*primals[:count], *along, **params)
    along = [_instantiated(x, t) for x, t in zip(primals, tangents, strict=True)]
    return jax.jvp(forward, tuple(primals), tuple(along))


def _instantiated(primal, tangent):
    if not isinstance(tangent, ad.Zero):
        return tangent
    if jnp.issubdtype(primal.dtype, jnp.inexact):
        return jnp.zeros_like(primal)
    return np.zeros(primal.shape, jax.dtypes.float0)


def _batch(args, dims, *, forward, transpose, count, shape, **params):
    (size,) = {x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None}

    def transposed(*args):
        made = jax.vmap(transpose, (*dims[:count], 0))(*args)
        return [
            jnp.sum(x, axis=0) if d is None else jnp.moveaxis(x, 0, d)
            for x, d in zip(made, dims[count:], strict=True)
        ]

    made = _map_p.bind(
        *args,
        forward=jax.vmap(forward, dims),
        transpose=transposed,
        count=count,
        shape=(size, *shape),
        **params,
    )
    return made, 0


ad.primitive_transposes[_map_p] = _transpose
ad.primitive_jvps[_map_p] = _differentiate
batching.primitive_batchers[_map_p] = _batch
mlir.register_lowering(_map_p, mlir.lower_fun(_run, multiple_results=False))
