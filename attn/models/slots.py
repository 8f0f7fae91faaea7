"""Slots: the named places of a host, and the attentions that fill them.

A filling maps a place to the name of an attention, or to its name and settings:

    {"block.residual": "squeeze_excite"}
    {"block.residual": {"name": "squeeze_excite", "reduction": 8}}
    {"stage3/block.residual": "cbam"}                # only in that stage
    {"block.residual": "cbam", "stage1/block.residual": "none"}     # not in that one
    {"block": {"residual": "cbam"}, "stage3/block": {"residual": "none"}}

Keys may be nested, since those of an `ml_collections` config cannot have dots: a
mapping with a "name" is an attention, another one is a level, joined to what is in
it by "." or, after a numbered scope such as "stage3" or "block0", by "/". A narrower
key overrides the wider one, and "none" or None leaves a place empty.

A host holds its filling, flat, in a field `fill`. `check` looks at it when the host
is made, `narrow` hands it down to stages and blocks, `attend` applies it in them.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import modules, settings

INHERITED = ("dtype", "param_dtype", "axis_name")
Filling = Mapping[str, Any]


def flatten(slots: Any) -> dict[str, dict[str, Any]]:
    """A filling in its flat form: {"stage3/block.residual": {"name": ..., settings}}.

    Args:
        slots: a mapping as in the head of this file (a dict, a FrozenDict or a
            ConfigDict), or None for an empty filling.

    Returns:
        A new dict. A place that is to stay empty has {"name": "none"}.

    Raises:
        Invalid: not a mapping, a value that is no attention, or a place twice.
    """
    flat: dict[str, dict[str, Any]] = {}
    _collect("", {} if slots is None else slots, flat)
    return flat


def _collect(path: str, value: Any, flat: dict[str, dict[str, Any]]) -> None:
    is_mapping = hasattr(value, "items")  # a ConfigDict is no collections Mapping
    if is_mapping and "name" not in value:
        joint = "/" if re.fullmatch(r"(.*/)?[a-z]+\d+", path) else "."
        for key, inner in value.items():
            _collect(f"{path}{joint}{key}" if path else str(key), inner, flat)
        return
    if not path:
        raise settings.Invalid(
            f"slots must map places to attentions, such as"
            f" {{'block.residual': 'squeeze_excite'}}, got {value!r}"
        )
    spec = dict(value.items()) if is_mapping else {"name": value}
    name = "none" if spec["name"] is None else spec["name"]
    if not isinstance(name, str):
        raise settings.Invalid(
            f"slot {path!r} takes the name of an attention, or a mapping with"
            f" 'name' and settings, got {value!r}"
        )
    if path in flat:
        raise settings.Invalid(f"slot {path!r} is filled twice")
    # Settings of an attention that a config has switched off mean nothing.
    spec = {key: frozen(value) for key, value in spec.items()}
    flat[path] = {"name": name} if name == "none" else {**spec, "name": name}


def frozen(value: Any) -> Any:
    """A setting that can be hashed: no lists of JSON, no mappings of configs."""
    if hasattr(value, "items"):
        return FrozenDict({key: frozen(inner) for key, inner in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def check(
    slots: Any,
    *,
    places: Mapping[str, int],
    scopes: Mapping[str, Mapping],
    given: Mapping[str, Any] | None = None,
) -> FrozenDict:
    """Flattens a filling and checks all of it, for when a host is made.

    Args:
        slots: the filling, see `flatten`.
        places: the places of the host, and how many scopes may narrow each.
        scopes: the scopes by name, each with the scopes in it:
            {"stage1": {"block0": {}, "block1": {}}, ...}.
        given: settings that the host hands to every attention that has them.

    Returns:
        The flat filling.

    Raises:
        Invalid: an unknown place, stage or block, with the nearest and the valid
            ones; an unknown attention or setting, with the slot that asks for it.
    """
    flat = flatten(slots)
    for key, spec in flat.items():
        *path, place = key.split("/")
        if place not in places:
            raise settings.unknown("slot", place, places)
        if len(path) > places[place]:
            raise settings.Invalid(
                f"slot {key!r}: {place!r} can be narrowed by at most"
                f" {places[place]} of stage and block, got {'/'.join(path)!r}"
            )
        inside: Mapping[str, Mapping] = scopes
        for scope in path:
            if scope not in inside:
                raise settings.unknown(f"scope of slot {key!r}", scope, inside)
            inside = inside[scope]
        if spec["name"] != "none":
            _check_attention(key, spec, given or {})
    return FrozenDict(flat)


def _check_attention(key: str, spec: Mapping, given: Mapping[str, Any]) -> None:
    try:
        modules.create(spec["name"], **settings_of(spec, given))
    except (ValueError, TypeError) as error:
        raise settings.Invalid(f"slot {key!r}: {error}") from error


def settings_of(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a filling, and those of the host that its attention has."""
    own = {key: value for key, value in spec.items() if key != "name"}
    fields = dataclasses.fields(modules.find(spec["name"]))
    known = {field.name: given[field.name] for field in fields if field.name in given}
    if "head_dim" in own:  # the number of heads follows from it
        known.pop("num_heads", None)
    return {**known, **own}


def narrow(fill: Filling, scope: str) -> FrozenDict:
    """The filling inside a scope: what is meant for it overrides what is for all."""
    wide = {key: spec for key, spec in fill.items() if "/" not in key}
    inside = {
        key.removeprefix(f"{scope}/"): spec
        for key, spec in fill.items()
        if key.startswith(f"{scope}/")
    }
    return FrozenDict({**wide, **inside})


def filled(fill: Filling, place: str) -> type[nn.Module] | None:
    """The class of the attention at a place, or None where it is empty."""
    name = fill.get(place, {"name": "none"})["name"]
    return None if name == "none" else modules.find(name)


def contract(module: type[nn.Module]) -> str:
    """ "map" or "token", from the card, or from the signature where there is none."""
    if hasattr(module, "card"):
        return module.card.contract
    return "token" if "kv" in inspect.signature(module.__call__).parameters else "map"


def build(parent: nn.Module, place: str, **given: Any) -> nn.Module | None:
    """Makes what fills a place, as a submodule of `parent` called after the place.

    Args:
        parent: the host, stage or block, inside its compact `__call__`; its field
            `fill` tells what fills the place.
        place: such as "block.residual", whose submodule is called "residual".
        **given: settings that the attention gets, like the dtype, param_dtype and
            axis_name of `parent`, if it has them and the filling does not set them.

    Returns:
        The module, or None where the place is empty.
    """
    module = filled(parent.fill, place)
    if module is None:
        return None
    inherited = {name: getattr(parent, name) for name in INHERITED}
    own = settings_of(parent.fill[place], {**inherited, **given})
    return module(name=place.rpartition(".")[2], **own)


def attend(parent: nn.Module, place: str, x: jax.Array, *, train: bool) -> jax.Array:
    """What fills a place, on a map: [B, H, W, C] -> [B, H, W, C]; x where it is empty.

    A token attention gets the tokens of the map, row by row, and its grid.
    """
    module = build(parent, place)
    return x if module is None else on_map(module, x, train=train)


def on_map(module: nn.Module, x: jax.Array, *, train: bool) -> jax.Array:
    """Applies an attention of either contract to a map, [B, H, W, C]."""
    if contract(type(module)) == "map":
        return module(x, train=train)
    batch, height, width, channels = x.shape
    tokens = x.reshape(batch, height * width, channels)
    tokens = module(tokens, grid=(height, width), train=train)
    return tokens.reshape(batch, height, width, tokens.shape[-1])


def on_tokens(
    module: nn.Module,
    x: jax.Array,
    *,
    grid: tuple[int, int],
    train: bool,
) -> jax.Array:
    """Applies an attention of either contract to tokens, [B, P + H W, C].

    The last H W tokens lie on `grid`, (H, W); P tokens before them, such as a class
    token, do not. A map attention gets the map of the grid, and the P tokens bypass
    it unchanged. A token attention gets all of them, and the grid only where P is 0 or
    is what its setting `prefix` says.
    """
    batch, length, channels = x.shape
    prefix = length - grid[0] * grid[1]
    if contract(type(module)) == "token":
        known = prefix == getattr(module, "prefix", 0)
        return module(x, grid=grid if known else None, train=train)
    y = module(x[:, prefix:].reshape(batch, *grid, channels), train=train)
    if y.shape != (batch, *grid, channels):
        raise settings.Invalid(
            f"an attention on tokens must keep their map {(*grid, channels)}, but"
            f" {type(module).__name__} made {y.shape[1:]} of it"
        )
    y = y.reshape(batch, -1, channels)
    return jnp.concatenate([x[:, :prefix].astype(y.dtype), y], axis=1)
