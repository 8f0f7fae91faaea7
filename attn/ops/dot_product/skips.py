"""Which blocks of the matrix hold anything that a mask function allows.

Found once, strip by strip of targets, so that no [T, S] array is made: while tracing,
where the function captures nothing that is only known when the program runs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attn.ops import varying
from attn.ops.dot_product import tiles
from attn.ops.dot_product.blocks import SMALL, Plan
from attn.ops.dot_product.problem import Asked, Inputs

TILE = SMALL  # of so many targets and sources at once it is known whether any sees any


def find(
    inputs: Inputs, asked: Asked, origin: tuple = (0, 0)
) -> tuple[Inputs, jax.Array, jax.Array]:
    """What mask_mod allows, together with masks, windows and lengths.

    Args:
        inputs: the arrays.
        asked: the settings.
        origin: where the first target and source are in the sequence.

    Returns:
        The inputs with `seen`; and the targets that see something and the sources that
        are seen, boolean [B, T or S, N, 1], of which B and N may be 1.
    """
    sizes = inputs.q.shape[0], inputs.q.shape[2], inputs.q.shape[1], inputs.k.shape[1]
    allowed = inputs._replace(q=None, k=None, v=None, bias=None, dropout_rng=None)
    allowed = allowed._replace(score_captured=())
    known = (allowed, origin)
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(known)):
        rows, columns, seen = _find(*varying.together(known), asked, sizes)
    else:
        with jax.ensure_compile_time_eval():
            rows, columns, seen = _find(*known, asked, sizes)
    swapped = (x.transpose(0, 2, 1)[..., None] for x in (rows, columns))
    return inputs._replace(seen=seen), *swapped


@functools.partial(jax.jit, static_argnums=(2, 3))
def _find(
    allowed: Inputs, origin: tuple, asked: Asked, sizes: tuple[int, int, int, int]
):
    """Booleans [B, N, T], [B, N, S] and [B, N, T / TILE, S / TILE]; B, N may be 1."""
    batch, heads, targets, sources = sizes
    by_example, by_head, *_ = asked.mask_mod.uses()
    if allowed.mask is not None:
        by_example |= allowed.mask.shape[0] > 1
        by_head |= allowed.mask.shape[1] > 1
    by_example |= allowed.q_lengths is not None or allowed.kv_lengths is not None
    over_heads = lambda b: lax.map(
        lambda n: _of_head(allowed, asked, (targets, sources), origin, b, n),
        jnp.arange(heads if by_head else 1),
    )
    return lax.map(over_heads, jnp.arange(batch if by_example else 1))


def _of_head(allowed: Inputs, asked: Asked, sizes: tuple[int, int], origin, b, n):
    targets, sources = sizes
    strips = -(-targets // TILE)
    plan = Plan(TILE, sources, loop=True, wide=True)
    mask = None
    if allowed.mask is not None:
        mask = tiles.Matrix(tiles.filled(allowed.mask, plan), b, n)
    of = lambda lengths: None if lengths is None else lengths[b]
    sight = tiles.Sight(
        mask, of(allowed.kv_lengths), allowed.mask_captured, b, n, origin
    )
    last = targets if allowed.q_lengths is None else of(allowed.q_lengths)
    last = jnp.minimum(last, targets)

    def strip(columns, j):
        may = tiles.may_attend(sight, asked, plan, j, 0, sizes)
        t = j * TILE + jnp.arange(TILE)[None]
        may = jnp.broadcast_to(may & (t < last), (sources, TILE))
        found = jnp.any(may, axis=1)
        return columns | found, (jnp.any(may, axis=0), _tiled(found))

    columns = varying.like(jnp.zeros(sources, bool), (allowed, origin))
    columns, (rows, seen) = lax.scan(strip, columns, jnp.arange(strips))
    return rows.reshape(-1)[:targets], columns, seen


def _tiled(found: jax.Array) -> jax.Array:
    """[S] -> [S / TILE], whether any of each tile is."""
    found = jnp.pad(found, (0, -found.shape[0] % TILE))
    return jnp.any(found.reshape(-1, TILE), axis=1)


def of_blocks(seen: jax.Array, sizes: tuple[int, int], plan: Plan) -> jax.Array:
    """[B, N, T / TILE, S / TILE] -> [B, N, J, I]: whether a block has any such tile."""
    down = _overlap(sizes[0], plan.q)
    along = _overlap(sizes[1], plan.k)
    counts = jnp.einsum("jt,bnts,is->bnji", down, seen.astype(jnp.float32), along)
    return counts > 0


def _overlap(length: int, size: int) -> np.ndarray:
    """Whether a block of `size` and a tile share a position: 0 or 1."""
    block = np.arange(-(-length // size))[:, None] * size
    tile = np.arange(-(-length // TILE))[None] * TILE
    return ((block < tile + TILE) & (tile < block + size)).astype(np.float32)


def order(seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of [I] the places of those that are True, first ones first, and how many."""
    return jnp.argsort(~seen, stable=True), jnp.sum(seen)
