"""Probes: the artefacts that are written of a trained model, one file each.

A task names the probes that make sense for it, `Task.probes`; a probe that finds
nothing to write, such as attention maps of a model without attention, writes nothing.
To add one: write `attn/train/probes/<name>.py` with a function

    write(directory, program, variables, dataset) -> list of measures

and a line in PROBES, or name it in the task by "package.file:function". It writes files
into the point's directory, which a section of `attn.report.sections` shows, and returns
what is to stand in the point's result: measures, dicts of name, label, unit, better,
digits and value; most often none.
"""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any

from attn import settings

Measure = dict[str, Any]
Write = Callable[[pathlib.Path, Any, Any, Any], list[Measure]]

PROBES = {
    "attention": "attn.train.probes.attention:write",
    "captions": "attn.train.probes.captions:write",
    "class_gates": "attn.train.probes.class_gates:write",
    "detections": "attn.train.probes.detections:write",
    "glimpses": "attn.train.probes.glimpses:write",
    "masked_words": "attn.train.probes.masked_words:write",
    "measures": "attn.train.probes.measures:write",
    "poses": "attn.train.probes.poses:write",
    "restored": "attn.train.probes.restored:write",
    "translations": "attn.train.probes.translations:write",
}


def find(name: str) -> Write:
    """The function called `name`, or at "package.file:function".

    Raises:
        settings.Invalid: there is none.
    """
    path = PROBES.get(name, name)
    module, _, function = path.partition(":")
    if not function:
        raise settings.unknown("probe", name, PROBES)
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise settings.Invalid(f"cannot import probe {name!r}: {error}") from error
