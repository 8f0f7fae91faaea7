"""The names that the code which authors published gives to the variables of our models.

Each variable has one source, whose name is made from its path by the rules of the
model (`Model.released`). What that code declares and never uses, or what is fixed, is
left out: the shifts of colours of EDSR and SAN, and more of SAN, see `attn.models.san`.
"""

import re
from collections.abc import Mapping
from typing import Any

from attn import models
from attn.interop import layout
from attn.interop.fitting import Path, Source

SHIFTS = r"^(sub|add)_mean\."
UNUSED_IN_SAN = r"^(conv_last\.|non_local\.soca\.|RG\.\d+\.gamma$)"


def sources(model: models.Model, wanted: Mapping[Path, Any]) -> dict[Path, Source]:
    """The source of every variable of a model that has rules."""
    return {
        path: layout.source(path[1:], array.shape, _name(model, path[1:]))
        for path, array in wanted.items()
    }


def spare(model: models.Model) -> list[str]:
    """The names of what belongs to a task: nothing."""
    del model
    return []


def weights(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without what is not used."""
    unused = SHIFTS
    if any(name.startswith("RG.") for name in state_dict):
        unused = f"{SHIFTS}|{UNUSED_IN_SAN}"
    return {k: v for k, v in state_dict.items() if not re.search(unused, k)}


def _name(model: models.Model, path: Path) -> str:
    name = "/".join(path)
    for pattern, replacement in model.released_rules():
        name = re.sub(pattern, replacement, name)
    return re.sub(r"\.kernel$", ".weight", name.replace("/", "."))
