"""Position encodings by name, all with the interface of `base.Position`.

"Which position encoding?" is a sweep over these names: of `vit`'s setting
`position`, or of an attention that has one, such as `multi_head`.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from attn import settings as _settings
from attn.modules.position.alibi import Alibi, Alibi2d
from attn.modules.position.base import Position
from attn.modules.position.conditional import Conditional
from attn.modules.position.decomposed import Decomposed
from attn.modules.position.learned import Learned, Learned2d
from attn.modules.position.log_relative import LogRelative
from attn.modules.position.relative_bias import RelativeBias
from attn.modules.position.rotary import Rotary, Rotary2d
from attn.modules.position.sinusoidal import Sinusoidal, Sinusoidal2d

POSITIONS: dict[str, type[Position]] = {
    "alibi": Alibi,
    "alibi_2d": Alibi2d,
    "conditional": Conditional,
    "decomposed": Decomposed,
    "learned": Learned,
    "learned_2d": Learned2d,
    "log_relative": LogRelative,
    "none": Position,
    "relative_bias": RelativeBias,
    "rotary": Rotary,
    "rotary_2d": Rotary2d,
    "sinusoidal": Sinusoidal,
    "sinusoidal_2d": Sinusoidal2d,
}


def find(name: str) -> type[Position]:
    """The class called `name`, or at "package.file:Class"; ValueError without one."""
    return _settings.choose(POSITIONS, "position encoding", name)


def create(name: str, **settings: Any) -> Position:
    """Builds the encoding called `name` with some of its settings.

    Raises:
        Invalid: unknown name or setting, or a setting of the wrong type; the
            message names the valid ones.
    """
    return _settings.build(find(name), "position encoding", name, settings)


def check(spec: str | Mapping[str, Any] | None) -> FrozenDict:
    """What a config says of an encoding, as {"name": ..., settings}, checked.

    Args:
        spec: a name, a mapping with "name" and settings, or None for "none".

    Raises:
        Invalid: as `create`, or neither of these.
    """
    if spec is None or isinstance(spec, str):
        spec = {"name": spec or "none"}
    if not hasattr(spec, "items") or "name" not in spec:  # a ConfigDict is no Mapping
        raise _settings.Invalid(
            f"a position encoding is a name, or a mapping with 'name' and settings,"
            f" got {spec!r}"
        )
    # Lists, as JSON has them, would make a module unhashable.
    items = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
    kind, name = "position encoding", items["name"]
    own = {key: value for key, value in items.items() if key != "name"}
    # Checked, not made: in a compact call it would be made a submodule.
    _settings.check(find(name), kind, name, own)
    return FrozenDict(items)


def build(spec: Mapping[str, Any], **given: Any) -> Position:
    """Makes the encoding that a checked `spec` tells, such as inside a module.

    Args:
        spec: what `check` returned.
        **given: settings such as `prefix` and `param_dtype`, which those of `spec`
            override, and the name of the submodule as `called`.
    """
    own = {key: value for key, value in spec.items() if key != "name"}
    name = given.pop("called", None)
    return find(spec["name"])(**{**given, **own}, name=name)


__all__ = ["POSITIONS", "Learned", "Position", "build", "check", "create", "find"]
