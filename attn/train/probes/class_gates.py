"""How open each channel's gate is for each class: the mean gate by class and depth.

Hu et al. 2018 (https://arxiv.org/abs/1709.01507), section 6.4 and figure 6, draw the
excitations of a network so: the mean over the test images of a class, at every place.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn import modules
from attn.data import Dataset

if TYPE_CHECKING:
    from attn.train.program import Program

EXAMPLES = 1000
KIND = "channel_gate"
Batch = Mapping[str, Any]


def sums(
    host: nn.Module, variables: Any, batch: Batch, *, classes: int
) -> dict[str, jax.Array]:
    """What one batch adds to the means.

    Args:
        host: the model.
        variables: its variables.
        batch: "image" [B, H, W, C], "label" [B] and "weight" [B].
        classes: how many classes there are.

    Returns:
        By the path of each map of gates the sums of its gates, [classes, C] for C
        channels, and as "" the number of examples, [classes].
    """
    of = jax.nn.one_hot(batch["label"], classes) * batch["weight"][:, None]
    _, maps = modules.capture(host, variables, batch["image"])
    found = {
        path: of.T @ entry.values.astype(jnp.float32)
        for path, entry in maps.items()
        if entry.kind == KIND
    }
    return {"": of.sum(axis=0), **found}


def write(
    path: pathlib.Path, program: "Program", variables: Any, dataset: Dataset
) -> None:
    """Writes the mean gates over the first test examples, up to EXAMPLES.

    The file holds "classes", the names [K]; "examples", the number of each [K]; for
    each place float32 [K, C] under a name of its own, NaN for a class without an
    example; and "index", which tells by JSON the path, key and channels of each. A
    model without gates of channels, or data with more than a label an image, has
    none.
    """
    batches = iter(dataset.test(program.eval_batch_size))
    batch = next(batches)
    _, maps = jax.eval_shape(program.look, variables, batch["image"])
    gated = any(entry.kind == KIND for entry in maps.values())
    if not gated or np.ndim(batch["label"]) != 1:
        return
    total: dict[str, Any] = {}
    seen = 0
    while batch is not None and seen < EXAMPLES:
        weight = batch["weight"] * (seen + np.arange(len(batch["weight"])) < EXAMPLES)
        seen += len(weight)
        taken = {**{n: batch[n] for n in ("image", "label")}, "weight": weight}
        part = jax.device_get(program.gates(variables, taken))
        total = {name: total.get(name, 0) + value for name, value in part.items()}
        batch = next(batches, None)
    count = total.pop("")
    arrays, index = {}, []
    for number, (place, value) in enumerate(total.items()):
        key = f"mean{number}"
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
            arrays[key] = (value / count[:, None]).astype(np.float32)
        index.append({"path": place, "key": key, "channels": value.shape[1]})
    np.savez_compressed(
        path,
        classes=np.asarray(dataset.class_names),
        examples=count.astype(np.int64),
        index=np.asarray(json.dumps(index)),
        **arrays,
    )
