"""Masks as functions for `attn.ops.dot_product_attention(..., mask_mod=...)`.

Each makes a function of one place, mask_mod(b, n, t, s): whether target t of head n may
attend to source s in example b. Such a mask takes no memory, and the blocks in which it
allows nothing are not computed. Your own is a function of four int32 scalars, and may
use arrays from where it is defined.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from attn.ops.dot_product.mods import MaskMod


def causal() -> MaskMod:
    """Target t sees the sources s <= t."""
    return lambda b, n, t, s: s <= t


def sliding_window(left: int, right: int) -> MaskMod:
    """Target t sees the sources from t - left to t + right."""
    return lambda b, n, t, s: (t - s <= left) & (s - t <= right)


def prefix_lm(prefix: jax.Array) -> MaskMod:
    """All see the first prefix[b] sources, and of the later ones those s <= t.

    Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer", JMLR 2020, https://arxiv.org/abs/1910.10683, figure 4.

    Args:
        prefix: lengths of the prefixes, integers [B], or [1] for all examples; those
            that it lacks have none.
    """
    prefix = jnp.asarray(prefix)
    return lambda b, n, t, s: (s < _entry(prefix, b)) | (s <= t)


def documents(targets: jax.Array, sources: jax.Array | None = None) -> MaskMod:
    """Targets see the sources of their own document, of several in one row.

    Args:
        targets: number of the document of each target, integers [B, T], or [1, T] for
            all examples. Those beyond it see nothing.
        sources: of each source, [B, S] or [1, S]; None is that of the targets. Those
            beyond it are seen by none.
    """
    targets = jnp.asarray(targets)
    sources = targets if sources is None else jnp.asarray(sources)

    def see(b, n, t, s):
        there = (t < targets.shape[1]) & (s < sources.shape[1])
        for numbers in targets, sources:
            there &= (len(numbers) == 1) | (b < len(numbers))
        return there & (_entry(targets, b, t) == _entry(sources, b, s))

    return see


def neighborhood(width: int, rows: int, columns: int) -> MaskMod:
    """Positions of a map, row after row, see those at most so far from them.

    Ramachandran et al., "Stand-Alone Self-Attention in Vision Models", NeurIPS 2019,
    https://arxiv.org/abs/1906.05909, section 3: beyond the border there is nothing.

    Args:
        width: W of the map [H, W].
        rows: how many rows they see to each side.
        columns: how many columns.
    """

    def see(b, n, t, s):
        down, along = s // width - t // width, s % width - t % width
        return (jnp.abs(down) <= rows) & (jnp.abs(along) <= columns)

    return see


def _entry(x: jax.Array, b: jax.Array, *place: jax.Array) -> jax.Array:
    """An entry of example b, or of the one that stands for all; 0 beyond them."""
    example = 0 if len(x) == 1 else b
    return x.at[(example, *place)].get(mode="fill", fill_value=0)


def every(*masks: MaskMod) -> MaskMod:
    """What all of these allow."""
    return lambda *place: functools.reduce(operator.and_, (m(*place) for m in masks))


def some(*masks: MaskMod) -> MaskMod:
    """What any of these allows."""
    return lambda *place: functools.reduce(operator.or_, (m(*place) for m in masks))
