"""Where a model looked, glimpse by glimpse, and what it saw there."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.data import Dataset
from attn.ops.glimpse import glimpses
from attn.train.program import Program
from attn.workdir import files

EXAMPLES, MEASURED = 6, 256


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[dict[str, Any]]:
    """Writes `examples.npz` and returns how many glimpses were at the object, if known.

    They are of the first draw of places for the first examples of the split that
    curves are of: the path over the image, the patches of all scales, and the answer.
    The measure is the share of glimpses, but for the first, that has its middle in the
    frame of the object. There is neither of a model whose outputs have no "places";
    one that has them has the settings `size` and `scales` of
    `attn.models.recurrent_attention`.
    """
    with dataset.split(program.curve_split, MEASURED) as batches:
        batch = next(batches)
    given = {name: batch[name] for name in program.fields}
    outputs, _ = jax.device_get(program.capture(variables, given))
    if "places" not in outputs:
        return []
    places = outputs["places"][:, 0]
    part = {name: array[:EXAMPLES] for name, array in given.items()}
    shown = jax.tree.map(lambda array: array[:EXAMPLES], outputs)
    captions = program.task.describe(shown, part, dataset.facts)
    images = np.stack([dataset.picture(i) for i in part[program.inputs[0]]])
    model = program.model
    size = (model.size, model.size)
    seen = glimpses(
        jnp.asarray(images), jnp.asarray(places[:EXAMPLES]), size, model.scales
    )
    fields = [
        {"name": "image", "kind": "image", "keys": ["image"]},
        {"name": "path", "kind": "path", "keys": ["places", "sides"], "on": "image"},
        {"name": "patches", "kind": "mosaic", "keys": ["patches"]},
        {"name": "answer", "kind": "text", "keys": ["answer"]},
    ]
    files.write_npz(
        directory / "examples.npz",
        index=np.asarray(json.dumps(fields)),
        image=images.astype(np.float16),
        places=places[:EXAMPLES],
        sides=np.full((len(images), 2), size),
        patches=np.moveaxis(np.asarray(seen), 2, 1).astype(np.float16),
        answer=np.array([caption for caption, _ in captions]),
    )
    return _measures(places, dataset.objects(batch), batch["weight"] > 0)


def _measures(
    places: np.ndarray, objects: np.ndarray | None, real: np.ndarray
) -> list[dict[str, Any]]:
    """The share of places [B, T, 2] in the frames of objects, bool [B, H, W]."""
    if objects is None or places.shape[1] < 2:
        return []
    inside = []
    for path, mask in zip(places[real, 1:], objects[real], strict=True):
        rows, columns = np.nonzero(mask)
        if not len(rows):
            continue
        sides = np.array(mask.shape[::-1])
        at = (path + 1) / 2 * sides  # in pixels, from their edges
        low = np.array([columns.min(), rows.min()])
        high = np.array([columns.max(), rows.max()]) + 1
        inside.append(np.all((at >= low) & (at <= high), axis=-1).mean())
    if not inside:
        return []
    return [
        {
            "name": "glimpses_at_object",
            "label": "glimpses at the object",
            "unit": "%",
            "better": "higher",
            "digits": 1,
            "value": 100 * float(np.mean(inside)),
        }
    ]
