"""Batches of every kind are what they were: digests of their bytes."""

import hashlib
import itertools

import numpy as np
import pytest

from attn import data

# Fields that came later, and are not part of the digests.
LATER = {"objects", "boxes_mask", "caption_mask", "named"}
LATER |= {"target", "target_in", "target_mask"}
MNIST = {"name": "mnist_5k"}
CROP, RESIZED = {"pad_crop_flip": {}}, {"random_resized_crop_flip": {"size": 40}}
DIGESTS = {
    "b57c669eb47eb2e7": MNIST,
    "9b6e3c905390eb8e": MNIST | {"distortion": "r", "test_draws": 2},
    "3af9e6196b244f31": MNIST | {"distortion": "rts"},
    "e400ffa3c73ca0f2": MNIST | {"distortion": "p"},
    "1923b72b4696a6e9": MNIST | {"distortion": "e"},
    "6ad1cb237efacb41": MNIST | {"distortion": "tc"},
    "1b6f5254e68e4bed": MNIST | {"distortion": "translated"},
    "b7674412e7252838": MNIST | {"distortion": "cluttered"},
    "8df9a3df27f39830": MNIST | {"composition": "addition"},
    "6c0e90c43735bfde": MNIST | {"composition": "number", "canvas": 54},
    "ff02392e35af6bbc": MNIST | {"composition": "odd_one_out", "canvas": 41},
    "135dc98eef407103": {"name": "digits_scene"},
    "5dde19ea924a8759": MNIST | {"image_size": 32},
    "84ad1e25759bfef1": {"name": "photos", "transforms": CROP},
    "17eef33bb3db495e": MNIST | {"image_size": 32, "transforms": CROP},
    "34681722efe75992": {"name": "photos", "transforms": RESIZED},
}


@pytest.mark.parametrize("digest", DIGESTS)
def test_batches_are_what_they_were(directory, digest):
    dataset = data.open({**DIGESTS[digest], "test": "test[:9]", "directory": directory})
    with dataset.train(6, seed=7, start=3) as batches:
        found = list(itertools.islice(batches, 2))
    with dataset.split("test", 6) as batches:
        found += list(batches)
    hashed = hashlib.sha256()
    for batch in found:
        for name in sorted(batch.keys() - LATER):
            hashed.update(name.encode())
            hashed.update(str(batch[name].dtype).encode())
            hashed.update(np.ascontiguousarray(batch[name]).tobytes())
    assert hashed.hexdigest()[:16] == digest
