"""The names that PyTorch's timm gives to the variables of our models.

Each variable has one source, whose name is made from its path by the rules of the
model (`Model.timm`), those of the attention in its slot and those below. Queries, keys
and values are one array in timm.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from attn import models, modules
from attn.interop import layout
from attn.interop.fitting import Path, Source
from attn.models import slots
from attn.models.layers.timm import Rules

# Substitutions that make the name of a source from a path such as
# "block3/mixer/out/kernel", after those of the model, in this order.
EVERYWHERE: Rules = (
    (r"/", "."),
    (r"\.(kernel|scale)$", ".weight"),
    (r"\.mean$", ".running_mean"),
    (r"\.var$", ".running_var"),
    (r"\bmixer\.out\b", "attn.proj"),
    (r"\bmixer\.", "attn."),
    (r"\bmlp_in\b", "mlp.fc1"),
    (r"\bmlp_out\b", "mlp.fc2"),
)
# The same for what fills the slot at the end of a residual branch, by its name; a
# setting of it may be part of a name.
RESIDUAL: dict[str, Rules] = {
    "squeeze_excite": (
        (r"\bresidual/squeeze\b", "se/fc1"),
        (r"\bresidual/excite\b", "se/fc2"),
    ),
    "efficient_channel": ((r"\bresidual/conv\b", "se/conv"),),
    "global_context": (
        (r"\bresidual/attend\b", "se/conv_attn"),
        (r"\bresidual/squeeze\b", "se/mlp_{fuse}/fc1"),
        (r"\bresidual/norm\b", "se/mlp_{fuse}/norm"),
        (r"\bresidual/excite\b", "se/mlp_{fuse}/fc2"),
    ),
    "cbam": (
        (r"\bresidual/squeeze\b", "se/channel/fc1"),
        (r"\bresidual/excite\b", "se/channel/fc2"),
        (r"\bresidual/spatial\b", "se/spatial/conv/conv"),
        (r"\bresidual/norm\b", "se/spatial/conv/bn"),
    ),
}
PARTS = ("query", "key", "value")
# What follows from the sizes, or counts batches, and is no weight.
BUFFERS = r"\.(relative_position_index|attn_mask|num_batches_tracked)$"


def sources(model: models.Model, wanted: Mapping[Path, Any]) -> dict[Path, Source]:
    """The source of every variable of a model that has rules."""
    found = {}
    for path, array in wanted.items():
        name, third = _name(model, path[1:])
        found[path] = layout.source(path[1:], array.shape, name, third)
    return found


def spare(model: models.Model) -> list[str]:
    """The names of what belongs to a task, such as "head"."""
    return [_name(model, (layer,))[0] for layer in model.task_layers]


def weights(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without buffers, and with the names that timm has today.

    Of an older Swin, and of a VGG of torchvision.
    """
    arrays = {k: v for k, v in state_dict.items() if not re.search(BUFFERS, k)}
    if "layers.0.downsample.norm.weight" in arrays:
        return _of_swin(arrays)
    return _of_vgg(arrays) if "classifier.6.weight" in arrays else arrays


def _of_swin(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What an older timm and the authors of Swin have."""
    later = lambda m: f"layers.{int(m[1]) + 1}.downsample"
    names = {k: re.sub(r"^layers\.(\d+)\.downsample", later, k) for k in arrays}
    names = {
        k: re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", n) for k, n in names.items()
    }
    return {names[k]: v for k, v in arrays.items()}


def _of_vgg(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What torchvision has, where the first linear layer reads a flattened map."""
    linear = {"0": "pre_logits.fc1", "3": "pre_logits.fc2", "6": "head.fc"}
    rename = lambda name: re.sub(
        r"^classifier\.([036])\b", lambda match: linear[match[1]], name
    )
    found = {rename(name): value for name, value in arrays.items()}
    maps = (name for name in arrays if name.startswith("features."))
    last = max(maps, key=lambda name: int(name.split(".")[1]))
    flat = np.asarray(found["pre_logits.fc1.weight"])
    width, channels = len(flat), np.shape(arrays[last])[0]
    side = math.isqrt(flat.shape[1] // channels)
    found["pre_logits.fc1.weight"] = flat.reshape(width, channels, side, side)
    return found


def _name(model: models.Model, path: Path) -> tuple[str, int | None]:
    """The name of the source of a variable, and which third of it, if it is fused."""
    name = "/".join(path)
    rules = (*_of_slot(model, path), *model.timm_rules(), *EVERYWHERE)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    for third, word in enumerate(PARTS):
        if path[0].startswith("class"):
            name = name.replace(f"attn.{word}.", f"attn.{word[0]}.")
        elif f"attn.{word}." in name:
            return name.replace(f"attn.{word}.", "attn.qkv."), third
    return name, None


def _of_slot(model: models.Model, path: Path) -> Rules:
    """The rules of the attention at the end of the residual branch at `path`."""
    if "residual" not in path:
        return ()
    fill = model.fill
    for scope in path[: path.index("residual")]:
        fill = slots.narrow(fill, scope)
    return tuple(
        (pattern, name.format_map(_Settings(spec)))
        for spec in fill["block.residual"]
        for pattern, name in RESIDUAL.get(spec["name"], ())
    )


class _Settings(dict):
    """The settings of what fills a slot, given or by default."""

    def __missing__(self, name: str) -> str:
        return getattr(modules.find(self["name"]), name)
