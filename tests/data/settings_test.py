"""No dead setting: each field of a data set or transform changes what is made of it.

A data set or transform that is added to the tables is found here: it needs settings
under which all its fields count, and a second value for each.
"""

import dataclasses
import pathlib

import numpy as np
import pytest

from attn import data, settings

# What is opened: a config, and for each field of the data set another value.
DIGITS = ({"distortion": "none"}, {
    "source": "photos",
    "distortion": "r",
    "composition": "number",
    "image_size": 20,
    "directory": "/dev/null/place",
})  # fmt: skip
PAIRS = {
    "vocab_size": 290,
    "tokenizer": "/dev/null/tokenizer.json",
    "longest": 20,
    "over": "cut",
    "buckets": 1,
    "budget": "examples",
}
BABEL = {
    "train_size": 120,
    "eval_size": 20,
    "vocab_size": 300,
    "longest": 32,
    "buckets": 2,
}
PARALLEL = {
    "path": str(pathlib.Path(__file__).parent / "text" / "pairs"),
    "vocab_size": 300,
    "longest": 32,
    "buckets": 2,
}
PATHFINDER = {
    "side": 24,
    "dashes": 3,
    "others": 1,
    "train_size": 9,
    "eval_size": 6,
    "test": "test",
}
PEOPLE = {  # in pictures of 30 to 50 pixels
    "path": str(pathlib.Path(__file__).parent / "images" / "people"),
    "test": "test",
    "size": [24, 18],
}
MASKED = {
    "packages": ["optax"],
    "most": 60,
    "vocab_size": 300,
    "length": 512,
}
PAIRED = {"packages": ["flax", "optax"], "most": 60, "length": 256, "vocab_size": 300}
LABELLED = {"packages": ["optax"], "most": 60, "length": 128}
TFDS = ({"source": "imdb_reviews"}, {"directory": "/dev/null/place"})
OTHERS = {  # further cases
    name: [({"composition": "number"}, {"canvas": 40})]
    for name in ("mnist_5k", "mnist", "fashion_mnist", "kmnist")
} | {
    "degraded": [
        ({"source": "photos", "train": "train[:9]"}, {"directory": "/dev/null/place"}),
    ],
    "masked_text": [TFDS],
    "text_pairs": [
        ({"source": "glue/mrpc"}, {"directory": "/dev/null/place"}),
        ({"source": "mnist_5k"}, {"columns": ["premise", "hypothesis"]}),
        (PAIRED | {"form": "apart"}, {"units": "bytes"}),
    ],
    "labelled_text": [
        TFDS,
        (
            LABELLED | {"units": "words", "vocab_size": 300},
            {
                "vocab_size": 280,
                "tokenizer": "/dev/null/tokenizer.json",
            },
        ),
    ],
}
DATASETS = {
    "mnist_5k": DIGITS,
    "mnist": DIGITS,
    "fashion_mnist": DIGITS,
    "kmnist": DIGITS,
    "coco_keypoints": (PEOPLE, {
        "path": "/dev/null/place",
        "training": "val2017",
        "testing": "train2017",
        "size": [20, 18],
        "margin": 0.4,
        "shift": 0.0,
        "scale": 0.0,
    }),
    "degraded": ({"scale": 4, "test": "test[:2]", "train": "train[:2]"}, {
        "source": "/dev/null/place",
        "scale": 3,
        "skip_corrupt": True,  # refused: it is for a folder
    }),
    "digits_scene": ({}, {
        "source": "photos",
        "distortion": "r",
        "composition": "number",
        "canvas": 40,
        "image_size": 20,
        "directory": "/dev/null/place",
    }),
    "photos": ({}, {"image_size": 20, "directory": "/dev/null/place"}),
    "babel": (BABEL, {
        "language": "fr",
        "only": ["date"],
        "train_size": 100,
        "eval_size": 30,
        **PAIRS,
    }),
    "labelled_text": (LABELLED, {
        "source": "/dev/null/text",
        "units": "words",
        "length": 40,
        "packages": ["flax"],
        "most": 40,
        "buckets": 1,
        "budget": "examples",
    }),
    "listops": ({"train_size": 80, "eval_size": 20, "validation": "validation"}, {
        "depth": 3,
        "arguments": 4,
        "low": 10,
        "high": 60,
        "train_size": 70,
        "eval_size": 30,
        "buckets": 2,
        "budget": "examples",
    }),
    "parallel": (PARALLEL, {
        "path": "/dev/null/place",
        "source": "fr",
        "target": "fr",
        **PAIRS,
    }),
    "pathfinder": (PATHFINDER, {
        "side": 30,
        "dashes": 4,
        "others": 2,
        "train_size": 8,
        "eval_size": 7,
    }),
    "skeletons": ({"train_size": 40, "eval_size": 20, "test": "test"}, {
        "size": [40, 36],
        "margin": 0.4,
        "shift": 0.0,
        "scale": 0.0,
        "clutter": 2,
        "train_size": 30,
        "eval_size": 10,
    }),
    "pixels": ({}, {
        "source": "photos",
        "directory": "/dev/null/place",
        "shrink": 2,
    }),
    "masked_text": (MASKED, {
        "source": "/dev/null/text",
        "packages": ["flax"],
        "most": 40,
        "vocab_size": 280,
        "tokenizer": "/dev/null/tokenizer.json",
        "length": 128,
        "buckets": 1,
        "budget": "examples",
        "next_sentence": False,
        "predict": "next",
        "rate": 0.3,
        "mask": 0.5,
        "random": 0.2,
        "eval_mask": 0.5,
        "eval_random": 0.2,
    }),
    "sequences": ({"buckets": 4, "high": 20, "test": "test"}, {
        "task": "reverse",
        "words": 5,
        "low": 2,
        "high": 14,
        "train_size": 100,
        "eval_size": 30,
        "buckets": 3,
        "budget": "examples",
        "row_length": 40,
    }),
    "text_pairs": (PAIRED, {
        "source": "/dev/null/text",
        "form": "apart",
        "length": 40,
        "packages": ["flax"],
        "most": 40,
        "vocab_size": 280,
        "tokenizer": "/dev/null/tokenizer.json",
        "buckets": 1,
        "budget": "examples",
    }),
}  # fmt: skip
COMMON = {
    "train": "train[:30]",
    "validation": "train[30:40]",
    "test": "test[2:]",
    "test_draws": 2,
    "transforms": {"flip": {}},
}
TRANSFORMS = {
    "crop": ({"size": 20}, {"splits": "all", "size": 12, "padding": 4}),
    "flip": ({}, {"splits": "all", "probability": 0.9}),
    "haze": ({}, {
        "splits": "train",
        "beta": [0.5, 1.0],
        "airlight": [0.5, 0.6],
        "depth": "constant",
        "into": "hazy",
    }),
    "multi_scale": (
        {
            "sides": [24, 33],
            "longest": 70,
            "before": [30],
            "parts": [15, 28],
            "shorter": 40,
            "crop": 0.6,
        },
        {
            "splits": "all",
            "sides": [20],
            "longest": 40,
            "crop": 0.1,
            "before": [36],
            "parts": [10, 20],
            "shorter": 36,
        },
    ),
    "noise": ({}, {"splits": "all", "deviation": 5.0, "into": "noisy"}),
    "normalise": ({}, {"splits": "train", "mean": [0.7], "deviation": [2.0]}),
    "pad_crop_flip": ({}, {"splits": "all", "padding": 2}),
    "patches": ({"fields": ["image"], "size": 20}, {
        "splits": "all",
        "size": 24,
        "turn": False,
    }),
    "random_resized_crop_flip": ({"size": 24, "margin": 1.2}, {
        "splits": "all",
        "size": 20,
        "area": [0.5, 0.6],
        "ratio": [1.0, 1.1],
        "margin": 1.5,
    }),
    "resize_pad": ({"size": 24}, {"splits": "train", "size": 20}),
    "resize_shorter": ({"shorter": 40, "longest": 60}, {
        "splits": "train",
        "shorter": 30,
        "longest": 39,  # refused: what is to be resized are squares
    }),
}  # fmt: skip
FIELDS = {  # which images a transform is of: another field that is not there
    "fields": ["other"],
    "field": "other",
}


def behaviour(directory, config):
    """What the first batches hold, or the refusal."""
    fields = {field.name for field in dataclasses.fields(data._class(config["name"]))}
    if "directory" in fields:
        config = {"directory": directory, **config}
    try:
        dataset = data.open(config)
    except settings.Invalid as refusal:
        return str(refusal)
    found = {"facts": repr(dataset.facts), "example": repr(dataset.example())}
    found |= {split: dataset.size(split) for split in ("train", *dataset.splits)}
    count = 6 if "budget" in fields else 2  # each of its buckets
    with dataset.train(8, seed=1) as batches:
        found |= {f"train/{k}/{n}": b.tobytes() for k, n, b in arrays(batches, count)}
    for split in dataset.splits:
        with dataset.split(split, 8) as batches:
            found |= {f"{split}/{k}/{n}": b.tobytes() for k, n, b in arrays(batches, 2)}
    return found


def arrays(batches, count):
    for k, batch in zip(range(count), batches, strict=False):
        for name, array in batch.items():
            yield k, name, np.ascontiguousarray(array)


def assert_counts(directory, config, change):
    assert behaviour(directory, config) == behaviour(directory, config)
    assert behaviour(directory, config) != behaviour(directory, {**config, **change})


@pytest.mark.parametrize("name", sorted(data.DATASETS))
def test_every_setting_of_a_data_set_counts(directory, name):
    target = data.DATASETS[name]
    fields = {field.name for field in dataclasses.fields(target)} - {"name"}
    cases = [DATASETS[name], *OTHERS.get(name, ())]
    assert fields == {field for _, changes in cases for field in changes}
    if name in ("mnist", "fashion_mnist", "kmnist"):
        return  # not there; of the same class as one that is
    for base, changes in cases:
        for field, value in changes.items():
            config = {"name": name, "test": "test[:9]", **base}
            assert_counts(directory, config, {field: value})


@pytest.mark.parametrize("field", COMMON)
def test_every_common_setting_counts(directory, field):
    fields = {field.name for field in dataclasses.fields(data.Config)}
    assert fields == {"name", *COMMON}
    config = {"name": "mnist_5k", "test": "test[:9]", "distortion": "r"}
    assert_counts(directory, config, {field: COMMON[field]})


@pytest.mark.parametrize("name", sorted(data.TRANSFORMS))
def test_every_setting_of_a_transform_counts(directory, name):
    base, changes = TRANSFORMS[name]
    for field in dataclasses.fields(data.TRANSFORMS[name]):
        change = {field.name: {**FIELDS, **changes}[field.name]}
        config = {"name": "photos", "test": "test[:9]", "transforms": {name: base}}
        assert_counts(directory, config, {"transforms": {name: {**base, **change}}})
