"""JAX's splash attention kernel for TPUs as an implementation.

`jax.experimental.pallas.ops.tpu.splash_attention`: flash attention that skips the
blocks that a static mask hides. Lengths are filled up to multiples of 128, the filling
kept out by segment ids, as are `kv_lengths`. On other platforms it runs in Pallas'
interpreter, which is for tests.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from attn.ops.dot_product import jax_nn
from attn.ops.dot_product.problem import Asked, Inputs

LANES = 128


def attend(inputs: Inputs, asked: Asked) -> jax.Array:
    """The read values [B, T, N, Dv].

    Raises:
        NotImplementedError: what the kernel cannot do.
    """
    jax_nn.refuse("pallas_tpu", inputs, asked, logits_cap=True)
    if inputs.bias is not None or inputs.mask is not None:
        what = "a bias" if inputs.bias is not None else "a mask"
        raise NotImplementedError(f"pallas_tpu takes no array as {what}")
    targets, sources = inputs.q.shape[1], inputs.k.shape[1]
    rows, columns = (-(-n // LANES) * LANES for n in (targets, sources))
    # A row in which the kernel skips every block divides by zero. The filling counts.
    if asked.left is not None and rows - 1 - asked.left > columns - 1:
        raise NotImplementedError(
            f"pallas_tpu needs something to see for each target, but {targets} see no"
            f" source before t - {asked.left} of {sources}"
        )
    kernel = _kernel(rows, columns, inputs.q.shape[2], asked)
    # The kernel knows no scale, and multiplies in float32.
    q = asked.scale * inputs.q.astype(jnp.float32)
    q = _filled(q.astype(inputs.q.dtype), rows)
    k, v = _filled(inputs.k, columns), _filled(inputs.v, columns)
    ids = _segments(inputs, rows, columns)
    y = jax.vmap(kernel)(q, k, v, ids)
    return y[:, :, :targets].transpose(0, 2, 1, 3)


def _kernel(rows: int, columns: int, heads: int, asked: Asked):
    """The kernel for one example, of [N, rows, D] and [K, columns, D]."""
    mask = splash.FullMask((rows, columns))
    if asked.banded:
        mask = splash.LocalMask((rows, columns), (asked.left, asked.right), offset=0)
    q, k = _block(rows), _block(columns)
    return splash.make_splash_mha_single_device(
        splash.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(
            block_q=q,
            block_kv=k,
            block_q_dkv=q,
            block_kv_dkv=k,
            block_q_dq=q,
            block_kv_dq=k,
        ),
        attn_logits_soft_cap=asked.logits_cap,
        interpret=jax.default_backend() != "tpu",
    )


def _block(length: int) -> int:
    """The longest block of at most 512 that divides a multiple of 128."""
    return next(n for n in (512, 384, 256, 128) if length % n == 0)


def _filled(x: jax.Array, length: int) -> jax.Array:
    """[B, T, N, D] -> [B, N, length, D]."""
    missing = length - x.shape[1]
    return jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (0, 0), (0, missing), (0, 0)))


def _segments(inputs: Inputs, rows: int, columns: int) -> splash.SegmentIds:
    """1 for each target and for each source that is there, 0 for filling."""
    batch, sources = inputs.k.shape[:2]
    limit = inputs.kv_lengths
    if limit is None:
        limit = jnp.full((batch,), sources)
    limit = jnp.minimum(limit, sources)[:, None]
    seen = (jnp.arange(columns)[None] < limit).astype(jnp.int32)
    return splash.SegmentIds(jnp.ones((batch, rows), jnp.int32), seen)
