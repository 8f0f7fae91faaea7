"""The network inside a model that reads its last map, with that network's own slots.

It is a ResNet, or a VGG where the model takes one. A model with such a network has the
settings `backbone`, which are the network's, and slots "backbone/...", of which the
scope may be left out where nothing narrows the place.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.base import Slotted
from attn.models.resnet import ResNet
from attn.models.scaling import Width
from attn.models.vgg import VGG
from attn.settings import Invalid

SCOPE = "backbone"
KINDS = {"resnet": ResNet, "vgg": VGG}
RESNET = FrozenDict({"depth": 50})
# Of the ResNet, whose places the others have some of.
PLACES = {place: scopes + 1 for place, scopes in ResNet.places.items()}
# What is no setting of it: the model has it itself, or it has no meaning there.
OWN = (
    *("num_classes", "slots", "fill", "dilated", "frozen_norm"),
    *("dense", "side", "dropout"),
    *("pooling", "pooled_channels", "iterations"),
)


def checked(
    backbone: Any, model: str, kinds: Collection[str] = ("resnet",)
) -> FrozenDict:
    """Settings of the backbone, its name among them, in the form of its fields.

    Args:
        backbone: as a config has them; without a name it is a ResNet.
        model: what it is the backbone of, for errors.
        kinds: the names of those that the model takes.

    Raises:
        Invalid: no settings, unknown ones, or such as the model has itself, or a
            network that the model does not take.
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
    name = own.pop("name", "resnet")
    if name not in kinds:
        raise Invalid(
            f"the backbone of {model} is a {' or a '.join(kinds)}, got {name!r}"
        )
    settings.check(KINDS[name], "backbone", name, {"num_classes": None, **own})
    return FrozenDict(name=name, **own)


def places(backbone: Mapping[str, Any]) -> dict[str, int]:
    """Its slots, for `Model.slot_places`."""
    kind, _ = _parts(backbone)
    return {place: scopes + 1 for place, scopes in kind.places.items()}


def scopes(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Its stages and blocks, for `Model.scopes`."""
    kind, own = _parts(backbone)
    return {SCOPE: kind(num_classes=None, parent=None, **own).scopes()}


def width_settings(
    model: Slotted, backbone: Mapping[str, Any], step: int = 1
) -> dict[str, Width]:
    """The settings that scale its width, for `Model.width_settings`.

    Args:
        model: whose filling it takes.
        backbone: checked settings.
        step: of what the model needs its channels to be a multiple.
    """
    own = build(model, backbone, parent=None).width_settings()
    return {
        f"{SCOPE}.{name}": Width(width.value, math.lcm(step, width.step))
        for name, width in own.items()
    }


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
    *,
    frozen: bool = False,
    **given: Any,
) -> ResNet | VGG:
    """The backbone of a model.

    Args:
        model: whose filling and types it takes.
        backbone: checked settings.
        dtype: of the computation.
        frozen: whether its batch normalisation is fixed, where it has some.
        **given: what else it has, such as `dilated`, and its place: its `name`, or
            parent=None for one by itself.
    """
    kind, own = _parts(backbone)
    fill = slots.narrow(model.fill, SCOPE)
    fill = {key: specs for key, specs in fill.items() if is_inside(key)}
    return kind(
        num_classes=None,
        fill=FrozenDict(fill),
        frozen_norm=frozen and own.get("norm", kind is ResNet),
        **model.inherited(dtype),
        **own,
        **given,
    )


def _parts(backbone: Mapping[str, Any]) -> tuple[type[ResNet] | type[VGG], dict]:
    """Its class and its fields."""
    own = dict(backbone)
    return KINDS[own.pop("name", "resnet")], own
