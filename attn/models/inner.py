"""A network inside of a model, by its config, and what a localisation network says."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from attn import settings
from attn.models import registry, slots
from attn.models.base import Slotted
from attn.models.layers.dense import hidden
from attn.settings import Invalid


def checked(setting: str, spec: Any, **given: Any) -> FrozenDict:
    """The config of a network, checked, in the form of fields of its class.

    Args:
        setting: of which it is the value, for errors.
        spec: such as {"name": "resnet", "depth": 18}, with "slots" if need be.
        **given: settings that the model gives it; the config has none of them.

    Raises:
        Invalid: no config, one with settings that are given, or of no network.
    """
    if not hasattr(spec, "items") or "name" not in spec:
        raise Invalid(
            f"{setting} must be the config of a model, such as"
            f' {{"name": "resnet", "depth": 18}}, got {spec!r}'
        )
    own = {key: slots.frozen(value) for key, value in spec.items() if key != "slots"}
    if "slots" in spec:
        own["fill"] = FrozenDict(slots.flatten(spec["slots"]))
    for key, value in given.items():
        # as it is when a model that was made is cloned
        if own.setdefault(key, value) != value:
            raise Invalid(f"{setting} has {key}={value} here, got {own[key]!r}")
    try:
        kind = registry.find(own["name"])
        fields = {key: value for key, value in own.items() if key != "name"}
        settings.check(kind, "model", own["name"], fields)
        # by itself, as a model may be made, or cloned, inside of another one
        kind(**fields, parent=None)
    except ValueError as error:
        raise Invalid(f"{setting}: {error}") from error
    return FrozenDict(own)


def without_classifier(setting: str, spec: Any) -> FrozenDict:
    """The config of a network whose output is its features, see `checked`."""
    if hasattr(spec, "items") and dict(spec.items()).get("num_classes") is not None:
        raise Invalid(f"{setting} is without classifier, but has num_classes")
    return checked(setting, spec, num_classes=None)


def build(parent: Slotted, name: str, spec: Mapping[str, Any]) -> nn.Module:
    """The network of a checked config, as a submodule with the types of `parent`."""
    own = {key: value for key, value in spec.items() if key != "name"}
    kind = registry.find(spec["name"])
    return kind(**{**parent.inherited(), **own}, name=name)


def localise(
    parent: Slotted,
    x: jax.Array,
    spec: Mapping[str, Any],
    *,
    widths: tuple[int, int],
    start: np.ndarray,
    train: bool,
) -> jax.Array:
    """What the image says about places: [B, H, W, C] -> [B, D], float32.

    The map of a network, not averaged, goes through a 1x1 convolution and a linear
    layer, with ReLU, to D numbers. At first they are those of `start`, whatever the
    image is. All variables have paths that begin with "localiser".

    Args:
        parent: the model, inside its compact `__call__`.
        x: the image.
        spec: checked config of the network.
        widths: of the 1x1 convolution and of the linear layer.
        start: [D].
        train: as in every module.
    """
    y = build(parent, "localiser", spec)(x, train=train)
    y = hidden(parent, "localiser_conv", y.astype(jnp.float32), widths[0])
    y = hidden(parent, "localiser_dense", y.reshape(len(y), -1), widths[1])
    return nn.Dense(
        len(start),
        kernel_init=nn.initializers.zeros,
        bias_init=lambda key, shape, dtype: jnp.asarray(start, dtype),
        precision=jax.lax.Precision.HIGHEST,  # it is a position, not a feature
        dtype=jnp.float32,
        param_dtype=parent.param_dtype,
        name="localiser_theta",
    )(y)
