"""The models: networks with named slots that attention modules fill.

    models.create("resnet", depth=50, num_classes=1000,
                  slots={"block.residual": "squeeze_excite"})

`attn.models.slots` has how slots are filled; `find(name).slots()` lists those of a
model. To add a model: write `attn/models/<name>.py` with a subclass of `Model` and add
a line to `registry.MODELS`. A model of another package needs no line:
`create("package.file:Class")`.
"""

from attn.models.base import Model
from attn.models.registry import MODELS, create, find, names

__all__ = ["MODELS", "Model", "create", "find", "names"]
