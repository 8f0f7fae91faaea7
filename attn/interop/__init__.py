"""Weights of other libraries: state dicts of PyTorch as variables of models.

    from attn import interop
    variables = interop.from_timm(state_dict, model, image_shape=(224, 224, 3))
    variables = interop.from_transformers(state_dict, model)
    variables = interop.from_released(state_dict, model)

A state dict maps names to arrays. PyTorch itself is not needed: `interop.read` opens a
safetensors file, or the index of several; else
`{k: v.numpy() for k, v in model.state_dict().items()}` is one. The models are those
with rules for names.

timm 1.0 (`Model.timm`): `vit`, `deit`, `swin`, `cait`, `xcit`, `resnet` and `vgg`. A
Swin may have the names of its authors too, which were timm's before 0.9, a ResNet
torchvision's, which are the same, and a VGG torchvision's, which are others. The slots
of the model are filled as timm's are, with the settings that their cards call "timm".
In a `resnet`, "block.residual" may have `squeeze_excite`, `efficient_channel`, `cbam`
or `global_context` ("gca", or "gc" which scales; timm's gcresnet50t is a ByobNet, with
another stem), for all stages or for some:

    seresnet50          resnet, depth=50
    ecaresnet50d        resnet, depth=50, stem="deep", shortcut="average"
    ecaresnet50t        resnet, depth=50, stem="tiered", shortcut="average"
    seresnext50_32x4d   resnet, depth=50, cardinality=32, group_width=4

transformers 5 (`Model.transformers`), whose settings have other names:

    BertModel, BertForPreTraining, BertForSequenceClassification
                        bert, max_length up to theirs, num_classes of the last
    MarianMTModel       transformer, bias=True, activation="silu", epsilon=1e-5,
                        output_bias=True,
                        position={"name": "sinusoidal", "order": "halves"}
    DetrForObjectDetection
                        detr; its files of transformers 4 too, whether their ResNet is
                        timm's or transformers', and those of the authors' repository,
                        the state dict under "model" of their checkpoints

The code that authors published (`Model.released`): `edsr` and `san`, with units=255 for
the weights that were published, `ffa` and `pan`; their slots as they are by default.

A training of a model with a backbone (`captioner`, `detr`, `pose_resnet`) may also
start with the ResNet, or the VGG of a captioner, of torchvision or timm alone, or with
one of ours.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from attn import models
from attn.interop import backbone, released, timm, transformers
from attn.interop.fitting import Fit, Path
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
    _check_rules(model, "timm")
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    wanted = _shapes(model, images)
    arrays = timm.weights(state_dict)
    return _variables(_fit(wanted, timm.sources(model, wanted), arrays))


def from_transformers(
    state_dict: Mapping[str, Any],
    model: models.Model,
    initial: Any = None,
    image_shape: tuple[int, int, int] = (224, 224, 3),
) -> dict[str, Any]:
    """The variables of `model` that make it compute what that of transformers does.

    Args:
        state_dict: names to arrays, or to whatever `numpy.asarray` takes; heads that
            `model` does not have are left out.
        model: a model of the same settings, its slots as they are by default.
        initial: variables of the model, of which the heads stay that the state dict
            does not have, or has for other classes; None demands all.
        image_shape: height, width and channels of images, for a model that takes some.

    Returns:
        The variables, in the types in which the model keeps them.

    Raises:
        Invalid: as `from_timm` says.
    """
    _check_rules(model, "transformers")
    length = getattr(model, "max_length", None) or 1
    shapes = {"image": image_shape, "image_mask": image_shape[:2]}
    kinds = {"image": jnp.float32}
    fields = (
        jax.ShapeDtypeStruct(
            (1, *shapes.get(name, (length,))),
            bool if name.endswith("mask") else kinds.get(name, jnp.int32),
        )
        for name in model.inputs
    )
    wanted = _shapes(model, *fields)
    found = _fit(
        wanted,
        transformers.sources(model, wanted),
        transformers.weights(state_dict),
        task_layers=model.task_layers if initial else (),
        spare=transformers.spare(model),
    )
    return _variables(found, _flat(initial or {}))


def from_released(
    state_dict: Mapping[str, Any],
    model: models.Model,
    image_shape: tuple[int, int, int] = (48, 48, 3),
) -> dict[str, Any]:
    """The variables of `model` that make it compute what its authors' code computes.

    Args:
        state_dict: names to arrays, or to whatever `numpy.asarray` takes.
        model: a model of the same settings, its slots as they are by default.
        image_shape: height, width and channels of the images that it is for.

    Returns:
        The variables, in the types in which the model keeps them.

    Raises:
        Invalid: as `from_timm` says.
    """
    _check_rules(model, "released")
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    wanted, arrays = _shapes(model, images), released.weights(state_dict)
    return _variables(_fit(wanted, released.sources(model, wanted), arrays))


def read(path: str | pathlib.Path) -> Mapping[str, Any]:
    """A state dict from safetensors files, whose arrays are read when needed.

    Args:
        path: of the file, or of the "model.safetensors.index.json" of several.

    Raises:
        Invalid: there is no such file, or it is something else.
    """
    from attn.interop import safetensors  # which the models alone do without

    return safetensors.read(pathlib.Path(path))


def fit(state_dict: Mapping[str, Any], model: models.Model, variables: Any) -> Fit:
    """How the arrays of a state dict become variables that a training starts with.

    The layers that belong to a task (`Model.task_layers`), such as the classifier, may
    be missing or of another shape: then they are new. All others must be there, but
    for the state dict of its backbone alone, with which it may start.

    Args:
        state_dict: see the head of this file; arrays are read when they are needed.
        model: a model with rules, or with a backbone.
        variables: shapes and types of its variables.

    Raises:
        Invalid: as `from_timm` says.
    """
    wanted = _flat(variables)
    if backbone.fits(model, state_dict):
        return backbone.fit_state_dict(model, wanted, state_dict)
    library = _library(model)
    return _fit(
        wanted,
        library.sources(model, wanted),
        library.weights(state_dict),
        task_layers=model.task_layers,
        spare=library.spare(model),
    )


def _library(model: models.Model) -> Any:
    """Where the names of the weights of a model come from."""
    known = {"transformers": transformers, "timm": timm, "released": released}
    _check_rules(model, *known)
    return next(known[name] for name in known if getattr(model, name, ()))


def _check_rules(model: models.Model, *libraries: str) -> None:
    has = lambda host: any(getattr(host, library, ()) for library in libraries)
    if not has(model):
        known = ", ".join(name for name in models.names() if has(models.find(name)))
        raise Invalid(
            f"{type(model).__name__} has no rules for weights of"
            f" {' or '.join(libraries)}; {known} have"
        )


def _shapes(model: models.Model, *inputs: jax.ShapeDtypeStruct) -> dict[Path, Any]:
    init = functools.partial(model.init, train=False)
    return _flat(jax.eval_shape(init, jax.random.key(0), *inputs))


def _flat(variables: Any) -> dict[Path, Any]:
    return traverse_util.flatten_dict(dict(variables))


def _variables(fit: Fit, initial: Mapping[Path, Any] | None = None) -> dict[str, Any]:
    found = {path: jnp.asarray(value) for path, value in fit.variables().items()}
    return traverse_util.unflatten_dict({**(initial or {}), **found})
