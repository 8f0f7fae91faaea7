"""Who may attend to whom: masks, windows and lengths, put together.

A target that may attend to nothing reads zeros, and what nobody may attend to has no
influence, not even where it is NaN: `hide` sees to both, for every implementation.
"""

import jax
import jax.numpy as jnp
import numpy as np

from attn.ops.dot_product import skips
from attn.ops.dot_product.problem import Asked, Inputs


def combined(inputs: Inputs, asked: Asked) -> jax.Array | None:
    """All that masks as one mask [B, N, T, S], of which any axis may be 1."""
    t = lambda: jnp.arange(inputs.q.shape[1])[None, None, :, None]
    s = lambda: jnp.arange(inputs.k.shape[1])[None, None, None, :]
    parts = [inputs.mask]
    if asked.left is not None:
        parts.append(s() >= t() - asked.left)
    if asked.right is not None:
        parts.append(s() <= t() + asked.right)
    if inputs.q_lengths is not None:
        parts.append(t() < inputs.q_lengths[:, None, None, None])
    if inputs.kv_lengths is not None:
        parts.append(s() < inputs.kv_lengths[:, None, None, None])
    if asked.mask_mod is not None:
        (batch, targets, heads, _), sources = inputs.q.shape, inputs.k.shape[1]
        sizes = batch, heads, targets, sources
        parts.append(asked.mask_mod.matrix(inputs.mask_captured, sizes=sizes))
    mask = None
    for part in parts:
        if part is not None:
            mask = part if mask is None else mask & part
    return mask


def hide(inputs: Inputs, asked: Asked) -> tuple[Inputs, jax.Array | None]:
    """Puts zeros where nobody looks, and says which targets see something.

    Returns:
        The inputs with zeros in queries of targets that see nothing, and in keys and
        values of sources that no target sees; and those targets that see something,
        boolean [B, T, N, 1] of which any axis may be 1, or None if all do. The inputs
        have `seen`, if there is a mask function.
    """
    if asked.mask_mod is not None and 0 not in inputs.q.shape + inputs.k.shape:
        inputs, rows, columns = skips.find(inputs, asked)
    else:
        rows, columns = _rows_and_columns(inputs, asked)
    q, k, v = inputs.q, inputs.k, inputs.v
    if rows is not None:
        q = jnp.where(rows, q, jnp.zeros((), q.dtype))
    if columns is not None:
        columns = _of_key_heads(columns, k.shape[2])
        k = jnp.where(columns, k, jnp.zeros((), k.dtype))
        v = jnp.where(columns, v, jnp.zeros((), v.dtype))
    return inputs._replace(q=q, k=k, v=v), rows


def _rows_and_columns(
    inputs: Inputs, asked: Asked
) -> tuple[jax.Array | None, jax.Array | None]:
    """Targets that see something and sources that are seen, [B, T or S, N, 1]."""
    targets, sources = inputs.q.shape[1], inputs.k.shape[1]
    if inputs.mask is not None:
        mask = combined(inputs, asked)
        assert mask is not None
        rows = jnp.any(mask, axis=3, keepdims=True)
        columns = jnp.any(mask, axis=2, keepdims=True)
        return rows.transpose(0, 2, 1, 3), columns.transpose(0, 3, 1, 2)
    q_lengths, kv_lengths = inputs.q_lengths, inputs.kv_lengths
    rows = _reaches(targets, sources, asked.left, asked.right, q_lengths, kv_lengths)
    columns = _reaches(sources, targets, asked.right, asked.left, kv_lengths, q_lengths)
    return rows, columns


def _reaches(
    here: int,
    there: int,
    left: int | None,
    right: int | None,
    here_lengths: jax.Array | None,
    there_lengths: jax.Array | None,
) -> jax.Array | None:
    """Which of `here` positions have a partner `left` before to `right` after them.

    Returns:
        [B or 1, here, 1, 1], or None if all have one.
    """
    at = np.arange(here)[None, :, None, None]
    first = np.maximum(at - (here if left is None else left), 0)
    last = at + (there if right is None else right)  # the last one that it may see
    if here_lengths is None and there_lengths is None:
        found = first <= np.minimum(last, there - 1)
        return None if found.all() else jnp.asarray(found)
    found = first <= last
    if there_lengths is None:
        found = found & (first < there)
    else:
        found = found & (first < jnp.minimum(there_lengths, there)[:, None, None, None])
    if here_lengths is not None:
        found = found & (at < here_lengths[:, None, None, None])
    return jnp.asarray(found)


def _of_key_heads(columns: jax.Array, key_heads: int) -> jax.Array:
    """What any query head of a group sees: [B, S, N, 1] -> [B, S, K, 1]."""
    batch, sources, heads, _ = columns.shape
    if heads == 1:
        return columns
    columns = columns.reshape(batch, sources, key_heads, heads // key_heads)
    return jnp.any(columns, axis=3, keepdims=True)
