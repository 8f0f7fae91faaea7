"""Sparse distributions over logits: what softmax is, but with exact zeros.

`sparsemax`: Martins & Astudillo, "From Softmax to Sparsemax", ICML 2016,
https://arxiv.org/abs/1602.02068, equation 1: the Euclidean projection of the logits
z onto the simplex, p_i = max(0, z_i - tau).

`entmax15`: Peters, Niculae & Martins, "Sparse Sequence-to-Sequence Models", ACL 2019,
https://arxiv.org/abs/1905.05702, equation 13 at alpha = 1.5: half way between the
two, p_i = max(0, z_i / 2 - tau)^2.

In both tau is what makes a row sum to 1, found exactly by sorting. With s the
support, the derivative is dp = w * (dz - sum(w dz) / sum(w)), where w is s for
sparsemax (equation 11 of the first paper) and sqrt(p) for entmax15 (proposition 2 of
the second).

Differs from the papers: a logit of -inf gets 0, and a row of nothing else is all
zeros with zero gradients.
"""

import jax
import jax.numpy as jnp


def sparsemax(logits: jax.Array, axis: int = -1) -> jax.Array:
    """The point of the simplex that is nearest to the logits.

    Costs a sort along `axis`, O(S log S) a row.

    Args:
        logits: [..., S, ...]; -inf where nothing may be given.
        axis: along which the result sums to 1.

    Returns:
        Non-negative weights of the shape of `logits`, at least float32, many of
        them exactly 0. A row of -inf alone is all zeros.
    """
    return _along(_sparsemax, logits, axis)


def entmax15(logits: jax.Array, axis: int = -1) -> jax.Array:
    """The weights p that maximise p . z + H(p), H Tsallis' entropy of alpha = 1.5.

    H(p) = (4/3) sum_i (p_i - p_i^1.5). Arguments, result and cost are those of
    `sparsemax`; fewer of the weights are 0.
    """
    return _along(_entmax15, logits, axis)


def _along(function, logits: jax.Array, axis: int) -> jax.Array:
    """`function` of the last axis, along another one, in at least float32."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if logits.shape[axis] == 0:
        return logits
    return jnp.moveaxis(function(jnp.moveaxis(logits, axis, -1)), -1, axis)


@jax.custom_jvp
def _sparsemax(logits: jax.Array) -> jax.Array:
    z, given = _shift(logits)
    ordered = -jnp.sort(-z, axis=-1)
    rank = _ranks(z)
    inside = 1 + rank * ordered > jnp.cumsum(ordered, axis=-1)
    _, support = _support(z, ordered, inside)
    tau = (_sum(support * z) - 1) / _sum(support)
    return jnp.where(given, jnp.maximum(z - tau, 0), 0)


@_sparsemax.defjvp
def _sparsemax_jvp(primals, tangents):
    p = _sparsemax(*primals)
    return p, _weighted((p > 0).astype(p.dtype), *tangents)


@jax.custom_jvp
def _entmax15(logits: jax.Array) -> jax.Array:
    z, given = _shift(logits / 2)
    ordered = -jnp.sort(-z, axis=-1)
    rank = _ranks(z)
    mean = jnp.cumsum(ordered, axis=-1) / rank
    spread = jnp.cumsum(ordered**2, axis=-1) - rank * mean**2
    inside = mean - jnp.sqrt(jnp.maximum(1 - spread, 0) / rank) <= ordered
    size, support = _support(z, ordered, inside)
    # Once more on the support, about its mean: the difference of the running sums
    # of squares, good enough to find it, has lost digits.
    mean = _sum(support * z) / size
    spread = _sum(support * (z - mean) ** 2)
    tau = mean - jnp.sqrt(jnp.maximum(1 - spread, 0) / size)
    return jnp.where(given, jnp.maximum(z - tau, 0) ** 2, 0)


@_entmax15.defjvp
def _entmax15_jvp(primals, tangents):
    p = _entmax15(*primals)
    # The root of 1 outside the support, since that of 0 has no derivative.
    root = jnp.where(p > 0, jnp.sqrt(jnp.where(p > 0, p, 1)), 0)
    return p, _weighted(root, *tangents)


def _shift(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits with a maximum of 0 and none below -2, and which are not -inf.

    Either threshold is at least -1, so that smaller logits get 0 whatever they are.
    """
    top = jnp.max(z, axis=-1, keepdims=True)
    top = jnp.where(top == -jnp.inf, 0, top)
    return jnp.maximum(z - top, -2), z != -jnp.inf


def _ranks(z: jax.Array) -> jax.Array:
    """1, 2, ..., S along the last axis, [1, ..., 1, S]."""
    ranks = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype)
    return ranks.reshape((1,) * (z.ndim - 1) + (-1,))


def _support(
    z: jax.Array, ordered: jax.Array, inside: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How many of the ordered logits are inside, [..., 1], and which of z, as 0, 1."""
    count = jnp.sum(inside, axis=-1, keepdims=True)
    least = jnp.take_along_axis(ordered, jnp.maximum(count - 1, 0), axis=-1)
    support = (z >= least).astype(z.dtype)
    return _sum(support), support


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=-1, keepdims=True)


def _weighted(weights: jax.Array, tangent: jax.Array) -> jax.Array:
    """The derivative: weights * (tangent - its mean by these weights)."""
    total = _sum(weights)
    total = jnp.where(total > 0, total, 1)
    return weights * (tangent - _sum(weights * tangent) / total)
