"""The names that the package transformers gives to the variables of our models.

Each variable has one source, whose name is made from its path by the rules of the
model (`Model.transformers`) and those below.
"""

import re
from collections.abc import Mapping
from typing import Any

from attn import models
from attn.interop import detr, layout
from attn.interop.fitting import Path, Source
from attn.models.layers.timm import Rules

EVERYWHERE: Rules = (
    (r"/", "."),
    (r"\.(kernel|scale|embedding)$", ".weight"),
)
# What is the same array again under another name, or follows from the sizes.
TIED = (
    r"(^|\.)(lm_head\.weight|embed_tokens\.weight|embed_positions\.weight"
    r"|position_ids|predictions\.decoder\.(weight|bias))$"
)
# Names of the first releases, which old files still have.
OLD: Rules = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))


def sources(model: models.Model, wanted: Mapping[Path, Any]) -> dict[Path, Source]:
    """The source of every variable of a model that has rules."""
    return {
        path: _source(path[1:], array.shape, _name(model, path[1:]))
        for path, array in wanted.items()
    }


def _source(path: Path, shape: tuple[int, ...], name: str) -> Source:
    if path[-1] == "position":  # without an axis of examples
        return Source(name, (shape[1:],), lambda array: array, cut=0)
    source = layout.source(path, shape, name)
    if path[0] == "is_next":  # its first class is "follows", our second
        return source._replace(make=lambda array: source.make(array[::-1]))
    return source


def spare(model: models.Model) -> list[str]:
    """The names of what belongs to a task, such as "classifier"."""
    return [_name(model, (layer,)) for layer in model.task_layers]


def weights(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict with each array once, under the name of today.

    A BERT without heads has them without "bert." in front, which it gets. A DETR may
    have the names of its authors.
    """
    if detr.is_detr(state_dict):
        return detr.renamed(state_dict)
    arrays = {}
    for name, value in state_dict.items():
        for pattern, replacement in OLD:
            name = re.sub(pattern, replacement, name)
        if not re.search(TIED, name):
            arrays[name] = value
    if "embeddings.word_embeddings.weight" in arrays:
        return {f"bert.{name}": value for name, value in arrays.items()}
    return arrays


def _name(model: models.Model, path: Path) -> str:
    """The name of the source of a variable, or of a layer."""
    name = "/".join(path)
    for pattern, replacement in (*model.transformers, *EVERYWHERE):
        name = re.sub(pattern, replacement, name)
    return name
