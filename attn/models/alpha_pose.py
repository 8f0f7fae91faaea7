"""Pose of one person in the box of a detector that errs: RMPE's symmetric transformer.

Fang, Xie, Tai, Lu, "RMPE: Regional Multi-Person Pose Estimation", ICCV 2017,
https://arxiv.org/abs/1612.00137, section 3.2 and equations 1 to 4 (AlphaPose).

The paper leaves open what -1 and 1 are: here the outer edges of a map, so that theta is
the same region of the image and of heatmaps of any size; and what lies outside: here
zeros. Nor does it say how six numbers are made of the map of the localisation network,
its ResNet-18: here as in `part_stn`, by layers to which the places of the map matter.

Its parallel branch is no part of the network: it compares poses of what was `seen`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from attn.models import inner, slots
from attn.models.base import Model
from attn.models.layers.convolution import average
from attn.modules.capture import sow
from attn.ops.affine import invert_affine
from attn.ops.grid import affine_grid
from attn.ops.sample import bilinear_sample
from attn.settings import Positive

RESNET = FrozenDict({"name": "resnet", "depth": 18})
POSE = FrozenDict({"name": "pose_resnet"})
IDENTITY = np.array([1.0, 0, 0, 0, 1, 0])


class Transform(nn.Module):
    """A map read by an affine theta: x [B, H, W, C], theta [B, 2, 3] -> [B, H, W, C].

    Zeros outside, places in float32.
    """

    @nn.compact
    def __call__(self, x: jax.Array, theta: jax.Array) -> jax.Array:
        grid = affine_grid(theta, x.shape[1:3], align_corners=False)
        sow(self, "sampling_grid", grid)
        return bilinear_sample(x, grid, align_corners=False, padding="zeros")


class AlphaPose(Model):
    """Pose in a box that may be wrong: images [B, H, W, C] -> a dict of arrays.

        heatmaps  float32 [B, h, w, num_joints], in the frame of the image
        stacks    float32 [B, S, h, w, num_joints], the same of every stack of an
                  hourglass, in training
        seen      [B, H, W, C], what the pose network saw
        theta     float32 [B, 2, 3]: (x, y) in it is theta (x, y, 1) in the image

    A localisation network says theta, an affine map, at first the identity. The image
    is read there (SSTN), a network of the pose of one person makes heatmaps of it, and
    they are read by the inverse map (SDTN). Without transformer it is `pose` by itself.

    The variables of the localisation network have paths that begin with "localiser".
    Weights to start with must be of as many joints: the layers of the pose network that
    belong to them lie within it and cannot start anew by themselves.

    Slots:

        input    the image, before everything; the networks have slots in their configs

    Attributes:
        num_joints: number of heatmaps; a fact of the data.
        pose: the config of the pose network, {"name": "pose_resnet", ...} or {"name":
            "hourglass", ...}, with "slots" if need be.
        localiser: the same for the localisation network, such as {"name": "resnet",
            "depth": 18}; a model that takes num_classes=None. Its map is not averaged.
        downsample: by which the image is shrunk for the localisation network.
        widths: of a 1x1 convolution and a linear layer between that map and theta.
        other attributes: see `Model`; theta and places are float32.

    Raises:
        Invalid: when it is made, a pose network or localiser that cannot be, or a slot,
            attention or setting that does not exist.
    """

    places: ClassVar = {"input": 0}
    streams: ClassVar = ("dropout",)
    task_layers: ClassVar = ()

    num_joints: Positive
    pose: Mapping[str, Any] = POSE
    localiser: Mapping[str, Any] = RESNET
    downsample: Positive = 1
    widths: tuple[Positive, Positive] = (128, 128)

    def __post_init__(self):
        self.widths = tuple(self.widths)
        self.pose = inner.checked("pose", self.pose, num_joints=self.num_joints)
        self.localiser = inner.without_classifier("localiser", self.localiser)
        super().__post_init__()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        image = image.astype(self.dtype or image.dtype)
        image = slots.attend(self, "input", image, train=train)
        small = average(image, self.downsample)
        options = {"widths": self.widths, "start": IDENTITY, "train": train}
        theta = inner.localise(self, small, self.localiser, **options)
        theta = theta.reshape(-1, 2, 3)
        seen = Transform(name="sstn")(image, theta)
        found = inner.build(self, "pose", self.pose)(seen, train=train)
        found = found if isinstance(found, Mapping) else {"heatmaps": found}
        back = self._back(found, theta)
        return {**back, "seen": seen, "theta": theta}

    def _back(
        self, found: Mapping[str, jax.Array], theta: jax.Array
    ) -> dict[str, jax.Array]:
        """The heatmaps, and the stacks if there are any, in the frame of the image."""
        restore = Transform(name="sdtn")
        inverse = invert_affine(theta)
        if "stacks" not in found:
            return {"heatmaps": restore(found["heatmaps"], inverse)}
        batch, stacks, height, width, joints = found["stacks"].shape
        maps = jnp.moveaxis(found["stacks"], 1, 3)
        maps = restore(maps.reshape(batch, height, width, stacks * joints), inverse)
        maps = maps.reshape(batch, height, width, stacks, joints)
        maps = jnp.moveaxis(maps, 3, 1)
        return {"heatmaps": maps[:, -1], "stacks": maps}
