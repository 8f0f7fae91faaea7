"""Slots: the named places of a model, and the attention modules that fill them.

A filling maps a place to the name of an attention module, to its name and settings, or
to a list of such, which are applied in this order:

    {"block.residual": "squeeze_excite"}
    {"block.residual": {"name": "squeeze_excite", "reduction": 8}}
    {"block.residual": ["squeeze_excite", {"name": "cbam", "reduction": 8}]}
    {"stage3/block.residual": "cbam"}                # only in that stage
    {"block.residual": "cbam", "stage1/block.residual": "none"}     # not in that one
    {"block": {"residual": "cbam"}, "stage3/block": {"residual": "none"}}

Keys may be nested, since those of an `ml_collections` config cannot have dots: a
mapping with a "name" is an attention module, another one is a level, joined to what is
in it by "." or, after a numbered scope such as "stage3" or "block0", by "/". A narrower
key overrides the wider one, and "none", None or an empty list leaves a place empty.

A model holds its filling, flat, in a field `fill`. `check` looks at it when the model
is made, `narrow` hands it down to stages and blocks, `attend` and `attend_tokens` apply
it in them. The module at "block.residual" is a submodule called "residual"; those of a
list are called "residual0", "residual1" and so on.
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
from attn.settings import Invalid

Spec = Mapping[str, Any]
Filling = Mapping[str, tuple[Spec, ...]]


def flatten(slots: Any) -> dict[str, tuple[Spec, ...]]:
    """A filling in its flat form: {"stage3/block.residual": ({"name": ..., ...},)}.

    Args:
        slots: a mapping as in the head of this file (a dict, a FrozenDict or a
            ConfigDict), or None for an empty filling.

    Returns:
        A new dict. A place that is to stay empty has an empty tuple.

    Raises:
        Invalid: not a mapping, a value that is no attention module, or a place
            twice.
    """
    flat: dict[str, tuple[Spec, ...]] = {}
    _collect("", {} if slots is None else slots, flat)
    return flat


def _collect(path: str, value: Any, flat: dict[str, tuple[Spec, ...]]) -> None:
    if hasattr(value, "items") and "name" not in value:
        joint = "/" if re.fullmatch(r"(.*/)?[a-z]+\d+", path) else "."
        for key, inner in value.items():
            _collect(f"{path}{joint}{key}" if path else str(key), inner, flat)
        return
    if not path:
        raise Invalid(
            f"slots must map places to attention modules, such as"
            f" {{'block.residual': 'squeeze_excite'}}, got {value!r}"
        )
    if path in flat:
        raise Invalid(f"slot {path!r} is filled twice")
    chain = value if isinstance(value, list | tuple) else [value]
    specs = [_spec(path, link) for link in chain]
    flat[path] = tuple(spec for spec in specs if spec["name"] != "none")


def _spec(path: str, value: Any) -> Spec:
    is_mapping = hasattr(value, "items")  # a ConfigDict is no collections Mapping
    spec = dict(value.items()) if is_mapping else {"name": value}
    name = spec.get("name", value)
    name = "none" if name is None else name
    if not isinstance(name, str):
        raise Invalid(
            f"slot {path!r} takes the name of an attention module, a mapping with"
            f" 'name' and settings, or a list of these, got {value!r}"
        )
    # Settings of a module that a config has switched off mean nothing.
    return FrozenDict(name=name) if name == "none" else frozen({**spec, "name": name})


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
    """Flattens a filling and checks all of it, for when a model is made.

    Args:
        slots: the filling, see `flatten`.
        places: the places of the model, and how many scopes may narrow each.
        scopes: the scopes by name, each with the scopes in it:
            {"stage1": {"block0": {}, "block1": {}}, ...}.
        given: settings that the model hands to every attention module that has them.

    Returns:
        The flat filling.

    Raises:
        Invalid: an unknown place, stage or block, with the nearest and the valid
            ones; an unknown module or setting, with the slot that asks for it.
    """
    flat = flatten(slots)
    for key, specs in flat.items():
        *path, place = key.split("/")
        if place not in places:
            raise settings.unknown("slot", place, places)
        if len(path) > places[place]:
            raise Invalid(
                f"slot {key!r}: {place!r} can be narrowed by at most"
                f" {places[place]} of stage and block, got {'/'.join(path)!r}"
            )
        inside: Mapping[str, Mapping] = scopes
        for scope in path:
            if scope not in inside:
                raise settings.unknown(f"scope of slot {key!r}", scope, inside)
            inside = inside[scope]
        for spec in specs:
            _check_module(key, spec, given or {})
    return FrozenDict(flat)


def _check_module(key: str, spec: Spec, given: Mapping[str, Any]) -> None:
    try:
        own, kind = settings_of(spec, given), modules.find(spec["name"])
        settings.check(kind, "attention", spec["name"], own)
        # by itself, as a model may be made, or cloned, inside of another one
        kind(**own, parent=None)
    except (ValueError, TypeError) as error:
        raise Invalid(f"slot {key!r}: {error}") from error


def settings_of(spec: Spec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a filling, and those of the model that its module has."""
    own = {key: value for key, value in spec.items() if key != "name"}
    fields = dataclasses.fields(modules.find(spec["name"]))
    known = {field.name: given[field.name] for field in fields if field.name in given}
    if "head_dim" in own:  # the number of heads follows from it
        known.pop("num_heads", None)
    return {**known, **own}


def narrow(fill: Filling, scope: str) -> FrozenDict:
    """The filling inside a scope: what is meant for it overrides what is for all."""
    wide = {key: specs for key, specs in fill.items() if "/" not in key}
    inside = {
        key.removeprefix(f"{scope}/"): specs
        for key, specs in fill.items()
        if key.startswith(f"{scope}/")
    }
    return FrozenDict({**wide, **inside})


def filled(fill: Filling, place: str) -> tuple[type[nn.Module], ...]:
    """The classes of the attention modules at a place, none where it is empty."""
    return tuple(modules.find(spec["name"]) for spec in fill.get(place, ()))


def contract(module: type[nn.Module]) -> str:
    """ "map" or "token", from the card, or from the signature where there is none."""
    if hasattr(module, "card"):
        return module.card.contract
    return "token" if takes(module, "kv") else "map"


def takes(module: type[nn.Module], option: str) -> bool:
    """Whether the call of an attention module has an option of this name."""
    return option in inspect.signature(module.__call__).parameters


def supports(module: type[nn.Module]) -> frozenset[str]:
    """What an attention module can do, as its card says.

    Where there is no card it is what its call takes, and "cross" if that is `kv`.
    """
    if hasattr(module, "card"):
        return module.card.supports
    taken = frozenset(inspect.signature(module.__call__).parameters)
    return (taken - {"grid"}) | ({"cross"} if "kv" in taken else set())


def build(parent: Any, place: str, **given: Any) -> tuple[nn.Module, ...]:
    """Makes what fills a place, as submodules of `parent` called after the place.

    Args:
        parent: the model, stage or block (`attn.models.base.Slotted`), inside its
            compact `__call__`; its field `fill` says what fills the place.
        place: such as "block.residual".
        **given: settings that a module gets, like the dtype, param_dtype and axis_name
            of `parent`, if it has them and the filling does not set them.
    """
    specs = parent.fill.get(place, ())
    given = {**parent.inherited(), **given}
    name = place.rpartition(".")[2]
    names = [name] if len(specs) == 1 else [f"{name}{i}" for i in range(len(specs))]
    return tuple(
        modules.find(spec["name"])(name=name, **settings_of(spec, given))
        for name, spec in zip(names, specs, strict=True)
    )


def attend(parent: Any, place: str, x: jax.Array, *, train: bool) -> jax.Array:
    """What fills a place, on a map: [B, H, W, C] -> [B, H, W, C]; x where it is empty.

    A token attention gets the tokens of the map, row by row, and its grid.
    """
    for module in build(parent, place):
        x = on_map(module, x, train=train)
    return x


def attend_tokens(
    parent: Any,
    place: str,
    q: jax.Array,
    kv: jax.Array | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    **options: Any,
) -> jax.Array:
    """What fills a place, on tokens: [B, T, C] -> [B, T, C]; q where it is empty.

    Args:
        parent, place: as in `build`.
        q, kv: queries, and keys and values; without `kv` the queries attend to each
            other.
        given: as in `build`.
        **options: as in `on_tokens`.
    """
    for module in build(parent, place, **(given or {})):
        q = on_tokens(module, q, kv, **options)
    return q


def on_map(module: nn.Module, x: jax.Array, *, train: bool) -> jax.Array:
    """Applies an attention module of either contract to a map, [B, H, W, C]."""
    if contract(type(module)) == "map":
        return module(x, train=train)
    batch, height, width, channels = x.shape
    tokens = x.reshape(batch, height * width, channels)
    tokens = module(tokens, grid=(height, width), train=train)
    return tokens.reshape(batch, height, width, tokens.shape[-1])


def on_tokens(
    module: nn.Module,
    q: jax.Array,
    kv: jax.Array | None = None,
    *,
    grid: tuple[int, int] | None = None,
    train: bool,
    **options: Any,
) -> jax.Array:
    """Applies an attention module of either contract to tokens, [B, P + H W, C].

    The last H W tokens lie on `grid`, (H, W); P tokens before them, such as a class
    token, do not. A map attention gets the map of the grid, and the P tokens bypass
    it unchanged. A token attention gets all of them, and the grid only where P is 0 or
    is what its setting `prefix` says. Text has no grid.

    Args:
        module: in the scope of its parent.
        q: the tokens, or the queries alone, [B, T, C].
        kv: keys and values of a token attention, [B, S, C]; None takes `q`.
        grid: see above.
        train: as in every module.
        **options: mask, kv_mask, causal and decode as the contract of token attentions
            has them; those that are None or False are not handed on.

    Raises:
        Invalid: a map attention where there is no grid, or that changes the map, or
            an option that the module does not take.
    """
    options = {k: v for k, v in options.items() if v is not None and v is not False}
    if contract(type(module)) == "token":
        return _attend_tokens(module, q, kv, grid, train, options)
    _check_map(module, grid, kv, options)
    batch, length, channels = q.shape
    prefix = length - grid[0] * grid[1]
    y = module(q[:, prefix:].reshape(batch, *grid, channels), train=train)
    if y.shape != (batch, *grid, channels):
        raise Invalid(
            f"an attention on tokens must keep their map {(*grid, channels)}, but"
            f" {type(module).__name__} made {y.shape[1:]} of it"
        )
    y = y.reshape(batch, -1, channels)
    return jnp.concatenate([q[:, :prefix].astype(y.dtype), y], axis=1)


def _attend_tokens(module, q, kv, grid, train, options) -> jax.Array:
    taken = inspect.signature(module.__call__).parameters
    for option in options:
        if option not in taken:
            raise Invalid(f"{type(module).__name__} does not take {option!r}")
    if grid is not None:
        prefix = (q if kv is None else kv).shape[1] - grid[0] * grid[1]
        grid = grid if prefix == getattr(module, "prefix", 0) else None
    sources = () if kv is None else (kv,)
    return module(q, *sources, grid=grid, train=train, **options)


def _check_map(module, grid, kv, options) -> None:
    name = type(module).__name__
    if grid is None:
        raise Invalid(
            f"{name} attends to maps, but these tokens lie on no grid: it takes a token"
            " attention"
        )
    if kv is not None or options:
        what = "keys and values" if kv is not None else next(iter(options))
        raise Invalid(f"{name} attends to maps and does not take {what}")
