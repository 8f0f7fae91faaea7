"""The base of models, and of the stages and blocks in them."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.layers.timm import Rules
from attn.models.scaling import Width


class Slotted(nn.Module, kw_only=True):
    """A model, stage or block: what attention modules in its slots are built from.

    Attributes:
        fill: what fills the slots, see `attn.models.slots`; `models.create` takes that
            of a model as `slots`.
        dtype: computation type; None takes the type of the inputs.
        param_dtype: type in which parameters are kept.
        axis_name: axis over which batch statistics synchronise in training.
    """

    fill: Mapping[str, Any] = FrozenDict()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def inherited(self, dtype: jnp.dtype | None = None) -> dict[str, Any]:
        """The types and the axis that submodules share.

        Args:
            dtype: computation type of the submodule; None takes that of this module.
        """
        return {
            "dtype": self.dtype if dtype is None else dtype,
            "param_dtype": self.param_dtype,
            "axis_name": self.axis_name,
        }

    def within(self, name: str, dtype: jnp.dtype | None = None) -> dict[str, Any]:
        """The fields of this class for the stage or block called `name` inside it."""
        fill = slots.narrow(self.fill, name)
        return {"fill": fill, "name": name, **self.inherited(dtype)}


class Model(Slotted, kw_only=True):
    """A network with named slots: `model(*inputs, train=train)` -> any arrays.

    What it returns, one array or a dict of them, is between the model and the task. A
    model declares, in class attributes:

        inputs      fields of a batch that its `__call__` takes, in this order; a
                    property where settings decide it
        streams     random streams that it may draw from, in training and evaluation;
                    there is always "sample", for what fills its slots
        places      its slots, in the order in which data meet them, each with the
                    number of scopes (stage, block) that may narrow it
        usual_fill  what fills slots for which a config has nothing
        held        parts, by name, whose parameters no optimizer changes
        presets     what its setting `size` may be: names of tuples whose fields are
                    settings too; a setting that is not None replaces the preset's
        timm        what makes timm's names of its paths, see `attn.interop`
        transformers    likewise the names of the package transformers
        released        likewise the names of the code that its authors published
        task_layers layers of its own that belong to a task: they start anew where the
                    weights that a training starts with have others

    and overrides `scopes` and `given` where it has any. Settings such as num_classes
    or vocab_size get the facts of the data set where the model has a field so called,
    and `masked` whether its images have padding.

    Attributes:
        fill, dtype, param_dtype, axis_name: see `Slotted`.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image",)
    streams: ClassVar[tuple[str, ...]] = ("dropout", "sample")
    places: ClassVar[Mapping[str, int]] = {}
    usual_fill: ClassVar[Mapping[str, Any]] = {}
    held: ClassVar[tuple[str, ...]] = ()
    presets: ClassVar[Mapping[str, Any]] = {}
    timm: ClassVar[Rules] = ()
    transformers: ClassVar[Rules] = ()
    released: ClassVar[Rules] = ()
    task_layers: ClassVar[tuple[str, ...]] = ("classifier",)

    def __post_init__(self):
        usual, own = slots.flatten(self.usual_fill), slots.flatten(self.fill)
        self.fill = slots.check(
            {**usual, **own},
            places=self.slot_places(),
            scopes=self.scopes(),
            given=self.given(),
        )
        super().__post_init__()

    @classmethod
    def slots(cls) -> list[str]:
        """The names of the slots, in the order in which data meet them."""
        return list(cls.places)

    def slot_places(self) -> Mapping[str, int]:
        """The `places`, of a model whose settings decide which slots it has."""
        return self.places

    def scopes(self) -> Mapping[str, Mapping]:
        """Stages and blocks that narrow slots: {"stage1": {"block0": {}}, ...}."""
        return {}

    def given(self) -> Mapping[str, Any]:
        """Settings for every attention module that has them, such as num_heads."""
        return {}

    def timm_rules(self) -> Rules:
        """The rules `timm`, of a model whose settings decide what timm calls things."""
        return self.timm

    def released_rules(self) -> Rules:
        """The rules `released`, of a model whose settings decide about names."""
        return self.released

    def width_settings(self) -> dict[str, Width]:
        """The settings that scale its width, see `attn.models.scaling`."""
        return {}

    def sized(self) -> Any:
        """The preset called `size`, with the settings that replace some of it.

        Raises:
            ValueError: no such preset, with the names of those that there are.
        """
        if self.size not in self.presets:
            kind = f"size of {type(self).__name__}"
            raise settings.unknown(kind, self.size, self.presets)
        preset = self.presets[self.size]
        own = {name: getattr(self, name) for name in preset._fields}
        return preset._replace(**{k: v for k, v in own.items() if v is not None})


def numbered(name: str, count: int) -> dict[str, dict]:
    """Scopes "block0", "block1", ...: {"block0": {}, "block1": {}, ...}."""
    return {f"{name}{index}": {} for index in range(count)}
