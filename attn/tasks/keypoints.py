"""Keypoints: the pose of one person, as a heatmap for each joint.

The loss is that of Tompson et al., NeurIPS 2014, https://arxiv.org/abs/1406.2984, and
of Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018,
https://arxiv.org/abs/1804.06208; all stacks have it, as in Newell, Yang, Deng, "Stacked
Hourglass Networks for Human Pose Estimation", ECCV 2016,
https://arxiv.org/abs/1603.06937. The parallel branch is that of Fang, Xie, Tai, Lu,
"RMPE: Regional Multi-Person Pose Estimation", ICCV 2017,
https://arxiv.org/abs/1612.00137, section 3.2. `attn.ops.keypoints` has the mathematics.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from attn import ops, settings
from attn.data.images.geometry import SIDES
from attn.tasks.base import Batch, Mean, Metric, Task

HEATMAPS, STACKS, SEEN = "heatmaps", "stacks", "seen"  # outputs of a model
TRUTH = ("keypoints", "visible")
CENTRED = ("centred", "centred_visible")
OKS = Metric("oks", "OKS", better="higher", digits=3)
PARTS = ("heatmap_loss", "parallel_loss")
SHARPEST, MAPS = 1.0, 32  # of `sigma` if it is None


@dataclasses.dataclass(frozen=True)
class Keypoints(Task):
    """Squared differences of heatmaps; PCKh, and COCO's similarity of keypoints (OKS).

    For outputs [B, h, w, J] of a model that reads "image" [B, H, W, C], or "heatmaps"
    of this shape with, in training, those of all stacks, "stacks" [B, S, h, w, J], of
    which they are the last. The target of a joint is a Gaussian of height 1
    (`attn.ops.gaussian_heatmaps`), and the loss the mean squared difference over
    positions, and over the visible joints of the whole batch, added over the stacks.
    Evaluation is of "heatmaps" alone; joints that are not visible do not count.

    The data have "keypoints" [B, J, 2], (x, y) in pixels of the image, "visible"
    [B, J], the size of the "head" [B] and the "area" [B] of the person. Where heads are
    not measured there is no PCKh, and OKS comes first.

    A model with a spatial transformer may say what its pose network saw, "seen"
    [B, H', W', C]. With a trained pose network as `parallel`, its weights frozen, the
    loss in training is

        L(model(image), keypoints) + parallel_weight L(parallel(seen), centred)

    where the `centred` joints are where they would be if the box of the detector were
    right. So the transformer learns to
    put the person into the middle: gradients flow through the frozen network into what
    is seen. Nothing of it is left at test.

    Attributes:
        sigma: standard deviation of a target, in pixels of the maps. None is 1/32 of
            their height and at least 1: the 2 of Xiao et al. for their maps of 64x48.
        parallel: directory of a finished run, "WORKDIR/POINT", whose last checkpoint is
            the parallel network; None for no such branch. It becomes part of the
            compiled step. It must have been trained on images normalised alike.
        parallel_weight: of its loss.
        share: of the size of the head, up to which an error is none, of PCKh.
        joint_names, sigmas, heads: facts of the data; figures of left and right joints
            are one, the sigmas are those of OKS, and heads says whether heads are
            measured.
    """

    sigma: settings.PositiveFloat | None = None
    parallel: str | None = None
    parallel_weight: settings.PositiveFloat = 1.0
    share: settings.PositiveFloat = 0.5
    joint_names: tuple[str, ...] = ()
    sigmas: tuple[settings.PositiveFloat, ...] = ()
    heads: bool = True

    probes: ClassVar[tuple[str, ...]] = ("attention", "poses")
    _read: ClassVar[Callable[[jax.Array], jax.Array] | None] = None

    @property
    def fields(self) -> tuple[str, ...]:
        centred = CENTRED if self.parallel is not None else ()
        sizes = ("head", "area") if self.heads else ("area",)
        return ("image", *TRUTH, *sizes, *centred)

    @property
    def minimised(self) -> tuple[str, ...]:
        return ("loss",) if self.parallel is None else PARTS

    @property
    def metrics(self) -> tuple[Metric, ...]:
        if not self.heads:
            return (OKS,)
        label = f"PCKh@{self.share:g}"
        headline = Metric("pckh", label, unit="%", better="higher")
        kinds = (
            dataclasses.replace(headline, name=f"pckh_{kind}", label=f"PCKh {kind}")
            for kind in self._kinds
        )
        return (headline, OKS, *kinds)

    @property
    def _kinds(self) -> dict[str, list[int]]:
        """Which joints are of a kind, such as "elbow"."""
        kinds: dict[str, list[int]] = {}
        for joint, name in enumerate(self.joint_names):
            for side in SIDES:
                name = name.removeprefix(side)
            kinds.setdefault(name, []).append(joint)
        return kinds

    def attach(self, trained: Callable[[str], tuple[nn.Module, Any]]) -> "Keypoints":
        """The task with its parallel network, if it has one."""
        if self.parallel is None:
            return self
        try:
            model, variables = trained(self.parallel)
        except settings.Invalid as error:
            raise settings.Invalid(f"parallel: {error}") from error
        inputs = tuple(getattr(model, "inputs", ("image",)))
        if inputs != ("image",):
            raise settings.Invalid(
                f"parallel: the network of {self.parallel!r} must read 'image' alone,"
                f" got {', '.join(inputs)}"
            )

        def read(seen: jax.Array) -> jax.Array:
            # The variables are constants: only what is seen gets gradients.
            return _heatmaps(model.apply(variables, seen, train=False))

        beside = copy.copy(self)
        object.__setattr__(beside, "_read", read)  # a frozen dataclass
        return beside

    def check(self, outputs: Any, example: Batch, facts: Mapping[str, Any]) -> None:
        joints = example["keypoints"].shape[1]
        for name in ("joint_names", "sigmas"):
            if len(getattr(self, name)) != joints:
                raise settings.Invalid(
                    f"task 'keypoints' needs the fact {name!r} of a data set, one for"
                    f" each of its {joints} joints, got {len(getattr(self, name))}"
                )
        shape = tuple(getattr(_heatmaps(outputs), "shape", ()))
        if len(shape) != 4:
            raise settings.Invalid(
                "task 'keypoints' takes heatmaps [B, h, w, J] of a model, or an output"
                f" {HEATMAPS!r}, got {shape or _names(outputs)}"
            )
        if shape[-1] != joints:
            raise settings.Invalid(
                f"the model has heatmaps of {shape[-1]} joints, and the data set has"
                f" {joints}: it needs num_joints={joints}"
            )
        if self.parallel is not None:
            self._check_parallel(outputs, shape)

    def _check_parallel(self, outputs: Any, shape: tuple[int, ...]) -> None:
        """Refuses what the parallel network cannot read, and what it makes of it."""
        if not isinstance(outputs, Mapping) or SEEN not in outputs:
            raise settings.Invalid(
                f"parallel={self.parallel!r} needs a model with the output {SEEN!r},"
                " the image after a spatial transformer, as 'alpha_pose' has it, got"
                f" {_names(outputs)}"
            )
        try:
            maps = jax.eval_shape(self._read, outputs[SEEN])
        except (ValueError, TypeError, FlaxError) as error:  # such as other channels
            raise settings.Invalid(
                f"the parallel network cannot read images {outputs[SEEN].shape[1:]}:"
                f" {error}"
            ) from error
        found = tuple(getattr(maps, "shape", ()))
        if found != shape:
            raise settings.Invalid(
                f"the parallel network has heatmaps of shape {found}, the model {shape}"
            )

    def loss(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss", or its two parts where there is a parallel network, and PCKh."""
        stacks = _heatmaps(outputs)[:, None]
        if isinstance(outputs, Mapping):
            stacks = outputs.get(STACKS, stacks)
        own = self._distance(stacks, *(batch[name] for name in TRUTH), batch)
        found = {self.minimised[0]: own}
        if self.parallel is not None:
            maps = self._read(outputs[SEEN])[:, None]
            truth = (batch[name] for name in CENTRED)
            other = self._distance(maps, *truth, batch)
            found[PARTS[1]] = Mean(self.parallel_weight * other.total, other.weight)
        if self.heads:
            found["pckh"] = self._pckh(self._correct(outputs, batch), batch)
        return found

    def evaluate(self, outputs: Any, batch: Batch) -> dict[str, Mean]:
        """The "loss" of the heatmaps, OKS, and PCKh of all joints and of each kind."""
        stacks = _heatmaps(outputs)[:, None]
        visible = batch["visible"]
        similar, there = self._similar(outputs, batch), visible.any(axis=1)
        means = {
            "loss": self._distance(stacks, batch["keypoints"], visible, batch),
            OKS.name: Mean(similar, there.astype(jnp.float32)),
        }
        if not self.heads:
            return means
        correct = self._correct(outputs, batch)
        means["pckh"] = self._pckh(correct, batch)
        for kind, joints in self._kinds.items():
            means[f"pckh_{kind}"] = self._pckh(correct, batch, joints)
        return means

    def describe(
        self, outputs: Any, batch: Mapping[str, np.ndarray], facts: Mapping[str, Any]
    ) -> list[tuple[str, bool]]:
        """Captions "13 of 14 joints", of which all are visible; fewer are wrong.

        Where heads are not measured they are "OKS 0.71", and less than 0.5 is wrong.
        """
        if not self.heads:
            similar = np.asarray(self._similar(outputs, batch)).tolist()
            return [(f"OKS {value:.2f}", value < 0.5) for value in similar]
        correct = np.asarray(self._correct(outputs, batch))
        visible = np.asarray(batch["visible"])
        counts = zip((correct & visible).sum(1), visible.sum(1), strict=True)
        return [
            (f"{right} of {whole} joints", right < whole) for right, whole in counts
        ]

    def _distance(
        self, stacks: jax.Array, points: jax.Array, visible: jax.Array, batch: Batch
    ) -> Mean:
        """The squared difference from the targets of the visible joints, [B] each.

        Args:
            stacks: [B, S, h, w, J].
            points, visible: of the joints.
            batch: for the size of its images.
        """
        size = stacks.shape[2:4]
        sigma = self.sigma or max(SHARPEST, size[0] / MAPS)
        image = batch["image"].shape[1:3]
        target = ops.gaussian_heatmaps(points, size, image, sigma=sigma)
        apart = jnp.square(stacks.astype(jnp.float32) - target[:, None])
        apart = apart.mean(axis=(2, 3)).sum(axis=1)
        total = jnp.sum(jnp.where(visible, apart, 0.0), axis=1)
        return Mean(total, visible.sum(axis=1, dtype=jnp.float32))

    def _similar(self, outputs: Any, batch: Batch) -> jax.Array:
        """OKS of each example: [B]."""
        truth = (batch[name] for name in (*TRUTH, "area"))
        found = decoded(outputs, batch)
        return ops.keypoint_similarity(found, *truth, sigmas=self.sigmas)

    def _correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """Whether each joint is right by PCKh: bool [B, J]."""
        found = decoded(outputs, batch)
        truth = batch["keypoints"], batch["head"]
        return ops.correct_keypoints(found, *truth, share=self.share)

    def _pckh(
        self, correct: jax.Array, batch: Batch, joints: list[int] | None = None
    ) -> Mean:
        """The percentage of visible joints, or of some of them, that are right.

        Persons whose head has no size do not count.
        """
        visible = batch["visible"] & (batch["head"] > 0)[:, None]
        if joints is not None:
            correct, visible = (
                correct[:, np.array(joints)],
                visible[:, np.array(joints)],
            )
        count = visible.sum(axis=1, dtype=jnp.float32)
        right = (correct & visible).sum(axis=1, dtype=jnp.float32)
        return Mean(100 * right, count)


def decoded(outputs: Any, batch: Batch) -> jax.Array:
    """The joints that a model finds, (x, y) in pixels of the image: [B, J, 2]."""
    return _decode(_heatmaps(outputs), batch["image"].shape[1:3])[0]


_decode = jax.jit(ops.decode_heatmaps, static_argnums=1)  # of NumPy arrays, at once


def _heatmaps(outputs: Any) -> Any:
    """The heatmaps among the outputs of a model; None if there are none."""
    return outputs.get(HEATMAPS) if isinstance(outputs, Mapping) else outputs


def _names(outputs: Any) -> str:
    """What outputs there are, for errors."""
    if isinstance(outputs, Mapping):
        return ", ".join(map(repr, outputs))
    return f"an output {tuple(getattr(outputs, 'shape', ()))}"
