"""The linear maps around the heads of a token attention.

They read the fields `num_heads`, `head_dim`, `qkv_bias`, `out_bias`, `dtype` and
`param_dtype` of the module in whose compact `__call__` they stand.
"""

from typing import Any

import flax.linen as nn
import jax

from attn import settings


def head_shape(
    channels: int, num_heads: int | None, head_dim: int | None
) -> tuple[int, int]:
    """Number of heads N and channels of one head D, given either or both.

    With one of them the other is C divided by it, with neither there are 4 heads;
    with both, N D need not be C.

    Raises:
        Invalid: one is below 1, or the one that is given does not divide C.
    """
    for name, value in (("num_heads", num_heads), ("head_dim", head_dim)):
        if value is not None and value < 1:
            raise settings.Invalid(f"{name} must be at least 1, got {value}")
    if num_heads is not None and head_dim is not None:
        return num_heads, head_dim
    name, parts = "num_heads", 4 if num_heads is None else num_heads
    if head_dim is not None:
        name, parts = "head_dim", head_dim
    if channels % parts:
        raise settings.Invalid(f"{name}={parts} must divide channels={channels}")
    rest = channels // parts
    return (rest, parts) if head_dim is not None else (parts, rest)


def project(
    module: Any, q: jax.Array, kv: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries [B, T, N, D] of `q`, keys and values [B, S, N, D] of `kv`."""
    heads = head_shape(q.shape[-1], module.num_heads, module.head_dim)
    query, key, value = (
        nn.DenseGeneral(
            heads,
            use_bias=module.qkv_bias,
            dtype=module.dtype or q.dtype,
            param_dtype=module.param_dtype,
            name=name,
        )(x)
        for name, x in (("query", q), ("key", kv), ("value", kv))
    )
    return query, key, value


def merge(module: Any, y: jax.Array, like: jax.Array) -> jax.Array:
    """The heads [B, T, N, D] together: [B, T, C], as wide as the tokens `like`."""
    return nn.DenseGeneral(
        like.shape[-1],
        axis=(-2, -1),
        use_bias=module.out_bias,
        dtype=module.dtype or like.dtype,
        param_dtype=module.param_dtype,
        name="out",
    )(y)


def parameters(module: Any, channels: int, kv_channels: int | None = None) -> int:
    """How many parameters these maps have: 4 C^2 + 4 C where all have biases.

    Args:
        module: for its fields.
        channels: C, of queries and output.
        kv_channels: of keys and values; None is C.
    """
    heads, dim = head_shape(channels, module.num_heads, module.head_dim)
    kernels = 2 * (channels + (kv_channels or channels)) * heads * dim
    biases = 3 * heads * dim * module.qkv_bias + channels * module.out_bias
    return kernels + biases
