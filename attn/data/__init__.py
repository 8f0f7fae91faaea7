"""Data sets as deterministic streams of batches, without TensorFlow.

dataset = attn.data.open({"name": "mnist_5k", "distortion": "r"})
with dataset.train(128, seed=0) as batches:      # endless; batch k depends on (0, k)
    batch = next(batches)                        # image, label, objects, index
for batch in dataset.split("test", 250):         # and weight
    ...
scenes = attn.data.open({"name": "digits_scene"})  # and boxes, labels, caption
pairs = attn.data.open({"name": "babel"})  # source, target_in, target and their masks
flipped = attn.data.open({"name": "photos", "transforms": {"flip": {}}})

Batches are NumPy arrays that threads make ahead of time. `Dataset` says more.

A data set is a frozen dataclass of settings with `open(split) -> Source`; a transform
one with `apply(batch, draws)`. The tables name those that there are; others are given
as "package.file:Class".
"""

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from attn import settings
from attn.data import images, transforms
from attn.data.ahead import Batches
from attn.data.digits import Digits, DigitsScene
from attn.data.images import augment, haze, normalise, patches, rescale
from attn.data.images.captioned import Captions
from attn.data.images.coco_keypoints import CocoKeypoints
from attn.data.images.degraded import Degraded
from attn.data.images.skeletons import Skeletons
from attn.data.pipeline import Dataset
from attn.data.source import Batch, Field, Source, Statistics
from attn.data.text import Sequences
from attn.data.text.babel import Babel
from attn.data.text.labelled import LabelledText
from attn.data.text.listops import ListOps
from attn.data.text.masked import MaskedText
from attn.data.text.matched import TextPairs
from attn.data.text.parallel import TRANSLATIONS, Parallel, Translation
from attn.data.text.pathfinder import Pathfinder
from attn.data.text.pixels import Pixels
from attn.data.transforms import Transform

__all__ = [
    "DATASETS",
    "TRANSFORMS",
    "Batch",
    "Batches",
    "Config",
    "Dataset",
    "Field",
    "Source",
    "Statistics",
    "Transform",
    "check",
    "open",
]

# Every other name is a folder of images, if it is a path, or a set of TFDS, of
# translations if it is called so, or else of images.
DATASETS = {
    "babel": Babel,
    "coco_keypoints": CocoKeypoints,
    "degraded": Degraded,
    "digits_scene": DigitsScene,
    "fashion_mnist": Digits,
    "kmnist": Digits,
    "labelled_text": LabelledText,
    "listops": ListOps,
    "masked_text": MaskedText,
    "mnist": Digits,
    "mnist_5k": Digits,
    "parallel": Parallel,
    "pathfinder": Pathfinder,
    "photos": images.Classes,
    "pixels": Pixels,
    "sequences": Sequences,
    "skeletons": Skeletons,
    "text_pairs": TextPairs,
}

CAPTIONED = ("coco_captions",)  # sets of TFDS

TRANSFORMS = {
    "crop": augment.Crop,
    "flip": augment.Flip,
    "haze": haze.Haze,
    "multi_scale": rescale.MultiScale,
    "noise": augment.Noise,
    "normalise": normalise.Normalise,
    "pad_crop_flip": augment.PadCropFlip,
    "patches": patches.Patches,
    "random_resized_crop_flip": augment.RandomResizedCropFlip,
    "resize_pad": augment.ResizePad,
    "resize_shorter": rescale.ResizeShorter,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Section `data` of a config. Other fields are settings of the data set's class.

    Attributes:
        name: in `DATASETS`; any prepared set of TensorFlow Datasets of image
            classification ("cifar10", "imagenet2012"; `attn.data.prepare` says where
            it looks), of detection ("coco/2017", "voc/2007") or of translation
            ("wmt14_translate/de-en", "ted_hrlr_translate/pt_to_en"); the path of a
            folder of images, with a "/" or in front of it "~" or "."; or
            "package.file:Class". Texts by path, or other sets of TFDS with texts, are
            settings of "parallel", "masked_text", "labelled_text" and "text_pairs".
        train, validation, test: splits in the words of TFDS: "train[:90%]",
            "validation"; "" for no validation split.
        test_draws: how often the test split is gone through, with other random
            numbers each time. The more, the less of a result is luck of the draw,
            which counts where the split is small.
        transforms: of the examples, as `attn.data.transforms` says.
    """

    name: str = ""
    train: str = "train"
    validation: str = ""
    test: str = "test"
    test_draws: settings.Positive = 1
    transforms: Any = dataclasses.field(default_factory=dict)


def open(config: Mapping[str, Any]) -> Dataset:
    """Opens the data set that `config`, the fields of `Config` and others, describes.

    The first opening in a process decodes sets that fit into memory; mnist_5k takes
    a quarter of a second, and some seconds once, when it is prepared.

    Raises:
        Invalid: an unknown data set, setting, split or transform, a wrong type,
            settings that do not go together, labels outside the classes, or a set that
            is not prepared; the message is one line.
    """
    chosen, made, entries = _checked(config)
    names = {name: getattr(chosen, name) for name in ("train", "validation", "test")}
    sources = {name: made.open(split) for name, split in names.items() if split}
    bound = [entry.transform.bound(sources["train"]) for entry in entries]
    entries = [e._replace(transform=t) for e, t in zip(entries, bound, strict=True)]
    kinds = [type(transform) for transform in bound]
    if sources["train"].statistics and normalise.Normalise not in kinds:
        last = normalise.Normalise().bound(sources["train"])
        entries.append(transforms.Entry("normalise", last))
    dataset = Dataset(sources, tuple(entries), chosen.test_draws)
    dataset.check()
    return dataset


def check(config: Mapping[str, Any]) -> None:
    """Checks all of `config` that can be known without reading the data.

    Raises:
        Invalid: as of `open`.
    """
    _checked(config)


def _checked(config: Mapping[str, Any]) -> tuple[Config, Any, tuple]:
    """The common fields, the data set's settings as its class, and the transforms."""
    if not hasattr(config, "items"):
        raise settings.Invalid(
            f"the data set must be a mapping with its settings, got {config!r}"
        )
    rest = dict(config.items())
    name = rest.pop("name", None)
    if not isinstance(name, str) or not name:
        raise settings.Invalid(
            f"the data set needs a name such as 'mnist_5k', got {name!r}"
        )
    common = {field.name for field in dataclasses.fields(Config)}
    given = {key: rest.pop(key) for key in list(rest) if key in common}
    chosen = settings.build(Config, "data set", name, given)
    for split in ("train", "test"):
        if not getattr(chosen, split):
            raise settings.Invalid(f"data set {name!r} needs a {split} split, got ''")
    if not hasattr(chosen.transforms, "items"):
        raise settings.Invalid(
            f"data.transforms must be a mapping, got {chosen.transforms!r}"
        )
    target = _class(name)
    fields = {field.name for field in dataclasses.fields(target)}
    for key in rest:
        if key not in fields:
            # a misspelt name is taken for one of TFDS, which has fewer settings
            if name not in DATASETS and difflib.get_close_matches(name, DATASETS):
                raise settings.unknown("data set", name, DATASETS)
            kind = f"setting of data set {name!r}"
            raise settings.unknown(kind, key, sorted(common | fields))
    settings.check(target, "data set", name, rest)
    named = "name" in fields
    made = target(name=name, **rest) if named else target(**rest)
    return chosen, made, transforms.create(TRANSFORMS, chosen.transforms)


def _class(name: str) -> Any:
    """The dataclass of the data set called `name`."""
    base, _, rest = name.partition(":")
    if name.startswith(("/", ".", "~")) or ("/" in name and _is_folder(name)):
        return images.Folder
    if rest and not re.fullmatch(r"[\d.*]+", rest):  # a version, as in "mnist:3.0.1"
        return settings.choose({}, "data set", name)
    if base.partition("/")[0] in CAPTIONED:
        return Captions
    if TRANSLATIONS.fullmatch(base.partition("/")[0]):
        return Translation
    return DATASETS.get(base, images.Classes)


def _is_folder(name: str) -> bool:
    return pathlib.Path(name).is_dir()
