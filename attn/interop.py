"""Weights of other libraries: state dicts of PyTorch's timm as variables of models.

    from attn import interop
    variables = interop.from_timm(state_dict, model, image_shape=(224, 224, 3))

A state dict maps names to arrays. PyTorch itself is not needed: a safetensors file will
do, or `{k: v.numpy() for k, v in model.state_dict().items()}`. The models are those
with rules for names, `Model.timm`: `vit`, `deit`, `swin`, `cait` and `xcit`, with the
names of timm 1.0; a Swin may have those of its authors too, which were timm's before
0.9.

Each variable has one source, whose name is made from its path by these rules and those
below. PyTorch's layouts become ours: linear layers [out, in] -> [in, out], convolutions
OIHW -> HWIO, fused queries, keys and values in three, heads apart.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from attn import models
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
PARTS = ("query", "key", "value")
# What follows from the sizes, or counts batches, and is no weight.
BUFFERS = r"\.(relative_position_index|attn_mask|num_batches_tracked)$"


def from_timm(
    state_dict: Mapping[str, Any],
    model: models.Model,
    image_shape: tuple[int, int, int] = (224, 224, 3),
) -> dict[str, Any]:
    """The variables of `model` that make it compute what timm's model computes.

    Args:
        state_dict: names to arrays, or to whatever `numpy.asarray` takes.
        model: a model of the same settings, its slots as they are by default.
        image_shape: height, width and channels of the images that it is for.

    Returns:
        The variables, in the types in which the model keeps them.

    Raises:
        ValueError: a model without rules, names that are missing or unknown, or an
            array of another shape; the message tells which.
    """
    if not model.timm:
        known = ", ".join(name for name in models.names() if models.find(name).timm)
        raise ValueError(
            f"{type(model).__name__} has no rules for weights of timm; {known} have"
        )
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(model.init, train=False)
    wanted = jax.eval_shape(init, jax.random.key(0), images)
    wanted = traverse_util.flatten_dict(dict(wanted))
    sources = {path: _source(model.timm, path[1:]) for path in wanted}
    arrays = _modern(state_dict)
    _check_names({name for name, _ in sources.values()}, set(arrays))
    found = {
        path: _convert(arrays[name], part, name, path[1:], wanted[path])
        for path, (name, part) in sources.items()
    }
    return traverse_util.unflatten_dict(found)


def _source(rules: Rules, path: tuple[str, ...]) -> tuple[str, int | None]:
    """The name of the source of a variable, and which third of it, if it is fused."""
    name = "/".join(path)
    for pattern, replacement in rules + EVERYWHERE:
        name = re.sub(pattern, replacement, name)
    for part, word in enumerate(PARTS):
        if path[0].startswith("class"):
            name = name.replace(f"attn.{word}.", f"attn.{word[0]}.")
        elif f"attn.{word}." in name:
            return name.replace(f"attn.{word}.", "attn.qkv."), part
    return name, None


def _modern(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without buffers, and an older Swin with the names of today."""
    arrays = {k: v for k, v in state_dict.items() if not re.search(BUFFERS, k)}
    if "layers.0.downsample.norm.weight" not in arrays:
        return arrays
    later = lambda m: f"layers.{int(m[1]) + 1}.downsample"
    names = {k: re.sub(r"^layers\.(\d+)\.downsample", later, k) for k in arrays}
    names = {
        k: re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", n) for k, n in names.items()
    }
    return {names[k]: v for k, v in arrays.items()}


def _check_names(wanted: set[str], found: set[str]) -> None:
    faults = []
    for what, names in (("lacks", wanted - found), ("has unknown", found - wanted)):
        if names:
            faults.append(f"{what} {', '.join(sorted(names))}")
    if faults:
        raise ValueError(
            f"the state dict does not fit this model: it {'; it '.join(faults)}"
        )


def _convert(
    value: Any, part: int | None, name: str, path: tuple[str, ...], wanted: Any
) -> jax.Array:
    """An array of PyTorch as the variable at `path`, of the shape and type wanted."""
    value, shape = np.asarray(value), wanted.shape
    expected = _torch_shape(path, shape)
    if part is not None:
        expected = (3 * expected[0], *expected[1:])
    if value.shape != expected:
        raise ValueError(
            f"{name} has shape {value.shape}, but {'/'.join(path)} of this model, of"
            f" shape {shape}, needs {expected}"
        )
    if part is not None:
        value = np.split(value, 3)[part]
    if path[-1] == "kernel":
        spatial = value.ndim == 4 and len(shape) == 4
        value = value.transpose(2, 3, 1, 0) if spatial else value.T
    return jnp.asarray(value.reshape(shape), wanted.dtype)


def _torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in PyTorch, before fusing, of the variable at `path` of ours."""
    *_, layer, leaf = ("", *path)
    if leaf == "kernel" and len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    if leaf == "kernel":
        split = -1 if layer == "out" else 1  # heads lie on the side of the inputs
        outputs = (math.prod(shape[split:]), math.prod(shape[:split]))
        return (*outputs, 1, 1) if path == ("position", "kernel") else outputs
    if leaf == "bias_table":
        return (shape[0] * shape[1], shape[2])
    if leaf == "temperature":
        return (*shape, 1, 1)
    return (math.prod(shape),) if leaf == "bias" else shape
