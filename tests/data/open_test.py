"""attn.data.open: configs that fit, and one clear sentence for those that do not."""

import subprocess
import sys

import ml_collections
import pytest

from attn import data


def opened(directory, **config):
    return data.open({"name": "mnist_5k", "directory": directory, **config})


@pytest.mark.parametrize(
    "config, shape",
    [
        ({}, (28, 28, 1)),
        ({"distortion": "r"}, (28, 28, 1)),
        ({"distortion": "rts"}, (42, 42, 1)),
        ({"distortion": "tc"}, (60, 60, 1)),
        ({"image_size": 32, "augment": "pad_crop_flip"}, (32, 32, 1)),
    ],
)
def test_shape_of_the_images(directory, config, shape):
    assert opened(directory, **config).image_shape == shape


def test_a_config_dict_will_do(directory):
    config = ml_collections.ConfigDict({"name": "mnist_5k", "directory": directory})
    assert data.open(config).train_size == 4000


@pytest.mark.parametrize(
    "config, message",
    [
        ({"distorsion": "r"}, "'distorsion'; did you mean 'distortion'"),
        ({"distortion": "rst"}, "distortion 'rst'; did you mean 'rts'.*none, e, p, r"),
        ({"distortion": "attn.data:Config"}, "unknown distortion 'attn.data:Config'"),
        ({"augment": "pad_crop"}, "'pad_crop'; did you mean 'pad_crop_flip'"),
        ({"image_size": "32"}, "'image_size' .* must be .*int.*got '32'"),
        ({"image_size": 0}, "image_size must be positive, got 0"),
        ({"train": 3}, "'train' .* must be str, got 3"),
        ({"train": "trian"}, "'trian'; did you mean 'train'.*test, train"),
        ({"name": None}, "needs a name such as 'mnist_5k', got None"),
        ({"name": "mnist5k"}, "unknown data set 'mnist5k'; did you mean 'mnist_5k'"),
        ({"distortion": "r", "augment": "pad_crop_flip"}, "augment must be 'none'"),
        ({"distortion": "r", "image_size": 28}, "image_size None.* and 28"),
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
print({"tensorflow_datasets", "grain", "mlxtend", "pandas"} & set(sys.modules) - before)
"""
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert out == "set()\n"
