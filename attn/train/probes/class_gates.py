"""How open each channel's gate is for each class: the mean gate by class and depth.

Hu et al. 2018 (https://arxiv.org/abs/1709.01507), section 6.4 and figure 6, draw the
excitations of a network so: the mean over the images of a class, at every place.
"""

import collections
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.data import Dataset
from attn.train.program import Program
from attn.workdir import files

EXAMPLES = 1000
KIND = "channel_gate"
LABEL = "label"  # the field that tells the class
Batch = Mapping[str, Any]


def sums(
    capture: Callable[[Any, Batch], Any], variables: Any, batch: Batch, *, classes: int
) -> collections.OrderedDict[str, jax.Array]:
    """Sums of the gates of one batch, by class.

    Args:
        capture: `Program.capture`.
        variables: of the model.
        batch: what the model reads, the labels [B], and "weight" [B].
        classes: how many classes there are.

    Returns:
        By the path of each map of gates, from the input on, the sums of its gates,
        [classes, C] for C channels, and as "" the number of examples, [classes].
    """
    of = jax.nn.one_hot(batch[LABEL], classes) * batch["weight"][:, None]
    _, maps = capture(variables, batch)
    found = collections.OrderedDict({"": of.sum(axis=0)})
    for path, entry in maps.items():
        if entry.kind == KIND:
            found[path] = of.T @ entry.values.astype(jnp.float32)
    return found


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `gates.npz`, mean gates over the first examples, up to EXAMPLES.

    They are of the split that curves are of. The file holds "classes", the names [K];
    "examples", the number of each [K]; for each place float32 [K, C] under a name of
    its own, NaN for a class without an example; and "index", which tells by JSON the
    path, key and channels of each. A model without gates of channels, or data with
    more than a label an image, has none. There are no measures.
    """
    _, maps = jax.eval_shape(program.capture, variables, program.example())
    gated = any(entry.kind == KIND for entry in maps.values())
    if not gated or len(program.example()[LABEL].shape) != 1:
        return []
    names = dataset.facts["class_names"]
    function = functools.partial(sums, program.capture, classes=len(names))
    add = program.compiled("class_gates", function)
    total: dict[str, Any] = {}
    seen = 0
    with dataset.split(program.curve_split, program.eval_batch_size) as batches:
        for batch in batches:
            counted = seen + np.arange(len(batch["weight"])) < EXAMPLES
            seen += len(counted)
            taken = {name: batch[name] for name in program.fields}
            taken["weight"] = batch["weight"] * counted
            part = jax.device_get(add(variables, taken))
            total = {name: total.get(name, 0) + value for name, value in part.items()}
            if seen >= EXAMPLES:
                break
    count = total.pop("")
    arrays, index = {}, []
    for number, (place, value) in enumerate(total.items()):
        key = f"mean{number}"
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
            arrays[key] = (value / count[:, None]).astype(np.float32)
        index.append({"path": place, "key": key, "channels": value.shape[1]})
    files.write_npz(
        directory / "gates.npz",
        classes=np.asarray(names),
        examples=count.astype(np.int64),
        index=np.asarray(json.dumps(index)),
        **arrays,
    )
    return []
