"""attn.data.open: configs that fit, and one clear sentence for those that do not."""

import io
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from attn import data
from attn.data.digits import compositions


def opened(directory, **config):
    return data.open({"name": "mnist_5k", "directory": directory, **config})


@pytest.mark.parametrize(
    "config, shape",
    [
        ({}, (28, 28, 1)),
        ({"distortion": "r"}, (28, 28, 1)),
        ({"distortion": "rts"}, (42, 42, 1)),
        ({"distortion": "tc"}, (60, 60, 1)),
        ({"image_size": 32, "transforms": {"pad_crop_flip": {}}}, (32, 32, 1)),
        ({"composition": "addition"}, (42, 42, 2)),
        ({"composition": "number"}, (64, 64, 1)),
        ({"composition": "number", "canvas": 54}, (54, 54, 1)),
        ({"name": "digits_scene"}, (64, 64, 3)),
        ({"name": "digits_scene", "composition": "scene"}, (64, 64, 3)),
        ({"name": "digits_scene", "canvas": 96}, (96, 96, 3)),
        ({"name": "photos"}, (48, 48, 3)),
    ],
)
def test_shape_of_the_images(directory, config, shape):
    assert opened(directory, **config).example()["image"].shape == shape


@pytest.mark.parametrize(
    "config, names",
    [
        ({"composition": "addition"}, [str(n) for n in range(19)]),
        ({"composition": "number"}, [*"0123456789", "none"]),
        ({"name": "digits_scene"}, [*"0123456789"]),
    ],
)
def test_names_of_the_classes(directory, config, names):
    facts = opened(directory, **config).facts
    assert list(facts["class_names"]) == names and facts["num_classes"] == len(names)


def test_digits_scene_is_mnist_5k_in_scenes(directory):
    batches = []
    for config in ({"name": "digits_scene"}, {"composition": "scene"}):
        with opened(directory, **config).split("test", 5) as found:
            batches.append(next(found))
    for key in batches[0].keys() | batches[1].keys():
        np.testing.assert_array_equal(*(batch[key] for batch in batches))


def test_any_set_of_ten_classes_of_digits_can_be_composed(tmp_path):
    place = str(tmp_path)
    for classes in (10, 11):
        builder = letters(classes)(data_dir=place, file_format="array_record")
        builder.download_and_prepare()
    config = {"name": "attn.data.digits:Digits", "source": "test_letters10"}
    config |= {"test": "train", "directory": place}
    for composition in compositions.COMPOSITIONS:
        dataset = data.open({**config, "composition": composition})
        with dataset.train(5, seed=0) as batches:
            assert len(next(batches)["image"]) == 5
    config["source"] = "test_letters11"
    with pytest.raises(ValueError, match=r"of ten digits, .*letters11' has 11 classes"):
        data.open({**config, "composition": "number"})


def letters(classes):
    """A builder of four grey images of 28x28, of so many classes."""

    class Letters(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = f"test_letters{classes}"

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=classes),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            file = io.BytesIO()
            Image.new("L", (28, 28), 200).save(file, format="png")
            example = lambda n: {"image": file.getvalue(), "label": n}
            return {"train": iter([(n, example(n)) for n in range(4)])}

        def _generate_examples(self):
            pass

    return Letters


def test_a_config_dict_will_do(directory):
    config = ml_collections.ConfigDict({"name": "mnist_5k", "directory": directory})
    assert data.open(config).size("train") == 4000


@pytest.mark.parametrize(
    "config, message",
    [
        ({"distorsion": "r"}, "'distorsion'; did you mean 'distortion'"),
        (
            {"distortion": "rst"},
            "distortion 'rst'; did you mean 'rts'.*none, cluttered, e, p, r",
        ),
        ({"distortion": "attn.data:Config"}, "unknown distortion 'attn.data:Config'"),
        ({"transforms": {"pad_crop": {}}}, "'pad_crop'; did you mean 'pad_crop_flip'"),
        (
            {"transforms": ["flip"]},
            r"data.transforms must be a mapping, got \['flip'\]",
        ),
        ({"name": "photos", "distortion": "r"}, "unknown setting .*'distortion'"),
        ({"image_size": "32"}, "'image_size' .* must be .*int.*got '32'"),
        ({"image_size": 0}, "'image_size' .* must be a positive int or None, got 0"),
        ({"train": 3}, "'train' .* must be str, got 3"),
        ({"train": "trian"}, "'trian'; did you mean 'train'.*test, train"),
        ({"test": ""}, "needs a test split, got ''"),
        ({"name": None}, "needs a name such as 'mnist_5k', got None"),
        ({"name": "mnist5k", "distortion": "r"}, "'mnist5k'; did you mean 'mnist_5k'"),
        ({"name": "mnist5k"}, "unknown data set 'mnist5k'; did you mean 'mnist_5k'"),
        ({"distortion": "r", "image_size": 28}, "image_size must be None, got 28"),
        ({"composition": "scenes"}, "'scenes'; did you mean 'scene'.*none, addition"),
        ({"composition": "number", "image_size": 64}, "must be None, got 64"),
        ({"composition": "scene", "distortion": "r"}, "must be 'none', got 'r'"),
        ({"composition": "addition", "canvas": 64}, "canvas None, got 64"),
        ({"composition": "number", "canvas": 8}, "32 pixels or more, got 8"),
        (
            {"canvas": 64},
            "canvas 64 needs a composition .*addition, number, odd_one_out, scene",
        ),
        ({"composition": "number", "source": "photos"}, "28x28 .*'photos' are 48x48x3"),
        ({"name": "digits_scene", "composition": "number"}, "'scene', got 'number'"),
        ({"name": "digit_scene"}, "'digit_scene'; did you mean 'digits_scene'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(directory, config, message):
    with pytest.raises(ValueError, match=message) as error:
        opened(directory, **config)
    assert "\n" not in str(error.value)


def test_importing_is_light():
    code = """
import sys
import attn
before = set(sys.modules)
import attn.data
heavy = {"tensorflow_datasets", "grain", "mlxtend", "pandas", "skimage", "sklearn"}
heavy |= {"babel", "tokenizers"}
print(heavy & set(sys.modules) - before)
"""
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert out == "set()\n"
