"""Checks of the settings that models share; each raises ValueError with what fits."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from attn.models import slots
from attn.settings import Invalid


def check_sizes(model: nn.Module, **sizes: int | tuple[int, ...] | None) -> None:
    """Refuses sizes below 1; those that are None are left to the model."""
    for name, value in sizes.items():
        if value is None:
            continue
        if min(value if isinstance(value, tuple) else (value,), default=1) < 1:
            kind = type(model).__name__
            raise Invalid(f"{name} of {kind} must be at least 1, got {value}")


def check_heads(model: nn.Module, width: int, num_heads: int) -> None:
    """Refuses heads that do not divide the width, and either below 1."""
    check_sizes(model, width=width, num_heads=num_heads)
    if width % num_heads:
        fit = [n for n in range(1, width + 1) if width % n == 0]
        fit = sorted(sorted(fit, key=lambda n: abs(n - num_heads))[:3])
        raise Invalid(
            f"num_heads={num_heads} does not divide width={width};"
            f" heads that do: {', '.join(map(str, fit))}"
        )


def check_sides(sides: tuple[int, int], step: int, why: str, advice: str = "") -> None:
    """Refuses images whose sides `step` does not divide.

    Args:
        sides: height and width.
        step: in pixels.
        why: must it, the beginning of the sentence.
        advice: its end.
    """
    if any(side % step for side in sides):
        near = " x ".join(str(max(1, round(side / step)) * step) for side in sides)
        raise Invalid(
            f"{why}, got {sides[0]} x {sides[1]}; the nearest are {near}{advice}"
        )


def check_rates(model: nn.Module, **rates: float) -> None:
    """Refuses rates outside [0, 1)."""
    for name, value in rates.items():
        if not 0 <= value < 1:
            kind = type(model).__name__
            raise Invalid(f"{name} of {kind} must be in [0, 1), got {value}")


def check_reach(
    model: Any, depth: int, tokens: str, advice: str = "", *, what: str = "the image"
) -> None:
    """Refuses a filling with which tokens that are read never see the others.

    Args:
        model: one with blocks "block0", ... and a slot "pool", its `fill` checked.
        depth: how many blocks.
        tokens: such as "the class token".
        advice: the end of the sentence.
        what: they are to see.
    """
    for module in slots.filled(model.fill, "pool"):
        if slots.contract(module) == "map":
            raise Invalid(
                f"slot 'pool': {module.__name__} attends to maps, which do not hold"
                f" {tokens}{advice}"
            )
    inside = [slots.narrow(model.fill, f"block{index}") for index in range(depth)]
    readers = [
        module
        for fill in inside
        for place in model.places
        for module in slots.filled(fill, place)
    ]
    if not any(slots.contract(module) == "token" for module in readers):
        raise Invalid(
            f"no slot of this {type(model).__name__} has a token attention, so that"
            f" nothing of {what} reaches {tokens}{advice}"
        )


def check_class_layers(fill: Mapping[str, Any], class_layers: int) -> None:
    """Refuses slots in scopes that lack them, and class layers that all read nothing.

    Args:
        fill: a checked filling of a model with scopes "block0", ... and "class0", ...,
            of which the latter have "class.mixer" and the former everything else.
        class_layers: number of the latter.
    """
    for key in fill:
        scope, _, place = key.rpartition("/")
        of_class = place.startswith("class.")
        if scope and scope.startswith("class") != of_class:
            kind = "class layers" if of_class else "blocks"
            raise Invalid(f"slot {key!r}: only {kind} have {place!r}")
    layers = [slots.narrow(fill, f"class{index}") for index in range(class_layers)]
    readers = [m for layer in layers for m in slots.filled(layer, "class.mixer")]
    for module in readers:
        if slots.contract(module) == "map":
            raise Invalid(
                f"slot 'class.mixer': {module.__name__} attends to maps, but a class"
                " token needs a token attention"
            )
    if not readers:
        raise Invalid(
            "no class layer has an attention module, so that the class token never"
            " sees the image"
        )
