"""Images with labels or boxes: sets of TensorFlow Datasets, folders, transforms."""

import dataclasses

from attn import settings
from attn.data import prepare
from attn.data.images import detected, folder, labelled, normalise
from attn.data.source import Source


@dataclasses.dataclass(frozen=True)
class Classes:
    """Any set of TensorFlow Datasets of image classification or of detection, by name.

    "photos" prepares itself on first use; `attn.data.prepare` says where others are
    looked for. Fields "image" and "label", or for a set with objects those of
    `attn.data.images.detected`.

    Attributes:
        name: "photos", "cifar10", "imagenet2012", "coco/2017", "voc/2007", ...
        image_size: side in pixels to which images are cropped and resized before all
            transforms; None leaves them as they are, as it must where they have boxes.
        directory: where data sets lie; "" for $TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
    """

    name: str
    image_size: settings.Positive | None = None
    directory: str = ""

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        builder = prepare.builder(self.name, self.directory)
        if detected.fits(builder.info.features):
            if self.image_size is not None:
                raise settings.Invalid(
                    f"images of data set {self.name!r} have boxes and stay whole:"
                    " image_size must be None (the transforms resize_shorter and"
                    f" multi_scale resize them), got {self.image_size}"
                )
            objects = detected.open_split(self.name, split, builder)
            return objects.source(normalise.statistics(self.name, objects.channels))
        found = labelled.open_split(self.name, split, self.directory)
        statistics = normalise.statistics(self.name, found.shape[-1])
        return found.source(statistics, self.image_size)


@dataclasses.dataclass(frozen=True)
class Folder:
    """Images in folders, ROOT/CLASS/FILE or ROOT/SPLIT/CLASS/FILE, PNG or JPEG.

    Without folders of splits all images are the split "train", of which validation
    and test are parts: train="train[:80%]", validation="train[80%:90%]",
    test="train[90%:]". `attn.data.images.folder` says more.

    Attributes:
        name: the path of ROOT.
        image_size: as of `Classes`; needed where images differ in size, unless a
            transform gives all one.
        skip_corrupt: as of `Degraded`.
    """

    name: str
    image_size: settings.Positive | None = None
    skip_corrupt: bool = False

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        found = folder.open_split(self.name, split, skip_corrupt=self.skip_corrupt)
        statistics = normalise.statistics("", found.shape[-1])
        return found.source(statistics, self.image_size)
