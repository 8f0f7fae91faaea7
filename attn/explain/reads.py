"""What tokens read by a given matrix, and the gradient by that matrix.

An attention computes y = out(P value(kv)) with its matrix P [B, N, T, S], most of them
without ever holding P. That y is linear in P, so that the gradient by P follows from
the gradient by y: here from the parameters, by name, of a module that is one of

    value and out           projections around the heads: multi-head (also with fewer
                            heads of values, or a gate), class, cross, linear, window,
                            neighborhood attention, outlook and their like
    value, mix_weights, out talking heads, whose P are the weights before they are mixed
    score                   additive attention, which reads its sources as they are

Letters used in shapes:
    B examples, T targets, S sources, C channels, N heads, K heads of values, D channels
    of a head.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.explain.taps import Tap
from attn.modules import find

Params = Mapping[str, Any]


def recorded_matrix(tap: Tap) -> jax.Array | None:
    """The matrix that a tapped attention recorded, float32 [B, N, T, S], if any."""
    for name in ("token_matrix", "factors"):
        if name in tap.maps:
            values = tap.maps[name].values
            whole = values[0] @ values[1] if name == "factors" else values
            return whole.astype(jnp.float32)
    return None


def matrix_gradient(tap: Tap, params: Params, matrix: jax.Array) -> jax.Array:
    """The gradient of the chosen logit by the matrix, [B, N, T, S].

    Args:
        tap: an attention, with the gradient by its output.
        params: its parameters.
        matrix: what it recorded.

    Raises:
        ValueError: a module that reads in a way that is not known here.
    """
    rows = rows_read(tap, matrix)
    some, slope = matrix[:, :, :rows], _tokens(tap.gradient)[:, :rows]
    _, pull = jax.vjp(lambda weights: read(tap, params, weights), some)
    rest = matrix.shape[2] - rows
    return jnp.pad(pull(slope)[0], ((0, 0), (0, 0), (0, rest), (0, 0)))


def read(tap: Tap, params: Params, matrix: jax.Array) -> jax.Array:
    """What the targets of a matrix read: [B, N, T, S] -> [B, T, C], float32.

    Args:
        tap: an attention, for its inputs.
        params: its parameters.
        matrix: of all its targets, or of the first ones.

    Raises:
        ValueError: a module that reads in a way that is not known here.
    """
    sources = _tokens(tap.sources)
    queries = _tokens(tap.queries)[:, : matrix.shape[2]]
    if "score" in params:
        y = jnp.einsum("bts,bsc->btc", matrix[:, 0], sources)
        gate = params.get("gate_of_query")
        return (
            y
            if gate is None
            else y * nn.sigmoid(_project("btc,cd->btd", queries, gate))
        )
    if not {"value", "out"} <= params.keys():
        raise ValueError(
            f"how {tap.module.__name__} reads is not known: it has no projections"
            " 'value' and 'out', so that there is no gradient by its matrix"
        )
    if "kv_ln" in params:
        norm = nn.LayerNorm(use_fast_variance=False)
        sources = norm.apply({"params": params["kv_ln"]}, sources)
    value = _project("bsc,cnd->bsnd", sources, params["value"])
    value = jnp.repeat(value, matrix.shape[1] // value.shape[2], axis=2)
    if "mix_weights" in params:
        heads = jnp.moveaxis(matrix, 1, -1)
        mixed = _project("btsn,nm->btsm", heads, params["mix_weights"])
        matrix = jnp.moveaxis(mixed, -1, 1)
    y = jnp.einsum("bnts,bsnd->btnd", matrix, value)
    if "gate" in params:
        y = y * nn.sigmoid(_project("btc,cnd->btnd", queries, params["gate"]))
    return _project("btnd,ndc->btc", y, params["out"])


def rows_read(tap: Tap, matrix: jax.Array) -> int:
    """How many of the targets read by the matrix.

    Class attention without `kv` hands all tokens but the first on as they are.
    """
    targets, sources = matrix.shape[2:]
    alone = issubclass(tap.module, find("class_attention")) and targets == sources
    return 1 if alone else targets


def _tokens(x: jax.Array) -> jax.Array:
    """Tokens [B, T, C], or places of a map [B, H, W, C], as [B, T, C] in float32."""
    return x.reshape(len(x), -1, x.shape[-1]).astype(jnp.float32)


def _project(form: str, x: jax.Array, layer: Params) -> jax.Array:
    """A linear layer by its parameters, in float32."""
    y = jnp.einsum(form, x, layer["kernel"].astype(jnp.float32))
    if "bias" not in layer:
        return y
    bias = layer["bias"].astype(jnp.float32)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
