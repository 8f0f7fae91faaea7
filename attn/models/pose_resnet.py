"""Simple baseline of pose estimation: a ResNet, and its map enlarged again, with slots.

Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018,
https://arxiv.org/abs/1804.06208, section 2 and figure 1(c).

As in the code that the authors published, transposed convolutions have padding 1 and no
bias, and they and the last convolution start as normals of deviation 0.001.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn.models import backbone as backbones
from attn.models import slots
from attn.models.base import Model, Slotted, numbered
from attn.models.layers.checks import check_sides
from attn.models.layers.convolution import Doubling, batch_norm
from attn.models.resnet import ResNet
from attn.models.scaling import Width, step_of
from attn.modules.convolution import Conv
from attn.settings import Positive

START = nn.initializers.normal(0.001)


class PoseResNet(Model):
    """Heatmaps of joints: images [B, H, W, C] -> [B, h, w, num_joints], float32.

    The last map of a ResNet, each `deconvolutions` twice as large as the one before, by
    a transposed convolution 4x4 of stride 2, batch normalisation and ReLU; then a 1x1
    convolution. A ResNet-50 of stride 32 and three of them make h = H / 4, w = W / 4.

    Slots, which keep the shape of their maps:

        backbone/...    those of `resnet`, such as "backbone/block.residual" and
                        "backbone/stage3/block0/block.residual"; the scope "backbone"
                        may be left out where nothing narrows the place
        upsample.end    after each transposed convolution, its BN and ReLU; may be
                        narrowed, "upsample0/upsample.end"

    Attributes:
        num_joints: number of heatmaps; a fact of the data.
        backbone: settings of `resnet`, such as {"depth": 101}; {"depth": 8, "layout":
            "cifar", "stem_stride": 2} is a small one of stride 8.
        deconvolutions: how many times the map is doubled.
        width: channels of the doubled maps.
        other attributes: see `Model`.

    Raises:
        Invalid: when it is made, a backbone that cannot be, or an unknown slot,
            attention or setting; when it is called, an image whose sides are no
            multiples of the stride of the backbone, so that the heatmaps would span
            more than the image.
    """

    streams: ClassVar = ("dropout",)
    places: ClassVar = {**backbones.PLACES, "upsample.end": 1}
    task_layers: ClassVar = ("heatmaps",)

    num_joints: Positive
    backbone: Mapping[str, Any] = backbones.RESNET
    deconvolutions: Positive = 3
    width: Positive = 256

    def __post_init__(self):
        self.backbone = backbones.checked(self.backbone, "pose_resnet")
        super().__post_init__()
        self._resnet(parent=None)
        for key in self.fill:
            backbones.check_scope(key)

    def scopes(self) -> dict[str, Any]:
        """The backbone with its stages, and the doubled maps, counting from 0."""
        doubled = numbered("upsample", self.deconvolutions)
        return {**backbones.scopes(self.backbone), **doubled}

    def width_settings(self) -> dict[str, Width]:
        """The channels of the doubled maps, and those of the backbone."""
        own = {k: v for k, v in self.fill.items() if not backbones.is_inside(k)}
        doubled = Width(self.width, step_of(own, self.given()))
        return {"width": doubled, **backbones.width_settings(self, self.backbone)}

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        dtype = self.dtype or image.dtype
        resnet = self._resnet(dtype, name="backbone")
        stride = resnet.stride()
        why = (
            f"the backbone of pose_resnet has stride {stride}, which must divide the"
            " sides of images"
        )
        check_sides(image.shape[1:3], stride, why)
        x = resnet(image, train=train)
        for index in range(self.deconvolutions):
            step = Upsample(self.width, **self.within(f"upsample{index}", dtype))
            x = step(x, train=train)
        return heatmaps(self, "heatmaps", x, self.num_joints)

    @nn.nowrap  # so that its attentions are looked at outside of any module
    def _resnet(self, dtype: jnp.dtype | None = None, **where: Any) -> ResNet:
        """The backbone; `where` has its name, or parent=None for one by itself."""
        return backbones.build(self, self.backbone, dtype, **where)


class Upsample(Slotted):
    """A map twice as high and wide: [B, H, W, C] -> [B, 2H, 2W, features].

    Attributes:
        features: channels of the output.
        other attributes: `fill` narrowed to this step.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = Doubling(self.features, kernel_init=START, name="conv", **kinds)(x)
        x = nn.relu(batch_norm(self, "norm", x, train=train))
        return slots.attend(self, "upsample.end", x, train=train)


def heatmaps(parent: nn.Module, name: str, x: jax.Array, joints: int) -> jax.Array:
    """The 1x1 convolution that makes heatmaps, float32: [..., C] -> [..., joints]."""
    kinds = {"dtype": jnp.float32, "param_dtype": parent.param_dtype}
    layer = Conv(joints, (1, 1), kernel_init=START, name=name, **kinds)
    return layer(x.astype(jnp.float32))
