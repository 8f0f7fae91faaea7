"""The mechanisms, and the names by which configs ask for them.

To add one: write `attn/modules/<family>/<name>.py` with a class that carries a
`card`, add a line to MODULES here and a line to CASES in
`tests/modules/cases.py`. A mechanism of another package needs neither:
`create("package.file:Class")`.

All of them work under JAX's transformations. Three need a word:

- `nn.remat` traces keyword arguments, and `train` is one. Inside of a model:
  `nn.remat(lambda module, x: module(x, train=train))(module, x)`.
- Forward differentiation (`jax.jvp`, `jax.hessian`) needs `attn.ops.plain()` around it.
- `jax.export` takes a symbolic number of examples, but no other symbolic axis.
"""

from typing import Any

import flax.linen as nn

from attn import settings as _settings
from attn.modules.branch.selective_kernel import SelectiveKernel
from attn.modules.capture import Map, capture, sow
from attn.modules.card import Card, Paper
from attn.modules.channel.efficient_channel import EfficientChannel
from attn.modules.channel.squeeze_excite import SqueezeExcite
from attn.modules.glimpse.additive_soft import AdditiveSoft
from attn.modules.glimpse.gated_soft import GatedSoft
from attn.modules.glimpse.glimpse_sensor import GlimpseSensor
from attn.modules.glimpse.hard_attention import HardAttention
from attn.modules.mixed.cbam import CBAM
from attn.modules.non_local.global_context import GlobalContext
from attn.modules.non_local.non_local import NonLocal
from attn.modules.order.global_second_order import GlobalSecondOrder
from attn.modules.order.mixed_high_order import MixedHighOrder
from attn.modules.order.second_order_channel import SecondOrderChannel
from attn.modules.order.second_order_non_local import SecondOrderNonLocal
from attn.modules.pixel.outlook import Outlook
from attn.modules.pixel.pixel_attention import PixelAttention
from attn.modules.pixel.polarized import Polarized
from attn.modules.pixel.simam import SimAM
from attn.modules.spatial.spatial_transformer import SpatialTransformer
from attn.modules.token.class_attention import ClassAttention
from attn.modules.token.cross_attention import CrossAttention
from attn.modules.token.cross_covariance import CrossCovariance
from attn.modules.token.linear import LinearAttention
from attn.modules.token.linformer import Linformer
from attn.modules.token.multi_head import MultiHead
from attn.modules.token.neighborhood import Neighborhood
from attn.modules.token.performer import Performer
from attn.modules.token.shifted_window import ShiftedWindow
from attn.modules.token.talking_heads import TalkingHeads
from attn.modules.token.window import Window

MODULES: dict[str, type[nn.Module]] = {
    "additive_soft": AdditiveSoft,
    "cbam": CBAM,
    "class_attention": ClassAttention,
    "cross_attention": CrossAttention,
    "cross_covariance": CrossCovariance,
    "efficient_channel": EfficientChannel,
    "gated_soft": GatedSoft,
    "glimpse_sensor": GlimpseSensor,
    "global_context": GlobalContext,
    "global_second_order": GlobalSecondOrder,
    "hard_attention": HardAttention,
    "linear": LinearAttention,
    "linformer": Linformer,
    "mixed_high_order": MixedHighOrder,
    "multi_head": MultiHead,
    "neighborhood": Neighborhood,
    "non_local": NonLocal,
    "outlook": Outlook,
    "performer": Performer,
    "pixel_attention": PixelAttention,
    "polarized": Polarized,
    "second_order_channel": SecondOrderChannel,
    "second_order_non_local": SecondOrderNonLocal,
    "selective_kernel": SelectiveKernel,
    "shifted_window": ShiftedWindow,
    "simam": SimAM,
    "spatial_transformer": SpatialTransformer,
    "squeeze_excite": SqueezeExcite,
    "talking_heads": TalkingHeads,
    "window": Window,
}


def names(family: str | None = None, contract: str | None = None) -> list[str]:
    """The names of all mechanisms, of one family or of one contract, sorted."""
    return [
        name
        for name, module in MODULES.items()
        if family in (None, module.card.family)
        and contract in (None, module.card.contract)
    ]


def find(name: str) -> type[nn.Module]:
    """The class called `name`, or at "package.file:Class".

    Raises:
        Invalid: unknown name, with the nearest valid one, or no such class.
    """
    return _settings.choose(MODULES, "attention", name)


def card(name: str) -> Card:
    """The card of the mechanism called `name`.

    Raises:
        Invalid: as `find` says, or it has none, as one of another package may.
    """
    module = find(name)
    if not hasattr(module, "card"):
        raise _settings.Invalid(f"attention {name!r} has no card")
    return module.card


def create(name: str, **settings: Any) -> nn.Module:
    """Builds the mechanism called `name` with some of its settings.

    Raises:
        Invalid: unknown name or setting, or a setting of the wrong type; the
            message names the valid ones.
    """
    return _settings.build(find(name), "attention", name, settings)


__all__ = [
    "MODULES",
    "Card",
    "Map",
    "Paper",
    "capture",
    "card",
    "create",
    "find",
    "names",
    "sow",
]
