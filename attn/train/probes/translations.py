"""Translations from the best to the worst, and what their words read of the source."""

import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from attn.data import Dataset
from attn.tasks import bleu
from attn.tasks.masked_language import word_names
from attn.train.probes import rows, token_attention
from attn.train.program import Program
from attn.workdir import files

EXAMPLES = 32  # that are translated
RANKS = ("best", "upper quartile", "median", "lower quartile", "worst")
MULTIPLE = 8  # of which the length of a translation is one


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `examples.npz` and `token_attention.npz`; there are no measures.

    They are of the first rows of the split that curves are of: the sentences of best,
    middle and worst chrF and those halfway between, beside the references. A model
    that reads no words has no attention shown with them.
    """
    task, facts = program.task, dataset.facts
    batch = rows.first(dataset, program.curve_split, EXAMPLES, program.fields)
    search = functools.partial(task.search, program.model)
    search = program.compiled("translations", search)
    given = {name: batch[name] for name in program.inputs}
    found = jax.device_get(search(variables, given, jax.random.key(0)))
    sentences = found.tokens[:, 0]
    said = np.array(task.texts(sentences, facts))
    right = np.where(batch["target_mask"], batch["target"], task.pad)
    references = np.array(task.texts(right, facts))
    scores = np.array(
        [bleu.sentence(str(a), str(b)) for a, b in zip(said, references, strict=True)]
    )
    chosen = _spread(scores)
    captions = [
        f"{rank}: chrF {scores[i]:.1f}" for rank, i in zip(RANKS, chosen, strict=False)
    ]
    columns = {"sentence": np.array(captions)}
    if "source_mask" in given:
        words = np.where(batch["source_mask"], batch["source"], task.pad)
        columns["source"] = np.array(task.texts(words, facts))[chosen]
    columns |= {"reference": references[chosen], "translation": said[chosen]}
    fields: list[dict[str, Any]] = [
        {"name": name, "kind": "text", "keys": [name]} for name in columns
    ]
    fields[-1]["expected"] = "reference"
    index = np.asarray(json.dumps(fields))
    files.write_npz(directory / "examples.npz", index=index, **columns)
    if "source_mask" in given:
        part = {name: array[chosen] for name, array in given.items()}
        part, words = _read(task, part, sentences[chosen], facts)
        token_attention.write(directory, program, variables, part, words, captions)
    return []


def _spread(scores: np.ndarray) -> np.ndarray:
    """The best, the worst, and those at quarters between them, by their numbers."""
    order = np.argsort(-scores, kind="stable")
    places = np.linspace(0, len(order) - 1, min(len(RANKS), len(order)))
    return order[places.round().astype(int)]


def _read(
    task: Any, batch: dict[str, np.ndarray], said: np.ndarray, facts: Any
) -> tuple[dict[str, np.ndarray], dict[str, list[list[str]]]]:
    """What the model reads while it says some sentences [n, L], and all words of it.

    Those that ask, "target", are the words that are about to be said.
    """
    name = word_names(facts)
    whole = [task.until_end(sentence) for sentence in said]
    ended = [task.end in sentence for sentence in said]
    targets = [
        [*words, task.end] if end else words
        for words, end in zip(whole, ended, strict=True)
    ]
    longest = -(-max(map(len, targets)) // MULTIPLE) * MULTIPLE
    read = np.full((len(said), longest), task.pad, batch["target_in"].dtype)
    for row, words in zip(read, targets, strict=True):
        row[: len(words)] = [task.start, *words[:-1]]
    pairs = zip(batch["source"], batch["source_mask"], strict=True)
    words = {
        "source": [name(row[mask]) for row, mask in pairs],
        "target": [name(row) for row in targets],
        "target_in": [name([task.start, *row[:-1]]) for row in targets],
    }
    return {**batch, "target_in": read}, words
