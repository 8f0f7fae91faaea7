"""What a trained model looked at, on the same test images for every point."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from attn.train import partition
from attn.train.program import Program
from attn.train.state import State

IMAGES = 8
# Maps of a large transformer are large; fewer images then.
MAX_BYTES = 64 * 2**20


def write(path: pathlib.Path, program: Program, state: State) -> None:
    """Writes the attention maps of the first test images.

    The file holds "images" in [0, 1], "labels", "predictions", "classes", the maps
    as float16 under names of their own, and "index", which tells by JSON the path,
    kind and grid of each and the names of its arrays.
    """
    batch = next(iter(program.dataset.test(program.eval_batch_size)))
    images = batch["image"][:IMAGES]
    variables = partition.fetch(state.variables())
    _, maps = jax.eval_shape(program.look, variables, images)
    one = sum(2 * leaf.size for leaf in jax.tree.leaves(maps)) // len(images)
    images = images[: max(1, MAX_BYTES // max(one, 1))]
    logits, maps = jax.device_get(program.look(variables, images))
    arrays: dict[str, Any] = {}
    index = []
    for path_in_model, found in maps.items():
        keys = []
        for values in jax.tree.leaves(found.values):
            keys.append(f"map{len(arrays)}")
            arrays[keys[-1]] = values.astype(np.float16)
        entry = {"path": path_in_model, "kind": found.kind, "grid": found.grid}
        index.append(entry | {"keys": keys})
    np.savez_compressed(
        path,
        images=np.stack([program.dataset.picture(image) for image in images]),
        labels=batch["label"][: len(images)],
        predictions=np.argmax(logits, axis=-1),
        classes=np.asarray(program.dataset.class_names),
        index=np.asarray(json.dumps(index)),
        **arrays,
    )
