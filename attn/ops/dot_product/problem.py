"""What was asked of dot-product attention, checked once and in one form.

Every implementation takes `Inputs`, whose arrays have one leading axis B, and `Asked`,
which is static: a causal mask is a window without a right side. Letters used in
shapes:
    B batch, T targets (queries), S sources (keys), N heads of queries, K heads of keys
    and values, D channels of a query, Dv channels of a value.
"""

import dataclasses
import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attn.ops.dot_product import mods

FAR = 2**30  # a reach that is none: no sequence is as long
NORMALIZATIONS = ("softmax", "sigmoid", "sparsemax", "entmax15")


class Inputs(NamedTuple):
    """The arrays of one call."""

    q: jax.Array
    """[B, T, N, D]"""
    k: jax.Array
    """[B, S, K, D]"""
    v: jax.Array
    """[B, S, K, Dv]"""
    bias: jax.Array | None
    """[B, N, T, S], of which each axis may be 1"""
    mask: jax.Array | None
    """boolean [B, N, T, S], of which each axis may be 1"""
    q_lengths: jax.Array | None
    """int32 [B]"""
    kv_lengths: jax.Array | None
    """int32 [B]"""
    dropout_rng: jax.Array | None
    """one random key"""
    sinks: jax.Array | None = None
    """[N], logits beside those of the sources"""
    mask_captured: tuple = ()
    """arrays that mask_mod captured"""
    score_captured: tuple = ()
    """arrays that score_mod captured"""
    seen: jax.Array | None = None
    """of tiles, which hold anything that mask_mod allows (`skips.find`)"""


@dataclasses.dataclass(frozen=True)
class Asked:
    """The settings of one call, hashable.

    Attributes:
        scale: factor of the products.
        left: target t sees no source before t - left; None sets no limit.
        right: target t sees no source after t + right; None sets no limit.
        logits_cap: logits x become cap tanh(x / cap); None leaves them.
        dropout_rate: how likely a weight is dropped.
        normalize: what makes weights of logits.
        return_weights: whether the matrix is to be returned too.
        mask_mod: says of each place whether it may be attended to.
        score_mod: makes the logit of each place of its score.
    """

    scale: float
    left: int | None
    right: int | None
    logits_cap: float | None
    dropout_rate: float
    normalize: str
    return_weights: bool
    mask_mod: mods.Mod | None = None
    score_mod: mods.Mod | None = None

    @property
    def banded(self) -> bool:
        """Whether targets see sources of some distances only."""
        return self.left is not None or self.right is not None


def check(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: int | tuple[int | None, int | None] | None = None,
    q_lengths: jax.Array | None = None,
    kv_lengths: jax.Array | None = None,
    logits_cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: jax.Array | None = None,
    return_weights: bool = False,
    normalize: str = "softmax",
    mask_mod: mods.MaskMod | None = None,
    score_mod: mods.ScoreMod | None = None,
    sinks: jax.Array | None = None,
) -> tuple[Inputs, Asked]:
    """The one place where the arguments of `dot_product_attention` are checked.

    Raises:
        ValueError: something does not fit; the message has both numbers.
    """
    q, k, v = (jnp.asarray(x) for x in (q, k, v))
    _check_arrays(q, k, v)
    _check_settings(scale, logits_cap, dropout_rate, dropout_rng, normalize)
    lead, sizes = q.shape[:-3], (q.shape[-2], q.shape[-3], k.shape[-3])
    left, right = _window(window)
    if is_causal:
        right = 0 if right is None else min(right, 0)
    dtype = jnp.promote_types(q.dtype, jnp.float32)
    may, may_captured = mods.trace_mask(mask_mod) if mask_mod else (None, ())
    score, captured = mods.trace_score(score_mod, dtype) if score_mod else (None, ())
    inputs = Inputs(
        *(_flat(x) for x in (q, k, v)),
        bias=None if bias is None else matrix("bias", number(bias), lead, sizes),
        mask=None if mask is None else matrix("mask", _boolean(mask), lead, sizes),
        q_lengths=_lengths("q_lengths", q_lengths, lead),
        kv_lengths=_lengths("kv_lengths", kv_lengths, lead),
        dropout_rng=dropout_rng if dropout_rate > 0 else None,
        sinks=_sinks(sinks, q.shape[-2], normalize),
        mask_captured=may_captured,
        score_captured=captured,
    )
    asked = Asked(
        scale=q.shape[-1] ** -0.5 if scale is None else float(scale),
        left=left,
        right=right,
        logits_cap=None if logits_cap is None else float(logits_cap),
        dropout_rate=float(dropout_rate),
        normalize=normalize,
        return_weights=return_weights,
        mask_mod=may,
        score_mod=score,
    )
    return inputs, asked


def broadcastable(name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """`array` with axes of length 1 before it, so that it broadcasts to `shape`.

    Raises:
        ValueError: it does not.
    """
    try:
        if jnp.broadcast_shapes(array.shape, shape) != shape:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{name} of shape {array.shape} does not broadcast to [B, N, T, S] ="
            f" {shape}"
        ) from None
    return array.reshape((1,) * (len(shape) - array.ndim) + array.shape)


def _check_arrays(q: jax.Array, k: jax.Array, v: jax.Array) -> None:
    for name, x in (("queries", q), ("keys", k), ("values", v)):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point, got {x.dtype}")
    if q.ndim < 3 or k.ndim != q.ndim or q.shape[:-3] != k.shape[:-3]:
        raise ValueError(
            "queries [B, T, N, D] and keys [B, S, K, D] must agree in B, got"
            f" {q.shape} and {k.shape}"
        )
    if v.shape[:-1] != k.shape[:-1]:
        raise ValueError(
            "keys [B, S, K, D] and values [B, S, K, Dv] must agree in B, S and K, got"
            f" {k.shape} and {v.shape}"
        )
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"heads of queries have {q.shape[-1]} channels, of keys {k.shape[-1]}"
        )
    if q.shape[-1] < 1:
        raise ValueError("heads of queries and keys have no channels")
    heads, groups = q.shape[-2], k.shape[-2]
    if groups < 1 or heads % groups:
        fit = [n for n in range(1, heads + 1) if heads % n == 0]
        raise ValueError(
            f"{groups} heads of keys do not divide {heads} heads of queries; what"
            f" would fit is one of {fit}"
        )


def _check_settings(
    scale: float | None, logits_cap: float | None, rate: float, rng: Any, normalize: str
) -> None:
    if isinstance(scale, jax.core.Tracer):
        raise ValueError(
            "scale is a number that is known while the program is traced; multiply the"
            " queries by one that is learnt"
        )
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number, got {scale}")
    if normalize not in NORMALIZATIONS:
        raise ValueError(
            f"normalize must be one of {NORMALIZATIONS}, got {normalize!r}"
        )
    if not 0 <= rate < 1:
        raise ValueError(f"dropout_rate must be in [0, 1), got {rate}")
    if rate > 0 and rng is None:
        raise ValueError(f"dropout_rate={rate} needs a random key, dropout_rng")
    if logits_cap is not None and not 0 < logits_cap < math.inf:
        raise ValueError(
            f"logits_cap must be None or positive and finite, got {logits_cap}"
        )


def _sinks(sinks: jax.Array | None, heads: int, normalize: str) -> jax.Array | None:
    if sinks is None:
        return None
    sinks = jnp.asarray(sinks)
    if sinks.shape != (heads,):
        raise ValueError(
            f"sinks are one logit for each of {heads} heads of queries, [N], got"
            f" {sinks.shape}"
        )
    if normalize == "sigmoid":
        raise ValueError("sinks change nothing where normalize is 'sigmoid'")
    return sinks


def _window(
    window: int | tuple[int | None, int | None] | None,
) -> tuple[int | None, int | None]:
    """How many sources before and after its own position a target sees."""
    if window is None:
        return None, None
    pair = tuple(window) if isinstance(window, tuple | list) else (window, window)
    pair = tuple(x.item() if _is_known_scalar(x) else x for x in pair)
    if len(pair) != 2 or not all(x is None or _is_count(x) for x in pair):
        raise ValueError(
            "window is a count of sources to each side, or a pair of counts (left,"
            f" right) of at least 0, got {window!r}"
        )
    # Places are of 32 bits, so that a place and such a reach have no sum.
    left, right = (None if x is None or x >= FAR else int(x) for x in pair)
    return left, right


def _is_known_scalar(x: Any) -> bool:
    array = isinstance(x, jax.Array | np.ndarray | np.generic) and x.ndim == 0
    return array and not isinstance(x, jax.core.Tracer)


def _is_count(x: Any) -> bool:
    if isinstance(x, bool) or not isinstance(x, numbers.Real):
        return False
    return math.isfinite(x) and x == int(x) and x >= 0


def _boolean(mask: jax.Array) -> jax.Array:
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be boolean (True = may attend), got {mask.dtype}")
    return mask


def number(bias: jax.Array) -> jax.Array:
    """`bias` as an array; ValueError for a boolean one."""
    bias = jnp.asarray(bias)
    if bias.dtype == jnp.bool_:
        raise ValueError("bias is added to logits, and is boolean: is it a mask?")
    return bias


def _flat(x: jax.Array) -> jax.Array:
    """[..., S, K, D] -> [B, S, K, D]."""
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])


def matrix(
    name: str, x: jax.Array, lead: tuple[int, ...], sizes: tuple[int, int, int]
) -> jax.Array:
    """[..., N, T, S] -> [B, N, T, S], any of them 1.

    Raises:
        ValueError: it does not broadcast to the axes `lead` and (N, T, S) `sizes`.
    """
    x = broadcastable(name, jnp.asarray(x), (*lead, *sizes))
    if any(n != 1 for n in x.shape[:-3]):
        x = jnp.broadcast_to(x, (*lead, *x.shape[-3:]))
        return x.reshape(math.prod(lead), *x.shape[-3:])
    return x.reshape(1, *x.shape[-3:])


def _lengths(name: str, x: jax.Array | None, lead: tuple[int, ...]) -> jax.Array | None:
    """Lengths [...] -> int32 [B]."""
    if x is None:
        return None
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{name} must be whole numbers, got {x.dtype}")
    try:
        x = jnp.broadcast_to(x, lead)
    except ValueError:
        raise ValueError(
            f"{name} of shape {x.shape} does not broadcast to [B] = {lead}"
        ) from None
    return x.reshape(-1).astype(jnp.int32)
