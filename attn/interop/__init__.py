"""Weights of other libraries: state dicts of PyTorch's timm as variables of models.

    from attn import interop
    variables = interop.from_timm(state_dict, model, image_shape=(224, 224, 3))

A state dict maps names to arrays. PyTorch itself is not needed: `interop.read` opens a
safetensors file, or `{k: v.numpy() for k, v in model.state_dict().items()}`. The models
are those with rules for names: `vit`, `deit`, `swin`, `cait`, `xcit` and `resnet`, with
the names of timm 1.0 (`Model.timm`); a Swin may have those of its authors too, which
were timm's before 0.9, and a ResNet torchvision's, which are the same.

The slots of the model are filled as timm's are, with the settings that its card calls
"timm". In a `resnet`, "block.residual" may have `squeeze_excite` (seresnet50),
`efficient_channel` (ecaresnet50d) or `cbam`, for all stages or for some.

    timm                model
    seresnet50          resnet, depth=50
    ecaresnet50d        resnet, depth=50, stem="deep", shortcut="average"
    ecaresnet50t        resnet, depth=50, stem="tiered", shortcut="average"
    seresnext50_32x4d   resnet, depth=50, cardinality=32, group_width=4
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from attn import models
from attn.interop import timm
from attn.interop.fitting import Fit
from attn.interop.fitting import fit as _fit
from attn.settings import Invalid


def from_timm(
    state_dict: Mapping[str, Any],
    model: models.Model,
    image_shape: tuple[int, int, int] = (224, 224, 3),
) -> dict[str, Any]:
    """The variables of `model` that make it compute what timm's model computes.

    Args:
        state_dict: names to arrays, or to whatever `numpy.asarray` takes.
        model: a model of the same settings, its slots filled as timm's are.
        image_shape: height, width and channels of the images that it is for.

    Returns:
        The variables, in the types in which the model keeps them.

    Raises:
        Invalid: a model without rules, names that are missing or unknown, or an
            array of another shape; the message tells which.
    """
    _check_rules(model)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = functools.partial(model.init, train=False)
    wanted = _flat(jax.eval_shape(init, jax.random.key(0), images))
    arrays = timm.weights(state_dict)
    found = _fit(wanted, timm.sources(model, wanted), arrays).variables()
    found = {path: jnp.asarray(value) for path, value in found.items()}
    return traverse_util.unflatten_dict(found)


def read(path: str | pathlib.Path) -> Mapping[str, Any]:
    """A state dict from a safetensors file, whose arrays are read when needed.

    Raises:
        Invalid: there is no such file, or it is something else.
    """
    from attn.interop import safetensors  # which the models alone do without

    return safetensors.read(pathlib.Path(path))


def fit(state_dict: Mapping[str, Any], model: models.Model, variables: Any) -> Fit:
    """How the arrays of a state dict become variables that a training starts with.

    The layers that belong to a task (`Model.task_layers`), such as the classifier, may
    be missing or of another shape: then they are new. All others must be there.

    Args:
        state_dict: see the head of this file; arrays are read when they are needed.
        model: a model with rules.
        variables: shapes and types of its variables.

    Raises:
        Invalid: as `from_timm` says.
    """
    _check_rules(model)
    wanted = _flat(variables)
    return _fit(
        wanted,
        timm.sources(model, wanted),
        timm.weights(state_dict),
        task_layers=model.task_layers,
        spare=timm.spare(model),
    )


def _check_rules(model: models.Model) -> None:
    if not getattr(model, "timm", ()):
        known = ", ".join(name for name in models.names() if models.find(name).timm)
        raise Invalid(
            f"{type(model).__name__} has no rules for weights of timm; {known} have"
        )


def _flat(variables: Any) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(dict(variables))
