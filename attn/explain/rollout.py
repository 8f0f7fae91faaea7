"""Attention rollout: what of an image reached the output, over all layers of tokens.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020,
https://arxiv.org/abs/2005.00928, section 3: with P_l the matrix of layer l, averaged
over the heads, a layer with a residual connection is (P_l + I) / 2, and the matrices
of all layers are multiplied.

The gradient-weighted form: Chefer, Gur, Wolf, "Generic Attention-model Explainability
for Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021,
https://arxiv.org/abs/2103.15679, equations 5 and 6: a layer makes of the relevance R

    R + P_l' R,   P_l' = the mean over the heads of relu(dy/dP_l * P_l),

with y the logit of a class. What came over no attention at all is taken from R, as in
their equation 8: a class token has none of it, and a mean token has as much of every
place.

Where a matrix moves something without a residual connection (in a slot before or after
a block, or at the end), I is left out. Matrices whose rows do not sum to one, or are
negative somewhere, count by their sizes in the rollout, row by row. LayerScale and MLPs
are left out of both, as in the papers. `attn.explain.routes` tells the way.

Letters used in shapes:
    B examples, H x W the image, h x w a grid of tokens, N heads, T targets, S sources,
    L tokens of one place of the network.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.explain import routes
from attn.explain.places import bilinear_weights, normalise, on_grid, spread
from attn.explain.reads import matrix_gradient, recorded_matrix
from attn.explain.taps import Tap, Target, run
from attn.modules import find

Grid = tuple[int, int]
# Attentions that add what they read to their tokens.
RESIDUAL = tuple(map(find, ("non_local", "second_order_non_local")))
Weigh = Callable[[str, Tap], jax.Array | None]  # [B, N, T, S]: relevance by heads


def rollout(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """What share of the output each pixel has, by attention alone: [B, H, W] of sum 1.

    Args:
        model: a ViT, DeiT, CaiT, Swin or XCiT, whatever fills its slots.
        variables: of the model.
        images: [B, H, W, C].

    Returns:
        float32, even within each patch. The share of class tokens, which come from no
        place, is left out.

    Raises:
        ValueError: a model without tokens, or without an attention that moves them.
    """
    size = tuple(images.shape[1:3])
    route = routes.find(model, variables, size)
    _, taps = run(model, variables, images, gradients=False)

    def weigh(path: str, tap: Tap) -> jax.Array | None:
        matrix = recorded_matrix(tap)
        return None if matrix is None else jnp.abs(matrix)

    rows, _ = _walk(route, taps, weigh, shares=True)
    return spread(normalise(on_grid(rows, route.grid)), size)


def gradient_rollout(
    model: nn.Module, variables: Any, images: jax.Array, target: Target = None
) -> jax.Array:
    """What share each pixel has in what speaks for a class: [B, H, W] of sum 1.

    Args:
        model: a ViT, DeiT, CaiT, Swin or XCiT, whose attentions have the projections
            that `attn.explain.reads` knows.
        variables: of the model.
        images: [B, H, W, C].
        target: classes, int [B]; None for the predicted ones; or a function from the
            outputs to [B].

    Returns:
        float32, even within each patch; and even everywhere if nothing speaks for it.

    Raises:
        ValueError: as `rollout`, or an attention whose gradient is not known.
    """
    size = tuple(images.shape[1:3])
    route = routes.find(model, variables, size)
    _, taps = run(model, variables, images, target, gradients=True)

    def weigh(path: str, tap: Tap) -> jax.Array | None:
        matrix = recorded_matrix(tap)
        if matrix is None:
            return None
        params = variables["params"]
        for name in path.split("/"):
            params = params[name]
        return nn.relu(matrix * matrix_gradient(tap, params, matrix))

    rows, alone = _walk(route, taps, weigh, shares=False)
    maps = on_grid(jnp.maximum(rows - alone, 0), route.grid)
    return spread(normalise(maps), size)


def _walk(
    route: routes.Route, taps: dict[str, Tap], weigh: Weigh, *, shares: bool
) -> tuple[jax.Array, jax.Array]:
    """Takes relevance from the end of a network to its patches, [B, L].

    Args:
        route: of the network.
        taps: its attentions.
        weigh: the matrix of an attention, None where it moves nothing.
        shares: whether rows are divided by their sums and mixed with I by half and
            half, or added to I as they are.

    Returns:
        The relevance, and the part of it that came over residual connections alone.
    """
    batch = len(next(iter(taps.values())).output) if taps else 1
    first = jnp.arange(route.length) < route.classified
    rows = jnp.tile(first / route.classified, (batch, 1)).astype(jnp.float32)
    alone, moved = rows, False
    for step in route.steps:
        if isinstance(step, routes.Enter):
            rows, alone = rows[:, step.tokens :], alone[:, step.tokens :]
            continue
        if isinstance(step, routes.Merge):
            rows, alone = (_part(x, step.grid) for x in (rows, alone))
            continue
        matrix = _slot(step, taps, weigh, shares)
        if matrix is None:
            continue
        moved = True
        if isinstance(step, routes.Pool) and matrix.shape[1] < matrix.shape[2]:
            rows = matrix.mean(axis=1)
            alone = jnp.zeros_like(rows)
            continue
        keep, gain = (0.5, 0.5) if shares else (1.0, 1.0)
        if isinstance(step, routes.Pool) or not step.residual:
            keep, gain = 0.0, 1.0
        elif shares:  # targets that read nothing stay as they are
            keep = jnp.where(matrix.sum(axis=-1) > 0, keep, 1.0)
        rows = _through(rows, matrix, keep, gain)
        alone = _through(alone, matrix, keep, 0.0)
    if not moved:
        raise ValueError(
            "no attention of this model moves anything between its tokens: take"
            " attention_maps or saliency"
        )
    return rows, alone


def _slot(
    step: routes.Read | routes.Pool, taps: dict[str, Tap], weigh: Weigh, shares: bool
) -> jax.Array | None:
    """The matrix [B, T, S] of what fills a slot: of several modules the product."""
    name = re.compile(re.escape(step.path) + r"(\d*)")
    inside = [(name.fullmatch(path), path) for path in taps]
    found = sorted((int(m[1] or 0), path) for m, path in inside if m)
    layers = [_matrix(path, taps[path], step.grid, weigh, shares) for _, path in found]
    layers = [layer for layer in layers if layer is not None]
    alike = len({layer.shape for layer in layers}) == 1
    if len(layers) > 1 and not (alike and layers[0].shape[1] == layers[0].shape[2]):
        raise ValueError(
            f"slot {step.path!r}: rollout does not follow a list of attention modules"
            " of unlike tokens"
        )
    return (
        functools.reduce(lambda first, then: then @ first, layers) if layers else None
    )


def _matrix(
    path: str, tap: Tap, grid: Grid, weigh: Weigh, shares: bool
) -> jax.Array | None:
    """The matrix of an attention, mean over heads, [B, T, S] with S on `grid`."""
    matrix = weigh(path, tap)
    if "sampling_grid" in tap.maps:
        matrix = _sampling_matrix(tap.maps["sampling_grid"].values, grid)
    if matrix is None:
        return None
    matrix = matrix.mean(axis=1)
    found = tap.maps.get("token_matrix")
    if found is not None and found.grid not in (None, grid):  # subsampled
        batch, targets, _ = matrix.shape
        coarse = matrix.reshape(batch * targets, *found.grid)
        matrix = spread(coarse, grid).reshape(batch, targets, -1)
    if not shares:
        return matrix
    total = matrix.sum(axis=-1, keepdims=True)
    matrix = jnp.where(total > 0, matrix / jnp.where(total > 0, total, 1), 0)
    if issubclass(tap.module, RESIDUAL):  # theirs is their own
        return (matrix + jnp.eye(matrix.shape[-1])[None]) / 2
    return matrix


def _sampling_matrix(grid: jax.Array, size: Grid) -> jax.Array:
    """What each sample reads of each place, [B, 1, h w, H W]."""
    rows, columns = bilinear_weights(grid, size)
    weights = rows[..., :, None] * columns[..., None, :]
    return weights.reshape(len(grid), 1, rows.shape[1], -1)


def _through(
    rows: jax.Array, matrix: jax.Array, keep: float | jax.Array, gain: float
) -> jax.Array:
    """Relevance before an attention [B, L], of that after it, [B, L].

    Args:
        rows: after it.
        matrix: [B, T, S]. Its sources are all L tokens, and its targets the first T of
            them (all, or a class token); or both are the last, those of a grid.
        keep: factor of what targets hand on to themselves, of each [B, T] or of all.
            Other tokens keep all.
        gain: factor of what they read.
    """
    length, (targets, sources) = rows.shape[1], matrix.shape[1:]
    first = 0 if sources == length else length - targets
    asked = rows[:, first : first + targets]
    read = gain * jnp.einsum("bt,bts->bs", asked, matrix)
    kept = [rows[:, :first], keep * asked, rows[:, first + targets :]]
    before = ((0, 0), (length - sources, 0))
    return jnp.concatenate(kept, axis=1) + jnp.pad(read, before)


def _part(rows: jax.Array, grid: Grid) -> jax.Array:
    """Relevance of merged tokens, [B, L / 4], to those of `grid` that made them."""
    half = tuple((side + 1) // 2 for side in grid)
    coarse = rows.reshape(-1, *half)
    for axis, side in enumerate(grid, 1):
        members = jnp.bincount(jnp.arange(side) // 2, length=half[axis - 1])
        shape = [1, 1, 1]
        shape[axis] = -1
        coarse = jnp.repeat(coarse / members.reshape(shape), 2, axis=axis)
    return coarse[:, : grid[0], : grid[1]].reshape(len(rows), -1)
