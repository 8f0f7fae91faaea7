"""Labelled images: sets of TensorFlow Datasets, folders, and their transforms."""

import dataclasses

from attn import settings
from attn.data.images import folder, labelled, normalise
from attn.data.source import Source


@dataclasses.dataclass(frozen=True)
class Classes:
    """Any image-classification set of TensorFlow Datasets, by its name there.

    "photos" prepares itself on first use; `attn.data.prepare` says where others are
    looked for. Fields "image" and "label".

    Attributes:
        name: "photos", "cifar10", "imagenet2012", ...
        image_size: side in pixels to which images are cropped and resized before all
            transforms; None leaves them as they are.
        directory: where data sets lie; "" for $TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
    """

    name: str
    image_size: settings.Positive | None = None
    directory: str = ""

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
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
    """

    name: str
    image_size: settings.Positive | None = None

    def open(self, split: str) -> Source:
        """One split, such as "train[:90%]"."""
        found = folder.open_split(self.name, split)
        statistics = normalise.statistics("", found.shape[-1])
        return found.source(statistics, self.image_size)
