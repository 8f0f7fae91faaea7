"""Captions beside the right ones, and what each of their words read of the image."""

import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from attn.data import Dataset
from attn.tasks.masked_language import word_names
from attn.train.probes import rows
from attn.train.program import Program
from attn.workdir import files

EXAMPLES = 3
TARGET = "target_in"


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `examples.npz`; there are no measures.

    They are of the first rows of the split that curves are of, so that points show the
    same images. The map of a word is what the model read before it wrote that word,
    after the words that it wrote itself; a model whose outputs have no "attention" has
    none.
    """
    task, facts = program.task, dataset.facts
    batch = rows.first(dataset, program.curve_split, EXAMPLES, program.fields)
    search = functools.partial(task.search, program.model)
    search = program.compiled("captions", search)
    given = {name: batch[name] for name in program.inputs}
    found = jax.device_get(search(variables, given, jax.random.key(0)))
    said = found.tokens[:, 0]
    start = np.full((len(said), 1), task.start, said.dtype)
    before = np.concatenate([start, said[:, :-1]], axis=1)
    outputs, _ = program.capture(variables, {**given, TARGET: before})
    fields = [
        {"name": "image", "kind": "image", "keys": ["image"]},
        {"name": "reference", "kind": "text", "keys": ["reference"]},
        {"name": "caption", "kind": "text", "keys": ["caption"]},
    ]
    fields[-1]["expected"] = "reference"
    images = np.stack([dataset.picture(image) for image in batch["image"]])
    arrays = {
        "image": images.astype(np.float16),
        "reference": np.array(task.references(batch, facts)),
        "caption": np.array(task.texts(said, facts)),
    }
    if "attention" in outputs:
        words = map(word_names(facts), map(task.until_end, said))
        padded = [[*some, *[""] * (said.shape[1] - len(some))] for some in words]
        arrays["words"] = np.array(padded)
        arrays["maps"] = np.asarray(outputs["attention"], np.float32)
        keys = ["maps", "words"]
        fields.append({"name": "read", "kind": "words", "keys": keys, "on": "image"})
    index = np.asarray(json.dumps(fields))
    files.write_npz(directory / "examples.npz", index=index, **arrays)
    return []
