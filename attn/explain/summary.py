"""What a model looked at in a few numbers an example, for its row of a table.

Two maps are measured. The attention of a model is the mean of the maps of all its
attentions (`attn.explain.attended`); a plain network has none. Its saliency is there
for every model that classifies, so that all rows have something in common.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.explain import attended, curves, measures
from attn.explain.places import grid_of, matrix_shape
from attn.explain.taps import Tap, Target, apply, mean_logits, run

STEPS = 10  # of deletion and insertion


@dataclasses.dataclass(frozen=True)
class Measure:
    """How a measure is shown.

    Attributes:
        label: in tables.
        unit: "%" for shares, which are given as percentages, "px" for pixels, or "".
        better: which values are better, if any are.
        digits: decimals.
    """

    label: str
    unit: str = ""
    better: Literal["lower", "higher", ""] = ""
    digits: int = 3


MEASURES = {
    "attention_inside": Measure("attention in object", "%", "higher", 1),
    "attention_hits": Measure("attention hits object", "%", "higher", 1),
    "saliency_inside": Measure("saliency in object", "%", "higher", 1),
    "saliency_hits": Measure("saliency hits object", "%", "higher", 1),
    "object_area": Measure("object area", "%", "", 1),
    "attention_entropy": Measure("attention entropy"),
    "attention_distance": Measure("attention distance", "px", "", 1),
    "attention_deletion": Measure("deletion by attention", "", "lower"),
    "attention_insertion": Measure("insertion by attention", "", "higher"),
}


def measure(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    objects: jax.Array | None = None,
    target: Target = None,
    *,
    steps: int = STEPS,
) -> dict[str, jax.Array]:
    """What a model looked at in each image, by the names in MEASURES: [B] each.

    Args:
        model: any network.
        variables: of the model.
        images: [B, H, W, C].
        objects: where the object is, bool [B, H, W]; None where nobody knows.
        target: classes, int [B]; None for the predicted ones; or a function from the
            outputs to [B].
        steps: of deletion and insertion, which run the model on twice as many images
            for each.

    Returns:
        Those that there are: without `objects` none of an object, without attention
        none of it, and without logits or a function no saliency, deletion or
        insertion. NaN for an image without an object.
    """
    return measure_each(model, variables, images, objects, target, steps=steps)[0]


def measure_each(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    objects: jax.Array | None = None,
    target: Target = None,
    *,
    steps: int = STEPS,
    most: int | None = None,
) -> tuple[dict[str, jax.Array], dict[str, dict[str, jax.Array]]]:
    """What `measure` returns, and the same of each attention, by its path.

    Of single attentions there are the shares, hits, entropies and distances. Deletion
    and insertion, which cost most, are run on the first `most` images only, if it is
    given, and are NaN for the others.
    """
    images = jnp.asarray(images)
    size = tuple(images.shape[1:3])
    explained = _has_target(model, variables, images, target)
    slopes = explained and attended.needs_gradients(model, variables, images)
    _, taps = run(model, variables, images, target, gradients=slopes)
    found: dict[str, jax.Array] = {}
    if objects is not None:
        found["object_area"] = 100 * objects.mean(axis=(1, 2))
    if objects is not None and explained:
        saliency = attended.saliency(model, variables, images, target)
        found |= _in_object("saliency", saliency, objects)
    maps = attended.maps_of(taps, size)
    each = {path: _of_map(maps[path], objects, [taps[path]], size) for path in maps}
    if maps:
        attention = attended.mean_map(maps)
        found |= _of_map(attention, objects, list(taps.values()), size)
    if maps and explained:
        some, given = images[:most], target
        if target is not None and not callable(target):
            given = target[:most]
        score = curves.confidence(model, variables, some, given)
        pair = curves.both(score, some, attention[:most], steps=steps)
        rest = (0, len(images) - len(some))
        for name, curve in zip(("deletion", "insertion"), pair, strict=True):
            area = jnp.pad(curves.area(curve), rest, constant_values=jnp.nan)
            found[f"attention_{name}"] = area
    return {name: found[name] for name in MEASURES if name in found}, each


def _of_map(
    maps: jax.Array,
    objects: jax.Array | None,
    taps: Sequence[Tap],
    size: tuple[int, int],
) -> dict[str, jax.Array]:
    """Measures of the map of some attentions."""
    found = _in_object("attention", maps, objects)
    found["attention_entropy"] = measures.entropy(maps)
    return found | _distance(taps, size)


def _has_target(
    model: nn.Module, variables: Any, images: jax.Array, target: Target
) -> bool:
    """Whether there is a logit whose gradient can be taken; whoever takes it checks."""
    outputs = jax.eval_shape(lambda v, x: apply(model, v, x), variables, images)
    try:
        jax.eval_shape(target if callable(target) else mean_logits, outputs)
    except ValueError:
        return False
    return True


def _in_object(
    name: str, maps: jax.Array, objects: jax.Array | None
) -> dict[str, jax.Array]:
    if objects is None:
        return {}
    return {
        f"{name}_inside": 100 * measures.share_inside(maps, objects),
        f"{name}_hits": 100 * measures.pointing_game(maps, objects),
    }


def _distance(taps: Sequence[Tap], size: tuple[int, int]) -> dict[str, jax.Array]:
    """How far tokens read, mean over the heads and attentions with such tokens."""
    far = []
    for tap in taps:
        for entry in tap.maps.values():
            if entry.kind not in ("token_matrix", "factors"):
                continue
            targets, sources = matrix_shape(entry)
            grid = entry.grid or grid_of(sources, size)
            if grid is None or targets != sources:
                continue
            spacing = (size[0] / grid[0], size[1] / grid[1])
            distance = measures.mean_distance(entry.values, grid, spacing=spacing)
            far.append(distance.mean(axis=1))
    return {"attention_distance": sum(far) / len(far)} if far else {}
