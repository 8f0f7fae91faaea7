"""Attention maps of a model on a few examples, the same ones for every point.

`attention.npz` of a point holds the maps after the training, `snapshots/STEP.npz` those
on the way, small.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from attn import modules
from attn.data import Dataset
from attn.train.program import Program
from attn.workdir import files

IMAGES = 8
# Maps of a large transformer are large; fewer images then.
MAX_BYTES = 64 * 2**20
# The same for snapshots, of which there are many, and what they show.
SMALL_BYTES = 2**20
SMALL_KINDS = ("sampling_grid", "spatial_map", "channel_gate", "token_matrix")


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `attention.npz`, if there are images or maps; there are no measures.

    The file holds "images" in [0, 1], if the model reads any; "captions", the task's
    descriptions of the examples, and where the model is "wrong"; the maps as float16
    under names of their own; and "index", which tells by JSON the path, kind and grid
    of each and the names of its arrays. It is there whole or not at all, and the same
    bytes for the same variables.
    """
    _write(directory / "attention.npz", program, variables, dataset, small=False)
    return []


def snapshot(
    directory: pathlib.Path,
    step: int,
    program: Program,
    variables: Any,
    dataset: Dataset,
) -> None:
    """Writes `snapshots/STEP.npz`, of the same form, within SMALL_BYTES.

    It has fewer images, SMALL_KINDS only, and no map that is too large for it; where
    no map is left, there is no file.
    """
    path = directory / "snapshots" / f"{step}.npz"
    _write(path, program, variables, dataset, small=True)


def _write(
    path: pathlib.Path, program: Program, variables: Any, dataset: Dataset, small: bool
) -> None:
    batch = _examples(program, dataset)
    images = [batch[name] for name in program.inputs if batch[name].ndim == 4][:1]
    _, maps = jax.eval_shape(program.capture, variables, batch)
    examples = len(next(iter(batch.values())))
    sizes = {name: _bytes(found, examples) for name, found in maps.items()}
    if not images and not sizes:
        return
    limit, fixed = MAX_BYTES, 0
    if small:
        limit, fixed = SMALL_BYTES, sum(4 * array[0].size for array in images)
        sizes = {n: b for n, b in sizes.items() if maps[n].kind in SMALL_KINDS}
        while sizes and fixed + sum(sizes.values()) > limit:
            del sizes[max(sizes, key=sizes.__getitem__)]
        if not sizes:
            return
    count = max(1, limit // max(fixed + sum(sizes.values()), 1))
    batch = {name: array[:count] for name, array in batch.items()}
    outputs, maps = jax.device_get(program.capture(variables, batch))
    described = program.task.describe(outputs, batch, dataset.facts)
    shown = [np.stack([dataset.picture(i) for i in array[:count]]) for array in images]
    save(path, shown[0] if shown else None, described, {n: maps[n] for n in sizes})


def save(
    path: pathlib.Path,
    images: np.ndarray | None,
    described: Sequence[tuple[str, bool]],
    maps: Mapping[str, modules.Map],
) -> None:
    """Writes the file that `write` tells of.

    Args:
        path: of the file.
        images: [n, H, W, C] in [0, 1], if there are any.
        described: a caption of each example, and whether the model is wrong.
        maps: NumPy arrays of the examples, by the path in the model.
    """
    arrays: dict[str, Any] = {}
    index = []
    for place, found in maps.items():
        keys = []
        for values in jax.tree.leaves(found.values):
            keys.append(f"map{len(arrays)}")
            arrays[keys[-1]] = values.astype(np.float16)
        entry = {"path": place, "kind": found.kind, "grid": found.grid}
        index.append(entry | {"keys": keys})
    files.write_npz(
        path,
        captions=np.asarray([caption for caption, _ in described]),
        wrong=np.asarray([wrong for _, wrong in described]),
        index=np.asarray(json.dumps(index)),
        **({} if images is None else {"images": images}),
        **arrays,
    )


def _examples(program: Program, dataset: Dataset) -> dict[str, np.ndarray]:
    """The first examples of the split that curves are of."""
    with dataset.split(program.curve_split, IMAGES) as batches:
        batch = next(batches)
    real = batch["weight"] > 0
    return {name: batch[name][real] for name in program.fields}


def _bytes(found: Any, examples: int) -> int:
    """Bytes of one example's part of a map in the file, uncompressed."""
    return sum(2 * leaf.size for leaf in jax.tree.leaves(found.values)) // examples
