"""Measures of what a model looked at: see `attn.explain.measure`.

They are means over the first examples of the split that curves are of (deletion and
insertion over half of them), for the class that the model predicts. Where the data set
knows where the object of an image is (`Dataset.objects`), they tell how much of the
attention and of the saliency lies in it.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from attn import explain
from attn.data import Dataset
from attn.train.program import Program
from attn.workdir import files

EXAMPLES, BATCH = 256, 64
CURVES = 32  # of each batch, for deletion and insertion, which run the model often
Values = dict[str, np.ndarray]


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[dict[str, Any]]:
    """Writes `measures.json` and returns the measures, for a model that reads images.

    The file holds, if the model has attention, the "split" and number of "examples",
    the share of the image that is "object_area", in percent (absent where nobody
    knows), and under "attentions" of each attention, from the input on, its "path" and
    its measures by name.
    """
    if len(program.inputs) != 1 or len(program.example()[program.inputs[0]].shape) != 4:
        return []
    measure = program.compiled(
        "measures", functools.partial(explain.measure_each, program.model, most=CURVES)
    )
    parts, each = [], []
    for images, objects, real in _examples(program, dataset):
        found = jax.device_get(measure(variables, images, objects))
        whole, single = jax.tree.map(lambda values, real=real: values[real], found)
        parts.append(whole)
        each.append(single)
    means = _means(parts)
    if each[0]:
        paths = explain.attention_paths(program.model, variables, images)
        record = {
            "split": program.curve_split,
            "examples": min(EXAMPLES, dataset.size(program.curve_split)),
            **{n: means[n] for n in ("object_area",) if n in means},
            "attentions": [
                {"path": path, **_means([single[path] for single in each])}
                for path in paths
                if path in each[0]
            ],
        }
        files.write_json(directory / "measures.json", record)
    return [
        {"name": name, **dataclasses.asdict(shown), "value": means[name]}
        for name, shown in explain.MEASURES.items()
        if name in means
    ]


def _means(parts: Sequence[Values]) -> dict[str, float]:
    """The mean of each measure, over the examples that have it."""
    found = {}
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        values = values[np.isfinite(values)]  # without an object there is none
        if len(values):
            found[name] = float(np.mean(values, dtype=np.float64))
    return found


def _examples(program: Program, dataset: Dataset) -> Iterator[tuple[Any, Any, Any]]:
    """Images, objects or None, and which are no padding, for EXAMPLES examples."""
    seen = 0
    with dataset.split(program.curve_split, BATCH) as batches:
        for batch in batches:
            real = (batch["weight"] > 0) & (seen + np.arange(BATCH) < EXAMPLES)
            yield batch[program.inputs[0]], dataset.objects(batch), real
            seen += BATCH
            if seen >= EXAMPLES:
                return
