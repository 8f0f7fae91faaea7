"""One call of a token module, checked: the contract of `attn.modules.token`."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from attn import settings
from attn.modules.token import _cache
from attn.ops.shapes import check_kv_mask

FEATURES = ("mask", "kv_mask", "causal", "decode")


@dataclasses.dataclass(frozen=True)
class Call:
    """A checked call.

    Attributes:
        q: [B, T, C].
        kv: [B, S, C], zeros where there is padding, `q` itself for self-attention;
            None where the sources are in the cache.
        mask: `mask` and `kv_mask` in one, [B, N, T, S] of which any axis may be 1; None
            where nothing is hidden. While decoding it is the given `mask`.
        kv_mask: [B, S] or None.
        causal: as given; True for self-attention that decodes.
        grid: as given.
        decode: as given.
        train: as given.
        cross: whether sources and targets are other tokens.
        start: place of the first target, where a filled cache is continued.
        length: number of places in that cache.
        q_position: as given.
        k_position: as given, `q_position` for self-attention without it.
    """

    q: jax.Array
    kv: jax.Array | None
    mask: jax.Array | None
    kv_mask: jax.Array | None
    causal: bool
    grid: tuple[int, int] | None
    decode: bool
    train: bool
    cross: bool
    start: jax.Array | None = None
    length: int | None = None
    q_position: jax.Array | None = None
    k_position: jax.Array | None = None

    @property
    def queries(self) -> jax.Array:
        """What queries are made of, [B, T, C]."""
        return _placed(self.q, self.q_position)

    @property
    def keys(self) -> jax.Array | None:
        """What keys are made of, [B, S, C]; values are made of `kv`."""
        return None if self.kv is None else _placed(self.kv, self.k_position)


class Visible(NamedTuple):
    """Sources that targets may attend to, as `ops.dot_product_attention` takes them."""

    mask: jax.Array | None
    """[B, N, T, S] of which any axis may be 1, or None"""
    is_causal: bool
    """whether target t sees the sources s <= t only"""

    def matrix(self, targets: int, sources: int) -> jax.Array | None:
        """Both as one mask, [B, N, T, S] of which any axis may be 1, or None."""
        if not self.is_causal:
            return self.mask
        before = jnp.arange(sources)[None] <= jnp.arange(targets)[:, None]
        before = before[None, None]
        return before if self.mask is None else self.mask & before


def check(
    module: Any,
    q: jax.Array,
    kv: jax.Array | None,
    *,
    mask: jax.Array | None,
    kv_mask: jax.Array | None,
    causal: bool,
    grid: tuple[int, int] | None,
    decode: bool,
    train: bool,
    q_position: jax.Array | None = None,
    k_position: jax.Array | None = None,
) -> Call:
    """Checks a call of `module`, a `Token`.

    Raises:
        Invalid: something is not supported.
        ValueError: something does not fit, or lacks a cache.
    """
    _supported(
        module,
        mask=mask is not None,
        kv_mask=kv_mask is not None,
        causal=causal,
        decode=decode,
    )
    _check_tokens(q, kv)
    state = _cache.find(module, kv, q) if decode else _cache.NONE
    itself = kv is None and not state.cross
    if causal and decode and not itself:
        raise settings.Invalid(
            f"{type(module).__name__} cannot be causal in cross-attention that decodes:"
            " its targets have no places among the sources"
        )
    sources = state.length or (q if kv is None else kv).shape[1]
    if causal and sources != q.shape[1] and not decode:
        raise ValueError(
            f"a causal call has as many sources as targets, got {sources} and"
            f" {q.shape[1]}"
        )
    if grid is not None and math.prod(grid) > sources:
        raise ValueError(
            f"a grid of {' x '.join(map(str, grid))} places has no room among"
            f" {sources} sources"
        )
    batch, targets, channels = q.shape
    if itself and k_position is None:
        k_position = q_position
    _check_position("q_position", q_position, q)
    _check_position("k_position", k_position, q if itself else kv)
    if mask is not None:
        shape = (batch, module.mask_heads(channels), targets, sources)
        mask = _checked_mask(mask, shape)
    if kv_mask is not None:
        fresh = targets if itself else sources
        kv_mask = kv_mask if hasattr(kv_mask, "dtype") else jnp.asarray(kv_mask)
        check_kv_mask(kv_mask, batch, fresh)
        # "is" says that queries and keys are the same tokens, and stays true.
        alike = q_position is k_position
        k_position = _without_padding(k_position, kv_mask)
        if itself:
            q = _without_padding(q, kv_mask)
            q_position = k_position if alike else _without_padding(q_position, kv_mask)
        else:
            kv = _without_padding(kv, kv_mask)
        if not decode or module.is_initializing():
            seen = kv_mask[:, None, None, :]
            mask = seen if mask is None else mask & seen
    return Call(
        q=q,
        kv=q if itself else kv,
        mask=mask,
        kv_mask=kv_mask,
        causal=causal or (decode and itself),
        grid=None if grid is None else tuple(grid),
        decode=decode,
        train=train,
        cross=not itself,
        start=state.start,
        length=state.length if itself else None,
        q_position=q_position,
        k_position=k_position,
    )


def _check_tokens(q: jax.Array, kv: jax.Array | None) -> None:
    for name, tokens in (("q", q), ("kv", kv)):
        if tokens is not None and tokens.ndim != 3:
            raise ValueError(f"{name} must be tokens [B, T, C], got {tokens.shape}")
    if kv is not None and kv.shape[0] != q.shape[0]:
        raise ValueError(f"q has {q.shape[0]} examples and kv {kv.shape[0]}")


def _supported(module: Any, **asked: bool) -> None:
    supports = module.card.supports
    lacks = [name for name in FEATURES if asked[name] and name not in supports]
    if lacks:
        has = [name for name in FEATURES if name in supports]
        raise settings.Invalid(
            f"{type(module).__name__} does not support {' and '.join(lacks)}; of"
            f" {', '.join(FEATURES)} it supports {', '.join(has) or 'none'}"
        )


def _checked_mask(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A mask with all four axes, of which any may be 1."""
    mask = mask if hasattr(mask, "dtype") else jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask must be boolean (True = may attend), got {mask.dtype}")
    own = (1,) * (4 - mask.ndim) + mask.shape
    pairs = zip(own, shape, strict=False)
    if len(own) != 4 or any(size not in (1, whole) for size, whole in pairs):
        raise ValueError(
            f"mask of shape {mask.shape} does not broadcast to [B, N, T, S] = {shape}"
        )
    return jnp.reshape(mask, own)


def _placed(x: jax.Array, position: jax.Array | None) -> jax.Array:
    return x if position is None else x + position.astype(x.dtype)


def _check_position(name: str, position: jax.Array | None, x: jax.Array | None) -> None:
    if position is None:
        return
    if x is None:
        raise ValueError(f"{name} is of sources that are in the cache already")
    if position.shape not in (x.shape, (1, *x.shape[1:])):
        raise ValueError(
            f"{name} of shape {position.shape} does not fit tokens of shape {x.shape}"
        )


def _without_padding(x: jax.Array | None, kv_mask: jax.Array) -> jax.Array | None:
    """Zeros in place of padding, so that not even NaN there counts."""
    return None if x is None else jnp.where(kv_mask[:, :, None], x, 0)
