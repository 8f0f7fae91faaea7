"""The table of models, and the functions by which configs ask for them."""

import dataclasses
from typing import Any

from attn import settings as _settings
from attn.models.base import Model
from attn.models.slots import flatten

# Imported when they are asked for, so that models may be made of models.
MODELS: dict[str, str] = {
    "alpha_pose": "attn.models.alpha_pose:AlphaPose",
    "bert": "attn.models.bert:BERT",
    "cait": "attn.models.cait:CaiT",
    "captioner": "attn.models.captioner:Captioner",
    "cnn": "attn.models.cnn:CNN",
    "deit": "attn.models.deit:DeiT",
    "detr": "attn.models.detr:DETR",
    "edsr": "attn.models.edsr:EDSR",
    "ffa": "attn.models.ffa:FFA",
    "hourglass": "attn.models.hourglass:Hourglass",
    "mlp": "attn.models.mlp:MLP",
    "pan": "attn.models.pan:PAN",
    "part_stn": "attn.models.part_stn:PartSTN",
    "pose_resnet": "attn.models.pose_resnet:PoseResNet",
    "recurrent_attention": "attn.models.recurrent_attention:RecurrentAttention",
    "resnet": "attn.models.resnet:ResNet",
    "san": "attn.models.san:SAN",
    "swin": "attn.models.swin:Swin",
    "transformer": "attn.models.transformer:Transformer",
    "vgg": "attn.models.vgg:VGG",
    "vit": "attn.models.vit:ViT",
    "xcit": "attn.models.xcit:XCiT",
}


def names() -> list[str]:
    """The names of all models, sorted."""
    return list(MODELS)


def find(name: str) -> type[Model]:
    """The class called `name`, or at "package.file:Class".

    Raises:
        Invalid: unknown name, with the nearest valid one, or no such class.
    """
    path = MODELS.get(name, name) if isinstance(name, str) else name
    return _settings.choose(MODELS, "model", path)


def create(name: str, *, slots: Any = None, **settings: Any) -> Model:
    """Builds the model called `name` with attention modules in its slots.

    Args:
        name: see `find`.
        slots: what fills the slots, see `attn.models.slots`; None leaves them as the
            model has them.
        **settings: of the model, such as num_classes, depth, dtype and axis_name.

    Returns:
        A module `model(*inputs, train=train)`, see `attn.models.base.Model`. Those of
        MODELS take images [B, H, W, C] and return logits, float32 [B, num_classes],
        unless they are of text, or their docstring or a setting of theirs says
        otherwise.

    Raises:
        Invalid: an unknown name, setting, slot or attention module, or a
            setting of the wrong type or size; the message names the valid ones.
    """
    found = find(name)
    has_slots = any(field.name == "fill" for field in dataclasses.fields(found))
    if slots is not None and not has_slots:
        if slots:
            raise _settings.Invalid(
                f"model {name!r} has no slots, got {', '.join(slots)}; a model derived"
                " from attn.models.base.Model has some"
            )
    elif slots is not None:
        settings["fill"] = flatten(slots)
    return _settings.build(found, "model", name, settings)
