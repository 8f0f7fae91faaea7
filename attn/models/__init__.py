"""The hosts: networks with named slots that attentions fill.

models.create("resnet", depth=50, num_classes=1000,
              slots={"block.residual": "squeeze_excite"})

`attn.models.slots` tells how slots are filled; `find(name).slots()` lists those of a
host. To add a host: write `attn/models/<name>.py` with a module that has a field
`fill` and a classmethod `slots()`, and add a line to MODELS.
"""

from typing import Any

import flax.linen as nn

from attn import settings as _settings
from attn.models.cait import CaiT
from attn.models.cnn import CNN
from attn.models.deit import DeiT
from attn.models.mlp import FCN
from attn.models.part_stn import Parts
from attn.models.resnet import ResNet
from attn.models.swin import Swin
from attn.models.vit import ViT
from attn.models.xcit import XCiT

MODELS: dict[str, type[nn.Module]] = {
    "cait": CaiT,
    "cnn": CNN,
    "deit": DeiT,
    "fcn": FCN,
    "parts": Parts,
    "resnet": ResNet,
    "swin": Swin,
    "vit": ViT,
    "xcit": XCiT,
}


def names() -> list[str]:
    """The names of all hosts, sorted."""
    return list(MODELS)


def find(name: str) -> type[nn.Module]:
    """The class called `name`, or at "package.file:Class".

    Raises:
        Invalid: unknown name, with the nearest valid one, or no such class.
    """
    return _settings.choose(MODELS, "model", name)


def create(name: str, *, slots: Any = None, **settings: Any) -> nn.Module:
    """Builds the host called `name` with attentions in its slots.

    Args:
        name: see `find`.
        slots: what fills the slots, see `attn.models.slots`; None leaves them as the
            host has them.
        **settings: of the host, such as num_classes, depth, dtype and axis_name.

    Returns:
        A module that maps images to logits: `host(x [B, H, W, C], *, train)`, float32
        [B, num_classes], unless a setting of the host says otherwise.

    Raises:
        Invalid: an unknown name, setting, slot or attention, or a setting of the
            wrong type or size; the message names the valid ones.
    """
    if slots is not None:
        settings["fill"] = slots
    return _settings.build(find(name), "model", name, settings)


__all__ = [
    "CNN",
    "FCN",
    "MODELS",
    "CaiT",
    "DeiT",
    "Parts",
    "ResNet",
    "Swin",
    "ViT",
    "XCiT",
    "create",
    "find",
    "names",
]
