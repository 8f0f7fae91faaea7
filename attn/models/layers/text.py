"""What models of text share: places of tokens, and checks of what text cannot have."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn import modules
from attn.models import slots
from attn.modules import position as positions
from attn.settings import Invalid

CACHE = "cache"
# What an attention that lacks an option cannot do.
LACKS = {
    "kv_mask": "cannot leave out padding",
    "causal": "cannot be causal",
    "cross": "cannot attend to other tokens than its own",
    "decode": "cannot go on word by word",
}


class Placed(nn.Module):
    """Tokens of text, x [B, T, C] -> [B, T, C], with a position encoding added.

    While it decodes it counts the tokens of earlier calls, in the collection "cache".
    Encodings that act inside attentions leave the tokens as they are.

    Attributes:
        position: the encoding, as `attn.modules.position.check` returns it.
        max_length: for those with a vector for each place; None takes the length
            given to `init`.
        param_dtype: type in which parameters are kept.
    """

    position: Mapping[str, Any]
    max_length: int | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, decode: bool = False) -> jax.Array:
        encoding = self._encoding()
        if "tokens" not in encoding.acts:
            return x
        return encoding.at(*self._place(x, decode)).tokens(x, None)

    def _encoding(self) -> positions.Position:
        kind = positions.find(self.position["name"])
        given = {"max_length": self.max_length, "param_dtype": self.param_dtype}
        known = {field.name for field in dataclasses.fields(kind)}
        given = {name: value for name, value in given.items() if name in known}
        encoding = positions.build(self.position, called="encoding", **given)
        nn.share_scope(self, encoding)  # its parameters are put no level deeper
        return encoding

    def _place(self, x: jax.Array, decode: bool) -> tuple[jax.Array | None, int | None]:
        """The place of the first token and the number of places, while it decodes."""
        if not decode:
            return None, None
        filled = self.variable(CACHE, "cached_places", jnp.zeros, x.shape[:2], bool)
        if self.is_initializing():
            return None, None
        start, length = jnp.sum(filled.value[0]), filled.value.shape[1]
        places = jnp.arange(length) < start + x.shape[1]
        filled.value = jnp.broadcast_to(places, filled.value.shape)
        return start, length


def divided(spec: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    """Where a position encoding acts.

    Args:
        spec: the encoding, as `attn.modules.position.check` returns it.

    Returns:
        What must divide the width, where it adds to the tokens of a model, else 1; and
        the encoding of its mixers, "none" where it does.
    """
    encoding = positions.find(spec["name"])
    if "tokens" in encoding.acts:
        return encoding.divisor, positions.check("none")
    return 1, spec


def word_logits(words: nn.Embed, x: jax.Array) -> jax.Array:
    """Products with the embedding of each word, [B, T, C] -> [B, T, V] in float32."""
    table = words.embedding.astype(x.dtype)
    return jnp.einsum("btc,vc->btv", x, table, preferred_element_type=jnp.float32)


def check_position(spec: Mapping[str, Any], *, causal: bool = False) -> None:
    """Refuses a position encoding that text cannot have.

    Args:
        spec: the encoding, as `attn.modules.position.check` returns it.
        causal: whether tokens must not be told of later ones.

    Raises:
        Invalid: it needs a grid, or cannot be causal; with the names of those that
            fit.
    """
    name, encoding = spec["name"], positions.find(spec["name"])
    fits = lambda kind: not kind.of_grid and (kind.causal or not causal)
    if fits(encoding):
        return
    reason = "tells tokens of later ones, so that it cannot be causal"
    if encoding.of_grid:
        reason = "needs a grid, and text has none"
    valid = [name for name, kind in positions.POSITIONS.items() if fits(kind)]
    raise Invalid(f"position {name!r} {reason} (valid: {', '.join(valid)})")


def check_slots(fill: slots.Filling, needs: Mapping[str, Iterable[str]]) -> None:
    """Refuses attention modules that text cannot have in its slots.

    Args:
        fill: a checked filling.
        needs: what the attention at each place must support, of "kv_mask", "causal",
            "cross" and "decode".

    Raises:
        Invalid: one that attends to maps, needs a grid, has a position encoding that
            does, or lacks what its place needs; with the names of those that fit.
    """
    for key, specs in fill.items():
        wanted = tuple(needs[key.rpartition("/")[2]])
        for spec in specs:
            reason = _unfit(modules.find(spec["name"]), wanted)
            if reason:
                found = (
                    name for name in modules.names() if not _unfit_named(name, wanted)
                )
                raise Invalid(
                    f"slot {key!r}: {spec['name']} {reason} (valid: {', '.join(found)})"
                )
            if "position" in spec:
                position = positions.check(spec["position"])
                check_position(position, causal="causal" in wanted)


def check_reach(
    fills: Iterable[slots.Filling], place: str, position: Mapping[str, Any]
) -> None:
    """Refuses a position encoding inside attentions of which none takes one.

    Args:
        fills: the filling of each layer.
        place: the slot of self-attention in them.
        position: the encoding, as `attn.modules.position.check` returns it.
    """
    acts = positions.find(position["name"]).acts
    if not acts or "tokens" in acts:
        return
    mixers = [module for fill in fills for module in slots.filled(fill, place)]
    if not any("position" in mixer.__dataclass_fields__ for mixer in mixers):
        raise Invalid(
            f"position {position['name']!r} acts inside an attention, but no attention"
            f" in the slot {place!r} has a setting 'position', as 'multi_head' has"
        )


def _unfit_named(name: str, wanted: tuple[str, ...]) -> str:
    return _unfit(modules.find(name), wanted)


def _unfit(module: type[nn.Module], wanted: tuple[str, ...]) -> str:
    """Why a module cannot be at a place of text, or "" where it can."""
    if slots.contract(module) == "map":
        return "attends to maps, and text is none"
    supports = slots.supports(module)
    if "grid" in supports:
        return "needs a grid, and text has none"
    return next((LACKS[option] for option in wanted if option not in supports), "")
