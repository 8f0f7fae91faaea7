"""What a model looks at, on the same test images for every point."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from attn.data import Dataset
from attn.train.program import Program

IMAGES = 8
# Maps of a large transformer are large; fewer images then.
MAX_BYTES = 64 * 2**20
# The same for pictures on the way, of which there are many, and what they show.
SMALL_BYTES = 2**20
SMALL_KINDS = ("sampling_grid", "spatial_map", "channel_gate", "token_matrix")


def write(
    path: pathlib.Path,
    program: Program,
    variables: Any,
    dataset: Dataset,
    *,
    small: bool = False,
) -> None:
    """Writes the attention maps of the first test images.

    The file holds "images" in [0, 1], "labels", "predictions", "classes", the maps
    as float16 under names of their own, and "index", which tells by JSON the path,
    kind and grid of each and the names of its arrays. It is there whole or not at
    all, and the same bytes for the same variables.

    Args:
        path: of the file.
        program: of the model.
        variables: of the model, on the host.
        dataset: whose test images are taken.
        small: whether to stay within SMALL_BYTES, with fewer images, SMALL_KINDS
            only, and without maps that are too large for it; where no map is left,
            there is no file.
    """
    batch = next(iter(dataset.test(program.eval_batch_size)))
    images = batch["image"][:IMAGES]
    _, maps = jax.eval_shape(program.look, variables, images)
    sizes = {name: _bytes(found, len(images)) for name, found in maps.items()}
    limit, fixed = MAX_BYTES, 0
    if small:
        limit, fixed = SMALL_BYTES, 4 * images[0].size
        sizes = {n: b for n, b in sizes.items() if maps[n].kind in SMALL_KINDS}
        while sizes and fixed + sum(sizes.values()) > limit:
            del sizes[max(sizes, key=sizes.__getitem__)]
        if not sizes:
            return
    count = limit // max(fixed + sum(sizes.values()), 1)
    images = images[: max(1, count)]
    logits, maps = jax.device_get(program.look(variables, images))
    arrays: dict[str, Any] = {}
    index = []
    for path_in_model in sizes:
        found = maps[path_in_model]
        keys = []
        for values in jax.tree.leaves(found.values):
            keys.append(f"map{len(arrays)}")
            arrays[keys[-1]] = values.astype(np.float16)
        entry = {"path": path_in_model, "kind": found.kind, "grid": found.grid}
        index.append(entry | {"keys": keys})
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        np.savez_compressed(
            file,
            images=np.stack([dataset.picture(image) for image in images]),
            labels=batch["label"][: len(images)],
            predictions=np.argmax(logits, axis=-1),
            classes=np.asarray(dataset.class_names),
            index=np.asarray(json.dumps(index)),
            **arrays,
        )
    draft.replace(path)


def _bytes(found: Any, images: int) -> int:
    """What one image's part of a map takes in the file, uncompressed."""
    return sum(2 * leaf.size for leaf in jax.tree.leaves(found.values)) // images
