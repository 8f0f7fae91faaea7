"""Attention by dot products: softmax(q k^T * scale + bias) v, on several back ends.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017,
https://arxiv.org/abs/1706.03762, equation 1. One function with one meaning:

    name         what                                      where    cannot
    reference    all in memory, float32: the oracle        any      -
    blockwise    blocks, memory for O(T + S)               any      1, 2
    xla          `jax.nn`'s, all in memory                 any      1 to 7
    cudnn        `jax.nn`'s, NVIDIA's fused kernel         GPU      1 to 9
    pallas_tpu   JAX's splash kernel, padded to its tiles  TPU      1 to 6, 8, 10
    tokamax      what tokamax takes, where it is there     any      1 to 6

    1 return_weights  2 sparsemax, entmax15  3 sigmoid  4 dropout  5 score_mod
    6 sinks  7 logits_cap  8 mask_mod  9 float32; a window to the right without causal
    order; a bias or mask with an odd T or S  10 bias, mask, and windows in which a
    target sees nothing

What cannot be done raises NotImplementedError where the implementation was named. With
None the first of `ORDER` that can do it does it, of which a warning tells once where it
is not the platform's fused kernel; `reference` does it within `attn.ops.plain()`, and
where there are no examples, targets or sources. `explain` tells which and why.
Blocks have the lengths of a table, or within `limited` such as are `fastest` here.

Letters used in shapes:
    B batch (any number of axes), T targets (queries), S sources (keys), N heads of
    queries, K heads of keys and values, which divides N, D channels of a head, Dv
    channels of a head of the values.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from attn.ops.dot_product import dispatch, problem, reference, visible
from attn.ops.dot_product.blocks import Case, Limits, limited
from attn.ops.dot_product.dispatch import (
    IMPLEMENTATIONS,
    ORDER,
    Explanation,
    explain,
)
from attn.ops.dot_product.measure import fastest
from attn.ops.dot_product.mods import MaskMod, ScoreMod
from attn.ops.dot_product.reference import masked_softmax, read

Normalize = Literal["softmax", "sigmoid", "sparsemax", "entmax15"]
Window = int | tuple[int | None, int | None] | None


def dot_product_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: Window = None,
    q_lengths: jax.Array | None = None,
    kv_lengths: jax.Array | None = None,
    logits_cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: jax.Array | None = None,
    implementation: str | None = None,
    return_weights: bool = False,
    normalize: Normalize = "softmax",
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    sinks: jax.Array | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """What each target reads: softmax(q k^T * scale + bias) v, [B, T, N, Dv].

    Costs B N T S (D + Dv) multiply-adds. Logits and weights are float32 whatever the
    inputs are. A target that may attend to nothing gets zeros and passes back zero
    gradients; what no target may attend to has no influence, even if it is NaN.

    Args:
        q: queries [B, T, N, D].
        k: keys [B, S, K, D]; head n of the queries uses head n // (N / K).
        v: values [B, S, K, Dv].
        bias: added to the logits, broadcastable to [B, N, T, S]; has gradients.
        mask: boolean, True = may attend, broadcastable to [B, N, T, S].
        is_causal: whether target t sees the sources s <= t only.
        scale: factor of the products; None is 1 / sqrt(D).
        window: target t sees the sources from t - left to t + right: (left, right),
            of which None is no limit, or one number for both.
        q_lengths: integers [B]; targets from there on are padding and get zeros.
        kv_lengths: integers [B]; sources from there on are padding.
        logits_cap: logits x, with their bias, become cap tanh(x / cap).
        dropout_rate: share of the weights that is dropped, the others growing by
            1 / (1 - rate). Which, is a function of the key and their place, the same
            on every implementation.
        dropout_rng: a random key, needed for dropout.
        implementation: one of `IMPLEMENTATIONS`; None is the fastest that can do what
            is asked here.
        return_weights: whether to return the matrix too, B N T S numbers.
        normalize: what makes weights of logits: "softmax"; "sigmoid" of each logit,
            for which the paper on it adds a bias of -log S; "sparsemax" and
            "entmax15", which have exact zeros (`attn.ops.sparsemax`).
        mask_mod: mask_mod(b, n, t, s) is whether target t of head n may attend to
            source s in example b, counted over all axes of B. It gets four int32
            scalars and returns a boolean, and is traced into the blocks, those of
            which it allows nothing being left out; `attn.ops.masks` has examples. It
            may capture arrays, even traced ones.
        score_mod: score_mod(score, b, n, t, s) replaces each logit, after bias and
            cap. What it captures gets gradients too.
        sinks: logits [N] of one more source for each head, of which nothing is read, so
            that weights may sum to less than 1 (OpenAI, "gpt-oss-120b & gpt-oss-20b
            Model Card", 2025, https://arxiv.org/abs/2508.10925); neither capped nor
            masked. They have gradients.

    Returns:
        The read values, in the dtype of `v`; with `return_weights` a pair of them
        and the weights [B, N, T, S] before dropout, float32.

    Raises:
        ValueError: something does not fit; the message has both numbers.
        NotImplementedError: `implementation` cannot do what is asked.
    """
    dispatch.check_name(implementation)
    inputs, asked = problem.check(
        q,
        k,
        v,
        bias=bias,
        mask=mask,
        is_causal=is_causal,
        scale=scale,
        window=window,
        q_lengths=q_lengths,
        kv_lengths=kv_lengths,
        logits_cap=logits_cap,
        dropout_rate=dropout_rate,
        dropout_rng=dropout_rng,
        return_weights=return_weights,
        normalize=normalize,
        mask_mod=mask_mod,
        score_mod=score_mod,
        sinks=sinks,
    )
    inputs, rows = visible.hide(inputs, asked)
    y, weights = dispatch.attend(inputs, asked, implementation)
    if rows is not None:
        y = jnp.where(rows, y, jnp.zeros((), y.dtype))
    y = y.reshape(*q.shape[:-1], v.shape[-1]).astype(v.dtype)
    if not return_weights:
        return y
    return y, weights.reshape(*q.shape[:-3], *weights.shape[1:])


def attention_weights(
    q: jax.Array,
    k: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    window: Window = None,
    q_lengths: jax.Array | None = None,
    kv_lengths: jax.Array | None = None,
    logits_cap: float | None = None,
    normalize: Normalize = "softmax",
    mask_mod: MaskMod | None = None,
    score_mod: ScoreMod | None = None,
    sinks: jax.Array | None = None,
) -> jax.Array:
    """The attention matrix softmax(q k^T * scale + bias), [B, N, T, S], float32.

    Arguments and errors are those of `dot_product_attention`.
    """
    inputs, asked = problem.check(
        q,
        k,
        k,
        bias=bias,
        mask=mask,
        is_causal=is_causal,
        scale=scale,
        window=window,
        q_lengths=q_lengths,
        kv_lengths=kv_lengths,
        logits_cap=logits_cap,
        dropout_rate=0.0,
        dropout_rng=None,
        return_weights=True,
        normalize=normalize,
        mask_mod=mask_mod,
        score_mod=score_mod,
        sinks=sinks,
    )
    inputs, _ = visible.hide(inputs, asked)
    weights = reference.weights(inputs, asked)
    return weights.reshape(*q.shape[:-3], *weights.shape[1:])


__all__ = [
    "IMPLEMENTATIONS",
    "ORDER",
    "Case",
    "Explanation",
    "Limits",
    "attention_weights",
    "dot_product_attention",
    "explain",
    "fastest",
    "limited",
    "masked_softmax",
    "read",
]
