"""Parts of splits, against TFDS itself."""

import pytest
import tensorflow_datasets as tfds

from attn import settings
from attn.data import splits

SIZES = {"train": 37, "test": 8}


@pytest.mark.parametrize(
    "split",
    [
        *("train", "test", "train[:90%]", "train[90%:]", "train[10:25]", "train[-5:]"),
        *("train[:-5]", "train[33%:40%]", "test[7:8]", "train[-10%:]"),
    ],
)
def test_parts_are_those_of_tfds(split):
    infos = {
        name: tfds.core.SplitInfo(
            name=name, shard_lengths=[size], num_bytes=0, filename_template=None
        )
        for name, size in SIZES.items()
    }
    (expected,) = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    name, rows = splits.part(split, SIZES, "digits")
    assert name == expected.splitname
    start, stop = expected.from_ or 0, expected.to
    assert rows == range(start, SIZES[name] if stop is None else stop)


@pytest.mark.parametrize(
    "split, message",
    [
        ("trian", "'trian'; did you mean 'train'.*valid: test, train, parts such as"),
        ("train[:x]", "unknown split of data set 'digits'"),
        ("", "unknown split"),
        ("train[5:5]", r"split 'train\[5:5\]' of data set 'digits' is empty"),
        ("train[40:]", "is empty"),
        ("test[7:100]", r"'test\[7:100\]' .* reaches beyond its 8 examples"),
        ("test[-9:]", "reaches beyond its 8 examples"),
    ],
)
def test_what_is_no_part_is_refused(split, message):
    with pytest.raises(settings.Invalid, match=message):
        splits.part(split, SIZES, "digits")
