"""The ResNet inside a model that reads its last map, with the ResNet's own slots.

A model that has one has the settings `backbone`, those of the ResNet, and slots
"backbone/...", of which the scope may be left out where nothing narrows the place.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.base import Slotted
from attn.models.resnet import ResNet
from attn.settings import Invalid

SCOPE = "backbone"
RESNET = FrozenDict({"depth": 50})
PLACES = {place: scopes + 1 for place, scopes in ResNet.places.items()}
OWN = ("num_classes", "slots", "fill", "dilated", "frozen_norm")  # no settings of it


def checked(backbone: Any, model: str) -> FrozenDict:
    """Settings of the backbone, in the form of fields of `ResNet`.

    Args:
        backbone: as a config has them.
        model: what it is the backbone of, for errors.

    Raises:
        Invalid: no settings, unknown ones, or such as the model has itself.
    """
    if not hasattr(backbone, "items"):
        raise Invalid(
            'backbone must be settings of a ResNet, such as {"depth": 50}, got'
            f" {backbone!r}"
        )
    own = {key: slots.frozen(value) for key, value in backbone.items()}
    for name in OWN:
        if name in own:
            where = {"slots": f'in slots, as "{SCOPE}/block.residual"'}
            usual = f"a setting of {model} itself or has no meaning here"
            raise Invalid(f"backbone has no {name!r}: it is {where.get(name, usual)}")
    if own.pop("name", "resnet") != "resnet":
        raise Invalid(f"the backbone of {model} is a resnet, got {backbone['name']!r}")
    settings.check(ResNet, "backbone", "resnet", {"num_classes": None, **own})
    return FrozenDict(own)


def scopes(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Its stages and blocks, for `Model.scopes`."""
    inside = ResNet(num_classes=None, parent=None, **backbone).scopes()
    return {SCOPE: inside}


def is_inside(key: str) -> bool:
    """Whether the key of a slot is that of a place in the backbone."""
    return key.rpartition("/")[2] in ResNet.places


def check_scope(key: str) -> str:
    """The part of a model that has the place of a slot: "backbone", "decoder", ...

    Raises:
        Invalid: the key narrows it to a scope of another part.
    """
    scope, _, place = key.rpartition("/")
    part = SCOPE if is_inside(key) else place.partition(".")[0]
    if scope and not scope.startswith(part):
        raise Invalid(f"slot {key!r}: only {part} has {place!r}")
    return part


def build(
    model: Slotted,
    backbone: Mapping[str, Any],
    dtype: jnp.dtype | None = None,
    **given: Any,
) -> ResNet:
    """The backbone of a model.

    Args:
        model: whose filling and types it takes.
        backbone: checked settings.
        dtype: of the computation.
        **given: what else it has, such as `frozen_norm`, and its place: its `name`, or
            parent=None for one by itself.
    """
    fill = slots.narrow(model.fill, SCOPE)
    fill = {key: specs for key, specs in fill.items() if is_inside(key)}
    return ResNet(
        num_classes=None,
        fill=FrozenDict(fill),
        **model.inherited(dtype),
        **backbone,
        **given,
    )
