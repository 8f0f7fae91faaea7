"""The weights of a network by itself for a model that has it as its backbone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attn import models
from attn.interop import timm
from attn.interop.fitting import Fit, Path, Source, fit
from attn.models import backbone as backbones
from attn.models.backbone import SCOPE

# What a ResNet and a VGG by themselves have, of torchvision or timm, and of ours.
FIRST = frozenset(
    {
        *("layer1.0.conv1.weight", "params/stage1/block0/conv1/kernel"),
        *("features.0.weight", "params/stage1/block0/conv/kernel"),
    }
)
WHY = "the weights have none"


def fits(model: models.Model, names: Iterable[str]) -> bool:
    """Whether weights are of a network by itself, and the model has one inside."""
    return hasattr(model, "backbone") and not FIRST.isdisjoint(names)


def fit_state_dict(
    model: models.Model, wanted: Mapping[Path, Any], state_dict: Mapping[str, Any]
) -> Fit:
    """How a network of torchvision or timm becomes the backbone; all else is new.

    Args:
        model: whose settings `backbone` are those of the network.
        wanted: shapes and types of its variables.
        state_dict: of the network.

    Raises:
        Invalid: as `fitting.fit` says.
    """
    inside = backbones.build(model, model.backbone, parent=None)
    sources = timm.sources(inside, _own(wanted))
    return _fit(wanted, sources, timm.weights(state_dict), timm.spare(inside))


def fit_variables(
    model: models.Model, wanted: Mapping[Path, Any], arrays: Mapping[str, Any]
) -> Fit:
    """The same for a network of ours.

    Its normalisation may be fixed in the backbone: then what was a parameter is none.

    Args:
        model: whose settings `backbone` are those of the network.
        wanted: shapes and types of its variables.
        arrays: variables of the network by their path, "params/stem_conv/kernel".

    Raises:
        Invalid: as `fitting.fit` says.
    """
    sources = {}
    for path, array in _own(wanted).items():
        names = ["/".join((kind, *path[1:])) for kind in (path[0], "params")]
        name = next((name for name in names if name in arrays), names[0])
        sources[path] = Source(name, (tuple(array.shape),), np.asarray)
    inside = backbones.build(model, model.backbone, parent=None)
    spare = [f"params/{layer}" for layer in inside.task_layers]
    return _fit(wanted, sources, arrays, spare)


def _own(wanted: Mapping[Path, Any]) -> dict[Path, Any]:
    """The variables of the backbone by their path in a network by itself."""
    inside = {path: array for path, array in wanted.items() if path[1] == SCOPE}
    return {(path[0], *path[2:]): array for path, array in inside.items()}


def _fit(
    wanted: Mapping[Path, Any],
    sources: Mapping[Path, Source],
    arrays: Mapping[str, Any],
    spare: Sequence[str],
) -> Fit:
    """As `fitting.fit`, with sources by the paths of a network by itself."""
    inside = {(path[0], SCOPE, *path[1:]): one for path, one in sources.items()}
    new = {path[1]: WHY for path in wanted if path[1] != SCOPE}
    return fit(wanted, inside, arrays, new=new, spare=spare)
