"""Masked words of a few texts, and the five best guesses for each."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from attn.data import Dataset
from attn.tasks import masked_language
from attn.train.probes import rows, token_attention
from attn.train.program import Program
from attn.workdir import files

EXAMPLES, WORDS = 5, 4
GUESSES = masked_language.GUESSES


def write(
    directory: pathlib.Path, program: Program, variables: Any, dataset: Dataset
) -> list[Any]:
    """Writes `examples.npz` and `token_attention.npz`; there are no measures.

    They are of the first rows of the split that curves are of: the text as the model
    reads it, and of the first masked words, or next ones, what they were, and what is
    guessed. The best guess is marked where it is wrong.
    """
    facts = dataset.facts
    batch = rows.first(dataset, program.curve_split, EXAMPLES, program.fields)
    outputs, _ = jax.device_get(program.capture(variables, batch))
    name = masked_language.word_names(facts)
    real = batch.get("tokens_mask", np.ones(batch["tokens"].shape, bool))
    pairs = zip(batch["tokens"], real, strict=True)
    texts = [name(row[mask]) for row, mask in pairs]
    columns = {"text": np.array([_joined(words) for words in texts])}
    fields: list[dict[str, Any]] = [{"name": "text", "kind": "text", "keys": ["text"]}]
    kind = "next word" if facts.get("causal") else "masked word"
    best, chances = masked_language.guesses(outputs["masked"], GUESSES)
    for k in range(min(WORDS, batch["masked"].shape[1])):
        there = batch["places_mask"][:, k]
        right, guess, others = [], [], []
        for i in range(len(texts)):
            words = name(best[i, k]) if there[i] else []
            right.append(name(batch["masked"][i, [k]])[0] if there[i] else "")
            guess.append(words[0] if there[i] else "")
            others.append(_listed(words, chances[i, k]))
        lines = {kind: right, "guess": guess, f"{GUESSES} best": others}
        for line, values in lines.items():
            key = f"{line} {k + 1}"
            columns[key] = np.array(values)
            fields.append({"name": key, "kind": "text", "keys": [key]})
        fields[-2]["expected"] = f"{kind} {k + 1}"
    index = np.asarray(json.dumps(fields))
    files.write_npz(directory / "examples.npz", index=index, **columns)
    given = {name: batch[name] for name in program.inputs}
    captions = [f"text {i + 1}" for i in range(len(texts))]
    sides = {"source": texts}
    token_attention.write(directory, program, variables, given, sides, captions)
    return []


def _joined(words: Sequence[str]) -> str:
    """Pieces as a text; numbers with blanks between."""
    pieces = any("\N{LOWER ONE EIGHTH BLOCK}" in word for word in words)
    text = ("" if pieces else " ").join(words)
    return text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")


def _listed(words: Sequence[str], chances: np.ndarray) -> str:
    pairs = zip(words, chances, strict=False)
    return ", ".join(f"{word} {100 * chance:.0f} %" for word, chance in pairs)
