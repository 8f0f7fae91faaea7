"""Measures of what a model looked at, for its result: see `attn.explain.measure`.

They are means over the first examples of the split that curves are of, for the class
that the model predicts. Where the data set knows where the object of an image is
(`Dataset.objects`), they tell how much of the attention and of the saliency lies in it.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from attn import explain
from attn.data import Dataset
from attn.train.program import Program

EXAMPLES, BATCH = 256, 64


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[dict[str, Any]]:
    """Returns the measures of a model that reads images, and writes no file."""
    del directory
    shapes = [field.shape for field in program.example().values()]
    if len(program.inputs) != 1 or len(shapes[0]) != 4:
        return []
    measure = program.compiled(
        "measures", functools.partial(explain.measure, program.model)
    )
    parts = []
    for images, objects, real in _examples(program, dataset):
        found = jax.device_get(measure(variables, images, objects))
        parts.append({name: values[real] for name, values in found.items()})
    return [
        {
            "name": name,
            "label": shown.label,
            "unit": shown.unit,
            "better": shown.better,
            "digits": shown.digits,
            "value": float(np.mean(values, dtype=np.float64)),
        }
        for name, shown in explain.MEASURES.items()
        if name in parts[0]
        for values in [_known(parts, name)]
        if len(values)
    ]


def _known(parts: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """The values of a measure; an image without an object has none."""
    values = np.concatenate([part[name] for part in parts])
    return values[np.isfinite(values)]


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
