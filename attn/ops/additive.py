"""Additive scores of all pairs of tokens, without a tensor of pairs times channels.

Bahdanau, Cho, Bengio, 2015, https://arxiv.org/abs/1409.0473, appendix A.1.2. Letters:
B batch, T targets, S sources, A hidden channels.
"""

import jax
import jax.numpy as jnp

from attn.ops.shapes import known

# Numbers of tanh that are made at once: what a cache holds is fast.
AT_ONCE = 2**18


def additive_logits(asked: jax.Array, found: jax.Array, score: jax.Array) -> jax.Array:
    """score . tanh(asked_t + found_s): [B, T, A], [B, S, A], [A] -> [B, T, S], float32.

    Costs B T S A multiply-adds and as many tanh, which the backward pass makes again:
    memory is that of the result and of blocks of targets, not of B T S A.
    """
    batch, targets, hidden = asked.shape
    pairs = max(1, known(batch) * found.shape[1] * hidden)
    size = max(1, AT_ONCE // pairs)

    @jax.checkpoint
    def of_one(target):
        pairs = jnp.tanh(target[:, None, :] + found)
        return jnp.einsum("bsa,a->bs", pairs, score, preferred_element_type=jnp.float32)

    rows = jnp.moveaxis(asked, 1, 0)
    if size >= targets:
        logits = jax.vmap(of_one)(rows)
    else:
        logits = jax.lax.map(of_one, rows, batch_size=size)
    return jnp.moveaxis(logits, 0, 1)
