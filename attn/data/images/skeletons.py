"""skeletons: stick figures with known joints, seen in the boxes of a detector.

A synthetic set for the pose of one person. A figure of random pose stands on a texture
in dim colours (`attn.data.textures`) with `clutter`, bars that look like limbs, behind
it. What is given is the crop of its box, as a detector that errs has it
(`attn.data.images.boxed`).

The figure, its colours and its background are those of the row, in every run; how the
box errs is drawn anew each time that a row comes in training, and once in evaluation.

Figures face the viewer: what is right of them is left in the image, mostly. The joints
are those of CrowdPose (Li et al., https://arxiv.org/abs/1812.00324), with its sigmas,
which are COCO's.
"""

import dataclasses
import functools
import math

import numpy as np

from attn import settings
from attn.data import order, splits, textures
from attn.data.draws import named, uniform
from attn.data.images import boxed, normalise
from attn.data.source import Batch, Source

NAME = "skeletons"
SEED = 0  # of the figures, the same in every run
ARM = ("shoulder", "elbow", "wrist")
LEG = ("hip", "knee", "ankle")
JOINTS = (
    *("head", "neck"),
    *(f"{side}_{joint}" for side in ("right", "left") for joint in ARM + LEG),
)
SIGMAS = (0.079, 0.079, *(0.079, 0.072, 0.062, 0.107, 0.087, 0.089) * 2)
# Limbs as pairs of joints; those behind come first.
LIMBS = (
    *((1, 2), (1, 8), (2, 5), (8, 11), (5, 11)),
    *((5, 6), (6, 7), (11, 12), (12, 13)),
    *((2, 3), (3, 4), (8, 9), (9, 10)),
)
# Lengths over the height of a figure that stands upright, about.
HEAD, TORSO, SHOULDER, HIP = 0.18, 0.3, 0.11, 0.07  # the last two to each side
BONES = (0.17, 0.15, 0.23, 0.22)  # upper arm, forearm, thigh, shin
DISC, THICK = 0.4, 0.022  # radius of the head over HEAD, and of a limb
CANVAS = 2.0  # side of the texture, in the middle of which the hip is
BAR = (0.12, 0.3)  # length of clutter
HEAD_SIZE = 0.6  # over the diagonal of the head's box, as MPII measures it
# Radians, but the turn, which narrows shoulders and hips: trunk, head, turn; then of
# each side upper arm (0 hangs), forearm to it, thigh, shin to it, outwards.
TRUNK = ((-0.4, 0.4), (-0.35, 0.35), (0.5, 1.0))
SIDE = ((-0.3, 2.6), (-0.4, 1.8), (-0.2, 0.7), (-0.7, 0.1))
RANGES = np.array([*TRUNK, *SIDE, *SIDE])


@dataclasses.dataclass(frozen=True)
class Skeletons:
    """skeletons: one stick figure in the box of a detector, and where its joints are.

    A batch holds, for B examples of J = 14 joints, (0, 0) being the upper left corner
    of the image and 1 the side of a pixel:

        image      float32 [B, H, W, 3] in 0..255
        keypoints  float32 [B, J, 2], (x, y) of the joints, also of those outside
        visible    bool [B, J], whether a joint is inside of the image
        head       float32 [B], the size of the head, for PCKh
        area       float32 [B], of the person, for OKS
        centred    float32 [B, J, 2], where the joints would be if the detector were
                   right: in the crop with the same margin, but with shift and scale 0
        centred_visible  bool [B, J], whether a joint would be inside of that crop

    Facts: num_joints, joint_names, limbs, sigmas. Splits "train", "validation" and
    "test", which have no figure in common.

    Attributes:
        size: H and W of the crop.
        margin: by what share of its sides the tight box is enlarged.
        shift: by what share of its sides the box is moved at most, each way.
        scale: by what share it is too large at most, or too small. With margin, shift
            and scale 0 the crop is the tight box.
        clutter: bars behind the figure.
        train_size: examples of "train".
        eval_size: examples of "validation" and of "test".
    """

    size: tuple[settings.Positive, settings.Positive] = (64, 48)
    margin: settings.NotNegative = 0.2
    shift: settings.NotNegative = 0.1
    scale: settings.NotNegative = 0.2
    clutter: settings.Count = 4
    train_size: settings.Positive = 8_000
    eval_size: settings.Positive = 1_000

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        sizes = dict.fromkeys(order.PURPOSES, self.eval_size)
        sizes["train"] = self.train_size
        name, part = splits.part(split, sizes, NAME)
        count = {
            "pose": len(RANGES),
            "colour": 2 * (1 + self.clutter),
            "bars": 4 * self.clutter,
            "cloud": textures.DRAWS,
        }
        purpose, total = order.PURPOSES[name], sum(count.values())
        drawn = order.uniform(SEED, purpose, part.start, len(part), total, NAME)

        def read(rows: np.ndarray, draws: np.ndarray) -> Batch:
            return self._read(named(drawn[rows], count), draws)

        facts = {
            "num_joints": len(JOINTS),
            "joint_names": JOINTS,
            "limbs": LIMBS,
            "sigmas": SIGMAS,
        }
        statistics = normalise.statistics(NAME, 3)
        return Source(len(part), read, facts, draws=boxed.DRAWS, statistics=statistics)

    def _read(self, drawn: dict[str, np.ndarray], draws: np.ndarray) -> Batch:
        joints = posed(drawn["pose"])
        low, high = frames(joints)
        crops = functools.partial(boxed.crops, low, high, self.size)
        crop = crops(
            margin=self.margin, shift=self.shift, scale=self.scale, draws=draws
        )
        right = crops(margin=self.margin)
        keypoints, centred = crop.places(joints), right.places(joints)
        head = HEAD_SIZE * math.sqrt(8) * DISC * HEAD / crop.pixel
        area = boxed.PERSON * np.prod(high - low, axis=-1) / crop.pixel**2
        return {
            "image": self._image(drawn, joints, crop),
            "keypoints": keypoints.astype(np.float32),
            "visible": crop.inside(keypoints),
            "head": head.astype(np.float32),
            "area": area.astype(np.float32),
            "centred": centred.astype(np.float32),
            "centred_visible": right.inside(centred),
        }

    def _image(
        self,
        drawn: dict[str, np.ndarray],
        joints: np.ndarray,
        crop: boxed.Crops,
    ) -> np.ndarray:
        """The crops, float32 [B, H, W, 3]: all is drawn in their pixels at once."""
        corner, pixel, (height, width) = crop
        at = [
            (corner[:, axis, None] + pixel[:, None] * (np.arange(n) + 0.5)) / CANVAS
            for axis, n in ((1, height), (0, width))
        ]
        rows, columns = (textures.weights(np.clip(a + 0.5, 0, 1))[:, None] for a in at)
        planes = textures.cloud(drawn["cloud"], rows, columns)
        colours = textures.bright(*np.split(drawn["colour"], 2, axis=1))
        bars = _bars(drawn["bars"].reshape(len(joints), self.clutter, 4))
        limbs = joints[:, np.array(LIMBS)]
        head, radius = _head(joints)
        parts = np.concatenate([bars, limbs, head[:, None, None].repeat(2, 2)], axis=1)
        parts = (parts - corner[:, None, None]) / pixel[:, None, None, None]
        for k in range(parts.shape[1]):
            thick = radius if k == parts.shape[1] - 1 else THICK
            colour = colours[:, 1 + k if k < self.clutter else 0]
            _draw(planes, parts[:, k], thick / pixel, colour)
        return np.ascontiguousarray(np.moveaxis(planes, 1, -1))


def posed(draws: np.ndarray) -> np.ndarray:
    """Joints (x, y) of figures, y down, the middle of the hips being (0, 0).

    Args:
        draws: [B, len(RANGES)].

    Returns:
        [B, 14, 2], in heights of a figure.
    """
    lean, nod, turn, *sides = uniform(draws, *RANGES.T).T
    across = np.stack([np.cos(lean), np.sin(lean)], axis=-1) * turn[:, None]
    neck = TORSO * _down(math.pi - lean)
    joints = [neck + HEAD * _down(math.pi - lean - nod), neck]
    for side, bends in ((-1, sides[:4]), (1, sides[4:])):
        for root, reach, (first, second), bones in (
            (0.95 * neck, SHOULDER, bends[:2], BONES[:2]),
            (0 * neck, HIP, bends[2:], BONES[2:]),
        ):
            start = root + side * reach * across
            middle = start + bones[0] * _down(side * first)
            end = middle + bones[1] * _down(side * (first + second))
            joints += [start, middle, end]
    return np.stack(joints, axis=1)


def frames(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the tight boxes of figures: [B, 14, 2] -> twice [B, 2]."""
    head, radius = _head(joints)
    points = np.concatenate([joints[:, 1:], head[:, None]], axis=1)
    around = np.full((points.shape[1], 1), THICK)
    around[-1] = radius
    return (points - around).min(axis=1), (points + around).max(axis=1)


def _head(joints: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle [B, 2] of the disc that is the head, which ends at its joint; its radius.

    The joint "head" is the top of the head.
    """
    return joints[:, 0] + DISC * (joints[:, 1] - joints[:, 0]), DISC * HEAD


def _bars(draws: np.ndarray) -> np.ndarray:
    """The ends of bars anywhere on the canvas: [B, n, 4] -> [B, n, 2, 2]."""
    middle = CANVAS / 2 * uniform(draws[..., :2], -0.6, 0.6)
    half = uniform(draws[..., 2], *BAR)[..., None] / 2 * _down(math.pi * draws[..., 3])
    return np.stack([middle - half, middle + half], axis=-2)


def _down(angle: np.ndarray) -> np.ndarray:
    """Directions [..., 2] for angles to that which points down, outwards to the right.

    Args:
        angle: [...], radians.
    """
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def _draw(
    planes: np.ndarray, ends: np.ndarray, radius: np.ndarray, colour: np.ndarray
) -> None:
    """Draws a bar with round ends into each image, smooth at its edge.

    Args:
        planes: float32 [B, 3, H, W], overwritten.
        ends: [B, 2, 2], (x, y) of both ends, in pixels.
        radius: [B], half of its width.
        colour: [B, 3].
    """
    ends = ends.astype(np.float32)[..., None, None]
    x, y = np.arange(planes.shape[3]) + 0.5, np.arange(planes.shape[2])[:, None] + 0.5
    across = x.astype(np.float32) - ends[:, 0, 0]
    down = y.astype(np.float32) - ends[:, 0, 1]
    dx, dy = ends[:, 1, 0] - ends[:, 0, 0], ends[:, 1, 1] - ends[:, 0, 1]
    along = (across * dx + down * dy) / np.maximum(dx**2 + dy**2, 1e-6)
    along = np.clip(along, 0, 1)
    distance = np.hypot(across - along * dx, down - along * dy)
    reach = radius.astype(np.float32)[:, None, None] + np.float32(0.5)
    cover = np.clip(reach - distance, 0, 1)[:, None]
    planes += cover * (colour[..., None, None] - planes)
