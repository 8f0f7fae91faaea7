"""Images with captions: their words, what is left out, cut, unknown, and refused."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from attn import data, settings
from attn.data.images import captioned

TEXTS = {
    "train": [
        ["A dog, a ball.", "The DOG's ball", "..."],
        ["a cat"],
        ["a a a a dog runs far away"],
    ],
    "val": [["A zebra!", "a dog"]],
    "bad": [["?!"]],
}


class Named(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    name = "coco_captions"

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="png"),
                "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in TEXTS}

    def _generate_examples(self, split):
        for row, texts in enumerate(TEXTS[split]):
            file = io.BytesIO()
            shade = np.full((9 + row, 12, 3), 10 * len(texts), np.uint8)
            Image.fromarray(shade).save(file, "PNG")
            captions = [{"text": text} for text in texts]
            yield row, {"image": file.getvalue(), "captions": captions}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("sets"))
    Named(data_dir=place, file_format="array_record").download_and_prepare()
    return place


def opened(sets, **given):
    config = {"name": "coco_captions", "directory": sets, "test": "val", **given}
    return data.open({"image_size": 8, "longest": 6, "vocab_size": 9, **config})


def test_captions_are_words_with_start_and_end(sets, capsys):
    dataset = opened(sets)
    said = capsys.readouterr().err
    assert "1 captions without words left out" in said
    assert "1 captions cut to 5 words" in said and "unknown words" in said
    words = dataset.facts["tokenizer"]
    assert words.names[:6] == ("", "<start>", "<end>", "<unk>", "a", "dog")
    assert dataset.facts["vocab_size"] == words.vocab_size == 9
    with dataset.split("test", 1) as batches:
        batch = next(batches)
    assert batch["image"].shape == (1, 8, 8, 3)
    told = [" ".join(words.words(row)).strip() for row in batch["references"][0]]
    assert told == ["a <unk> <end>", "a dog <end>"]
    np.testing.assert_array_equal(batch["references_mask"], batch["references"] > 0)
    assert batch["target_in"][0, 0] == 1
    np.testing.assert_array_equal(batch["target_in"][:, 1:], batch["target"][:, :-1])


def test_each_time_one_of_the_captions_is_drawn(sets):
    seen = set()
    with opened(sets).train(3, seed=0) as batches:
        for _ in range(12):
            batch = next(batches)
            assert batch["target_mask"].any(axis=1).all()
            inside = (batch["references"] == batch["target"][:, None]).all(axis=-1)
            assert inside.any(axis=1).all()
            seen |= {tuple(row) for row in batch["target"].tolist()}
    assert len(seen) == 4  # those with words


def test_what_cannot_be_is_refused(sets):
    with pytest.raises(settings.Invalid, match="image 0 has no caption with words"):
        opened(sets, test="bad")
    with pytest.raises(settings.Invalid, match="vocab_size must be more than"):
        captioned.Captions(vocab_size=4)
    with pytest.raises(settings.Invalid, match="longest must be at least 2"):
        captioned.Captions(longest=1)
    features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
    with pytest.raises(settings.Invalid, match="is not one of captions"):
        captioned._check("x", features)
