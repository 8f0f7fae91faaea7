"""Which weights are dropped: a function of a seed and of the place in the matrix.

A weight's fate is a hash of (random key, example, head, target, source). So it is the
same on every implementation and for every size of blocks, and the backward pass finds
it again without keeping it. The hash of a row and that of a column are mixed once
more for each weight, by the 32-bit mixer "lowbias32" of Wellons, "Prospecting for
Hash Functions", 2018, https://nullprogram.com/blog/2018/07/31/: two multiplications,
where the generator of `jax.random` takes about a hundred operations.
"""

import jax
import jax.numpy as jnp


def seeds(key: jax.Array, batch: int, heads: int) -> jax.Array:
    """One number for each example and head, uint32 [B, N]."""
    return jax.random.bits(key, (batch, heads), jnp.uint32)


def kept(seed: jax.Array, t: jax.Array, s: jax.Array, rate: float) -> jax.Array:
    """Which weights stay: boolean, of the shape to which the arguments broadcast.

    Args:
        seed: uint32, from `seeds`.
        t: positions of targets.
        s: positions of sources.
        rate: the share that is dropped.
    """
    row = _mix(seed ^ _mix(t.astype(jnp.uint32) + jnp.uint32(0x9E3779B9)))
    column = _mix(seed + _mix(s.astype(jnp.uint32) ^ jnp.uint32(0x85EBCA6B)))
    threshold = jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    return _mix(row + column) >= threshold


def _mix(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
