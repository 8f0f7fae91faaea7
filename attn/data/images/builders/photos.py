"""photos: patches of seven photographs that need no download and no TensorFlow.

Attention on real images, without a data set to fetch: scikit-image and scikit-learn
carry these colour photographs inside their packages (the others there are grey, or
taken through a microscope or telescope). The task is to tell of which photograph a
patch is a part.

Each photograph is cut into 4 x 3 equal cells, of which three, one in each row, are for
testing and nine for training, so that no pixel serves both. A patch is a square inside
one cell, of 48 to 96 pixels a side (uniform on a logarithmic scale), at a random place
of it, shrunk to 48x48 and kept as JPEG. Cells, sizes and places follow from a fixed
seed. Both splits are balanced: 600 and 150 patches a photograph, 4,200 and 1,050 in
all, 6 MB.

Patches of one cell overlap, so that a random part of "train" would be no honest
validation split. Two of the nine cells, and the patches in them, are therefore
"validation" (976), and the patches in the other seven are "fit" (3,224): train on "fit"
to choose by "validation", and on "train", which is both, without.
"""

import importlib.resources
import io
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from attn.data import order
from attn.data.draws import integers, uniform

PHOTOGRAPHS = {  # package and file in it
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "dahlia": ("sklearn", "datasets/images/flower.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "pagoda": ("sklearn", "datasets/images/china.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
SIDE = 48
LARGEST = 96  # side of a patch before it is shrunk; every cell has room for it
COLUMNS, ROWS = 4, 3
TEST_CELLS = (1, 7, 8)  # counted row by row
VALIDATION_CELLS = (3, 9)
TRAIN_PER_CLASS, TEST_PER_CLASS = 600, 150
SEED = 0


def places(width: int, height: int, photograph: int, *, train: bool) -> np.ndarray:
    """Places of the patches of one split in a photograph: int [n, 3].

    Args:
        width, height: of the photograph, pixels.
        photograph: its number.
        train: patches of the training split, else of the test split.

    Returns:
        First column, first row and side of each patch.
    """
    return _places(width, height, photograph, train=train)[0]


def _places(
    width: int, height: int, photograph: int, *, train: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The places of `places`, and the cell of each, int [n]."""
    count = TRAIN_PER_CLASS if train else TEST_PER_CLASS
    purpose = order.TRAIN if train else order.TEST
    draws = order.uniform(SEED, purpose, photograph * count, count, 4)
    cells = [c for c in range(COLUMNS * ROWS) if (c in TEST_CELLS) != train]
    cell = np.array(cells)[integers(draws[:, 0], len(cells))]
    size = np.array([width // COLUMNS, height // ROWS])
    corner = np.stack([cell % COLUMNS, cell // COLUMNS], axis=1) * size
    side = np.exp(uniform(draws[:, 1], np.log(SIDE), np.log(LARGEST + 1)))
    side = side.astype(np.intp)[:, None]
    shift = integers(draws[:, 2:], size - side + 1)
    return np.concatenate([corner + shift, side], axis=1), cell


def photograph(name: str) -> Image.Image:
    """One of `PHOTOGRAPHS`, RGB."""
    package, path = PHOTOGRAPHS[name]
    with importlib.resources.files(package).joinpath(path).open("rb") as file:
        return Image.open(file).convert("RGB")


class Photos(tfds.core.GeneratorBasedBuilder):
    """Patches of seven photographs, 48x48 RGB, 4,200 to train and 1,050 to test on.

    Prepare it with `file_format="array_record"`; `attn.data.open` does so by itself.
    """

    name = "photos"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES = {"1.1.0": "splits fit and validation, parts of train"}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(SIDE, SIDE, 3), encoding_format="jpeg"
                    ),
                    "label": tfds.features.ClassLabel(names=list(PHOTOGRAPHS)),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        everywhere = range(COLUMNS * ROWS)
        fit = [cell for cell in everywhere if cell not in VALIDATION_CELLS]
        return {
            "train": _examples(everywhere, train=True),
            "fit": _examples(fit, train=True),
            "validation": _examples(VALIDATION_CELLS, train=True),
            "test": _examples(everywhere, train=False),
        }

    def _generate_examples(self, **kwargs: Any) -> Iterator:
        raise NotImplementedError("_split_generators makes the iterators")


def _examples(
    cells: Collection[int], *, train: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and example of each patch in some cells; JPEG, as arrays need TensorFlow."""
    for number, name in enumerate(PHOTOGRAPHS):
        picture = photograph(name)
        at, cell = _places(*picture.size, number, train=train)
        for patch, (left, top, side) in enumerate(at.tolist()):
            if cell[patch] not in cells:
                continue
            image = picture.crop((left, top, left + side, top + side))
            image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            file = io.BytesIO()
            image.save(file, format="jpeg", quality=90)
            yield f"{name}_{patch}", {"image": file.getvalue(), "label": name}
