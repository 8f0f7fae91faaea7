"""Mean and standard deviation by which the pixels of a data set are normalised.

x / 255, less the mean, over the deviation, by channel. Known sets have the constants
that published training code uses, sets of ours those of their training split; every
other set has 0.5 and 0.5, which maps 0..255 to -1..1. A distortion that adds black
around a digit does not change them, and where digits are several channels each has
them. Images are normalised behind all transforms, unless one of these is `Normalise`.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

from attn import settings
from attn.data.images import geometry
from attn.data.source import Batch, Source, Statistics
from attn.data.transforms import Transform

IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STATISTICS = {
    "cifar10": Statistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Statistics((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "coco": IMAGENET,  # whose backbones are trained on ImageNet
    "coco_captions": IMAGENET,
    "coco_keypoints": IMAGENET,
    "imagenet2012": IMAGENET,
    "mnist": Statistics((0.1307,), (0.3081,)),
    "mnist_5k": Statistics((0.1309,), (0.3080,)),
    # of what `attn.data.digits.scene` makes of the training split of mnist_5k
    "digits_scene": Statistics((0.338, 0.338, 0.338), (0.184, 0.184, 0.184)),
    "photos": Statistics((0.461, 0.375, 0.332), (0.299, 0.248, 0.256)),
    "skeletons": Statistics((0.371, 0.371, 0.371), (0.220, 0.220, 0.220)),
    "voc": IMAGENET,
}


def statistics(name: str, channels: int) -> Statistics:
    """The constants of the data set `name`, or one half for each of its channels.

    Its config or version, as in "coco/2017" and "mnist:3.0.1", does not count.
    """
    base = name.partition("/")[0].partition(":")[0]
    known = STATISTICS.get(base, Statistics((0.5,), (0.5,)))
    if len(known.mean) == channels:
        return known
    return Statistics(known.mean * channels, known.deviation * channels)


def normalise(pixels: np.ndarray, of: Statistics) -> np.ndarray:
    """Pixels 0..255 [..., C] -> float32 of about zero mean and unit deviation.

    Floating-point input is overwritten: it is what the distortions have just made.
    """
    mean, deviation = (np.asarray(part, np.float32) for part in of)
    scaled = np.asarray(pixels, np.float32)
    # A row [W, C] of the constants: NumPy's loops are short where only C is repeated.
    row = scaled.shape[-2:]
    scaled *= np.full(row, 1 / (255 * deviation))
    scaled -= np.full(row, mean / deviation)
    return scaled


def picture(image: np.ndarray, of: Statistics) -> np.ndarray:
    """Undoes `normalise`: [..., C] -> float32 in [0, 1], cut off where outside."""
    mean, deviation = (np.asarray(part, np.float32) for part in of)
    return np.clip(np.asarray(image, np.float32) * deviation + mean, 0, 1)


@dataclasses.dataclass(frozen=True)
class Normalise(Transform):
    """normalise: pixels less the mean, over the deviation, of each channel.

    Attributes:
        splits: "all".
        mean, deviation: of each channel, or one for all, in units of the full range of
            0..255; () for those of the data set. 0 and 1 give images in [0, 1].
        fields: that are normalised.
    """

    splits: Literal["train", "all"] = "all"
    mean: tuple[float, ...] = ()
    deviation: tuple[settings.PositiveFloat, ...] = ()
    fields: tuple[str, ...] = ("image",)

    def __post_init__(self) -> None:
        if self.splits != "all":
            raise settings.Invalid("images are normalised in all splits or in none")

    @property
    def statistics(self) -> Statistics:
        """Mean and deviation."""
        return Statistics(tuple(self.mean), tuple(self.deviation))

    def bound(self, source: Source) -> "Normalise":
        """The transform with the statistics of the data set where it has none."""
        known = source.statistics or Statistics((), ())
        found = dataclasses.replace(
            self,
            mean=self.mean or known.mean,
            deviation=self.deviation or known.deviation,
        )
        if not found.mean or not found.deviation:
            raise settings.Invalid(
                "transform normalise needs mean and deviation: the data set has none"
            )
        return found

    def apply(self, batch: Batch, draws: np.ndarray) -> Batch:
        """The batch with its images normalised; they may be of unlike size."""
        del draws
        geometry.present(batch, self.fields)
        found = {name: self._normalised(batch[name]) for name in self.fields}
        return {**batch, **found}

    def _normalised(self, images: Any) -> Any:
        images = geometry.kept(images)
        channels = images[0].shape[-1]
        for name, values in zip(("mean", "deviation"), self.statistics, strict=True):
            if len(values) not in (1, channels):
                raise settings.Invalid(
                    f"{name} of normalise must have one number, or one for each of the"
                    f" {channels} channels, got {values}"
                )
        if isinstance(images, np.ndarray):
            return normalise(images, self.statistics)
        return [normalise(image, self.statistics) for image in images]
