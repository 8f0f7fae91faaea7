"""Data sets of TFDS by name: what is in memory and what is decoded at each access."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from attn import data, settings
from attn.data.images import labelled

SHAPES = {
    "train": [(20, 31), (40, 18), (25, 25), (33, 47), (64, 21)],
    "test": [(30, 41)] * 3,
}


def image_of(split, index):
    height, width = SHAPES[split][index]
    random = np.random.default_rng([index, len(split)])
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()


class Photos(tfds.core.GeneratorBasedBuilder):
    """Colour images of various sizes, as ImageNet has them."""

    VERSION = tfds.core.Version("1.0.0")
    name = "test_photos"

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SHAPES}

    def _generate_examples(self, split):
        for index in range(len(SHAPES[split])):
            yield (
                index,
                {
                    "image": png(image_of(split, index)),
                    "label": index % 2,
                    "file_name": f"{index}",
                },
            )


class Captions(tfds.core.GeneratorBasedBuilder):
    """Not a set of image classification."""

    VERSION = tfds.core.Version("1.0.0")
    name = "test_captions"

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "caption": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": png(image_of("test", 0)), "caption": "noise"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("sets"))
    for builder in (Photos, Captions):
        builder(data_dir=place, file_format="array_record").download_and_prepare()
    return place


def test_images_of_many_sizes_are_read_by_row(sets):
    split = labelled.open_split("test_photos", "train", sets)
    assert split.shape == (None, None, 3) and split.size == 5
    assert split.pixels is None and split.class_names == ("cat", "dog")
    images, labels = split.read(np.arange(5))
    found = {
        image.shape[:2]: (image, label)
        for image, label in zip(images, labels, strict=True)
    }
    for index, shape in enumerate(SHAPES["train"]):
        image, label = found[shape]
        np.testing.assert_array_equal(image, image_of("train", index))
        assert label == index % 2


@pytest.mark.parametrize(
    "config",
    [
        {"image_size": 16},
        {"image_size": 16, "transforms": {"pad_crop_flip": {}}},
        {"transforms": {"random_resized_crop_flip": {"size": 16}}},
        {"transforms": {"resize_pad": {"size": 16}}},
    ],
)
def test_images_of_many_sizes_make_batches(sets, config):
    dataset = data.open({"name": "test_photos", "directory": sets, **config})
    assert dataset.example()["image"].shape == (16, 16, 3)
    with dataset.train(5, seed=0) as whole, dataset.train(5, seed=0, start=1) as later:
        first, second = next(whole), next(whole)
        resumed = next(later)
    assert sorted(first["index"]) == [0, 1, 2, 3, 4]
    assert first["image"].shape == (5, 16, 16, 3) and first["label"].dtype == np.int32
    for key in second:
        np.testing.assert_array_equal(resumed[key], second[key])
    with dataset.split("test", 2) as batches:
        tested = list(batches)
    assert [batch["weight"].tolist() for batch in tested] == [[1, 1], [1, 0]]


@pytest.mark.parametrize("transforms", [{}, {"flip": {}}, {"noise": {}}, {"crop": {}}])
def test_images_of_many_sizes_need_one(sets, transforms):
    config = {"name": "test_photos", "directory": sets, "transforms": transforms}
    with pytest.raises(settings.Invalid, match=r"differ in (the )?size.*image_size"):
        data.open(config)


def test_images_of_one_size_are_decoded_once(directory):
    split = labelled.open_split("mnist_5k", "test", directory)
    assert split.pixels.shape == (1000, 28, 28, 1)
    assert labelled.open_split("mnist_5k", "test", directory) is split
    with pytest.raises(ValueError, match="read-only"):
        split.pixels[0] = 0


def test_images_that_do_not_fit_in_memory_are_the_same(directory, monkeypatch):
    kept = labelled.open_split("mnist_5k", "test", directory)
    monkeypatch.setattr(labelled, "RESIDENT_BYTES", 0)
    labelled._open.cache_clear()
    read = labelled.open_split("mnist_5k", "test", directory)
    labelled._open.cache_clear()
    assert read.pixels is None
    rows = np.array([999, 0, 17])
    images, labels = read.read(rows)
    assert isinstance(images, np.ndarray)  # of one size, as those in memory
    np.testing.assert_array_equal(images, kept.pixels[rows])
    np.testing.assert_array_equal(labels, kept.labels[rows])


def test_parts_of_splits_are_those_of_tfds(directory):
    whole = labelled.open_split("mnist_5k", "train", directory)
    part = labelled.open_split("mnist_5k", "train[10:25]", directory)
    np.testing.assert_array_equal(part.pixels, whole.pixels[10:25])
    np.testing.assert_array_equal(part.labels, whole.labels[10:25])


@pytest.mark.parametrize("split", ["trian", "train[:x]", ""])
def test_an_unknown_split_names_the_valid_ones(directory, split):
    with pytest.raises(ValueError) as error:
        labelled.open_split("mnist_5k", split, directory)
    assert repr(split) in str(error.value)
    assert "valid: test, train, parts such as train[:90%]" in str(error.value)


@pytest.mark.parametrize("part", ["5:5", "7:5"])
def test_an_empty_split_is_refused(directory, part):
    with pytest.raises(ValueError, match=r"split 'train\[\d:5\]' .* is empty"):
        labelled.open_split("mnist_5k", f"train[{part}]", directory)


def test_a_set_without_labels_is_refused(sets):
    with pytest.raises(
        ValueError, match=r"'test_captions' is not .* has caption, image"
    ):
        labelled.open_split("test_captions", "train", sets)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_class_is_refused(directory, monkeypatch, label, resident):
    def records(rows):
        return [{"image": png(np.zeros((3, 4), np.uint8)), "label": label}] * len(rows)

    images = labelled.Images(
        (3, 4, 1),
        tuple("0123456789"),
        2,
        SimpleNamespace(__getitems__=records),
        *[None] * 2,
    )
    with pytest.raises(ValueError, match=f"label {label} is none of the 10 classes"):
        labelled._decoded(images) if resident else images.read(np.arange(2))


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_decoded_to_the_channels_of_the_set(channels):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    decoded = labelled.decode(png(grey), channels)
    np.testing.assert_array_equal(decoded, grey[:, :, None].repeat(channels, 2))


def test_no_tensorflow_is_imported(directory):
    labelled.open_split("mnist_5k", "test", directory)
    assert "tensorflow" not in sys.modules
