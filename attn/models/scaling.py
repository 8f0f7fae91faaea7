"""Width settings: those by which a model is made wider or narrower.

A model that can be scaled to a budget has a method `width_settings()`, which returns
the settings of `models.create` that hold its widths, by name, each as a `Width`.
Scaling all of them by one factor, each to a multiple of its step, makes a network of
the same shape and another cost; setting them to the values that they have makes the
same network. "backbone.widths" is the setting "widths" inside the setting "backbone".
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from attn import modules
from attn.models import slots
from attn.modules import position as positions


class Width(NamedTuple):
    """One setting that scales the width of a model.

    Attributes:
        value: what it is now: a width, or one of each layer or stage.
        step: of what every width must stay a multiple, at least one time.
    """

    value: int | tuple[int, ...]
    step: int


def scaled(section: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The section of a config with widths in it.

    Args:
        section: settings of the model.
        found: widths by the names that `width_settings` gives them.
    """
    section = dict(section)
    for name, value in found.items():
        outer, _, inner = name.partition(".")
        if inner:
            value = scaled(section.get(outer, {}), {inner: value})
        section[outer] = value
    return section


def step_of(fill: slots.Filling, given: Mapping[str, Any]) -> int:
    """Of what channels must be a multiple, for the heads and positions in all slots.

    Args:
        fill: a checked filling.
        given: settings of the model for attentions that have them, such as num_heads.
    """
    specs = [spec for chain in fill.values() for spec in chain]
    return math.lcm(*(_step_of_one(spec, given) for spec in specs))


def _step_of_one(spec: Mapping[str, Any], given: Mapping[str, Any]) -> int:
    module = modules.find(spec["name"])
    own = {field.name: field.default for field in dataclasses.fields(module)}
    own |= slots.settings_of(spec, given)
    if "num_heads" not in own:
        return 1
    heads, dim = own["num_heads"], own.get("head_dim")
    both = heads is not None and dim is not None
    step = 1 if both else dim or heads or 4  # as `head_shape` has it
    position = positions.find(positions.check(own.get("position"))["name"])
    if "tokens" in position.acts:
        return math.lcm(step, position.divisor)
    return step * (position.divisor if dim is None else 1)
