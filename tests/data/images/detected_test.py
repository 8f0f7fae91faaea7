"""Detection sets of TFDS: boxes of images of unlike size, from disk to batches."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from attn import data, settings
from attn.data import prepare
from attn.data.images import detected
from tests.data.streams import check_resumes_and_is_cut_alike, taken

SIZES = [(40, 61), (50, 33), (37, 37), (64, 90), (30, 51), (82, 41), (40, 61)]
BACK, COLOURS = 30, [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
NAMES = ["red", "green", "blue"]


def boxes_of(row):
    """Boxes (x0, y0, x1, y1) in pixels of an example; a few of them, or none."""
    height, width = SIZES[row]
    random = np.random.default_rng(row)
    low = random.integers(0, [width // 2, height // 2], (row % 4, 2))
    return np.concatenate([low, low + random.integers(8, 15, low.shape)], axis=1)


def image_of(row):
    """A dark image with a rectangle in each box, of the colour of its class."""
    image = np.full((*SIZES[row], 3), BACK, np.uint8)
    for k, (x0, y0, x1, y1) in enumerate(boxes_of(row)):
        image[y0:y1, x0:x1] = COLOURS[k]
    return image


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()


class Things(tfds.core.GeneratorBasedBuilder):
    """Rectangles, in the form of COCO; TFDS itself checks no `Tensor` of four."""

    VERSION = tfds.core.Version("1.0.0")
    name = "test_things"
    bbox = tfds.features.BBoxFeature()

    def _info(self):
        objects = {
            "area": np.int64,
            "bbox": self.bbox,
            "is_crowd": np.bool_,
            "label": tfds.features.ClassLabel(names=NAMES),
        }
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(objects),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "test": self._generate_examples()}

    def _generate_examples(self):
        for row in range(len(SIZES)):
            height, width = SIZES[row]
            objects = [
                {
                    "area": 100 * row + k,
                    "bbox": tfds.features.BBox(
                        y0 / height, x0 / width, y1 / height, x1 / width
                    ),
                    "is_crowd": k == 2,
                    "label": k,
                }
                for k, (x0, y0, x1, y1) in enumerate(boxes_of(row).tolist())
            ]
            yield row, self.example(row, objects)

    def example(self, row, objects):
        return {
            "image": png(image_of(row)),
            "image/filename": f"{row}.png",
            "objects": objects,
        }


class Voc(Things):
    """Boxes without areas and crowds, one without area, one that reaches out."""

    name = "test_voc"
    bbox = tfds.features.Tensor(shape=(4,), dtype=np.float32)

    def _info(self):
        info = super()._info()
        del info.features["objects"].feature._feature_dict["area"]
        del info.features["objects"].feature._feature_dict["is_crowd"]
        return info

    def example(self, row, objects):
        boxes = [[0.5, 0.25, 1.5, 0.75], [0.1, 0.2, 0.1, 0.6], [0.2, 0.9, 0.4, 0.1]]
        objects = [{"bbox": np.array(box, np.float32), "label": 1} for box in boxes]
        return super().example(row, objects[: 1 if row else 3])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("sets"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", place)
        for builder in (Things, Voc):
            made = builder(data_dir=place, file_format="array_record")
            made.download_and_prepare()
        yield place


def opened(sets, transforms=None, **more):
    config = {"name": "test_things", "directory": sets, "transforms": transforms or {}}
    return data.open({**config, **more})


def test_examples_are_read_as_they_are(sets):
    dataset = opened(sets)
    facts = dict(dataset.facts)
    assert facts.pop("max_objects").count == 3
    assert facts == {"num_classes": 3, "class_names": tuple(NAMES)}
    found = 0
    for batch in taken(dataset.split("test", 2)):
        assert batch["image"].shape[1] % 32 == 0 and batch["image"].shape[2] % 32 == 0
        for i in np.flatnonzero(batch["weight"]):
            height, width = batch["image_size"][i]
            row = _row(batch, i)
            expected = boxes_of(row)
            count = len(expected)
            assert batch["boxes_mask"][i].tolist() == [k < count for k in range(3)]
            np.testing.assert_allclose(batch["boxes"][i, :count], expected, atol=1e-4)
            assert (batch["boxes"][i, count:] == 0).all()
            assert batch["labels"][i].tolist() == [*range(count), *[-1] * (3 - count)]
            areas = [100 * row + k for k in range(count)]
            assert batch["boxes_area"][i].tolist() == areas + [0] * (3 - count)
            assert batch["boxes_crowd"][i].tolist() == [False, False, count == 3]
            real = batch["image_mask"][i]
            assert real[:height, :width].all() and real.sum() == height * width
            picture = 255 * dataset.picture(batch["image"][i, :height, :width])
            np.testing.assert_allclose(picture, image_of(row), atol=0.01)
            assert (batch["image"][i][~real] == 0).all()
            found += 1
    assert found == len(SIZES)


def test_the_image_with_the_most_objects_is_told_of_any_split(sets):
    for split in ("train", "test"):  # of three objects there is one, 3.png
        parts = [f"{split}[{k}:{k + 1}]" for k in range(len(SIZES))]
        counts = [
            opened(sets, train=part, test=part).facts["max_objects"] for part in parts
        ]
        few, full = min(counts), max(counts)
        assert (few.count, full.count) == (1, 3)
        few, full = (parts[counts.index(most)] for most in (few, full))
        for train, test in ((few, full), (full, few)):
            found = opened(sets, train=train, test=test).facts["max_objects"]
            where = f"example 0 (3.png) of data set 'test_things', split {full!r}"
            assert found == (3, where)


def _row(batch, i):
    """The number of an example that TFDS has shuffled, by its areas or its size."""
    if batch["boxes_mask"][i].any():
        return int(batch["boxes_area"][i, 0]) // 100
    size = tuple(batch["image_size"][i].tolist())
    return next(r for r in (0, 4) if SIZES[r] == size)


AUGMENTED = {
    "flip": {"order": 1},
    "multi_scale": {
        "order": 2,
        "sides": (64, 80, 100),
        "longest": 180,
        "before": (50, 60),
        "parts": (30, 50),
        "shorter": 90,
    },
}


def test_boxes_follow_the_pixels_of_augmented_images(sets):
    dataset, seen, gone, sizes = opened(sets, AUGMENTED), 0, 0, set()
    for batch in taken(dataset.train(4, seed=1), 40):
        sizes.add(batch["image"].shape[1:3])
        colours = 255 * dataset.picture(batch["image"])
        for i in range(4):
            for k in range(3):
                shown = (colours[i, ..., k] > 140) & batch["image_mask"][i]
                box = batch["boxes"][i, k]
                if not batch["boxes_mask"][i, k]:
                    assert not shown.any() and batch["labels"][i, k] == -1
                    gone += 1
                    continue
                rows, columns = np.nonzero(shown)
                hidden = k < batch["boxes_mask"][i].sum() - 1  # by the next, perhaps
                if (box[2:] - box[:2]).min() > 8 and not hidden:
                    tight = [columns.min(), rows.min()]
                    tight += [columns.max() + 1, rows.max() + 1]
                    np.testing.assert_allclose(box, tight, atol=2.5)
                    seen += 1
    assert seen > 50 and gone > 50 and 3 < len(sizes) <= 16


def test_batches_are_functions_of_seed_and_number(sets):
    check_resumes_and_is_cut_alike(opened(sets, AUGMENTED), 5, 3)


def test_all_images_of_one_size_need_no_mask(sets):
    dataset = opened(sets, {"resize_pad": {"size": 48}})
    assert "image_mask" not in dataset.example()
    (batch, *_) = taken(dataset.train(3, seed=0), 1)
    assert batch["image"].shape == (3, 48, 48, 3) and batch["boxes"].max() <= 48


def test_evaluation_has_the_shorter_side_of_the_paper(sets):
    dataset = opened(sets, AUGMENTED)
    for batch in taken(dataset.split("test", 3)):
        for mask, size in zip(batch["image_mask"], batch["image_size"], strict=True):
            height, width = mask.any(axis=1).sum(), mask.any(axis=0).sum()
            # 82 x 41 would be 180 x 90
            assert min(height, width) == 90 and mask.sum() == height * width
            assert width / height == pytest.approx(size[1] / size[0], rel=0.02)


def test_boxes_are_cut_off_at_the_edge_and_left_out_without_area(sets, capsys):
    dataset = opened(sets, name="test_voc")
    said = capsys.readouterr().err
    assert "data set 'test_voc', split 'train': 2 boxes without area are left" in said
    assert dataset.facts["max_objects"].count == 1
    for batch in taken(dataset.split("test", 4)):
        height, width = batch["image_size"].T
        edges = np.stack([width / 4, height / 2, width * 3 / 4, height], axis=1)
        np.testing.assert_allclose(batch["boxes"][:, 0], edges, rtol=1e-6)
        area = np.prod(edges[:, 2:] - edges[:, :2], axis=1)
        np.testing.assert_allclose(batch["boxes_area"][:, 0], area, rtol=1e-5)
        assert not batch["boxes_crowd"].any()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"bbox": [[0.1, float("nan"), 0.3, 1.0]]}, r"\(0.1, nan, 0.3, 1\) .* finite"),
        ({"bbox": [[0.1, 0.2, float("inf"), 1.0]]}, "object 0 .* is not finite"),
        ({"bbox": [[10.0, 20.0, 30.0, 40.0]]}, "lies outside of the image: ymin"),
        ({"bbox": [[-0.5, 0.1, -0.1, 0.4]]}, "lies outside of the image"),
        ({"label": [3]}, "label 3 of object 0 in example 7 .* none of the 3 classes"),
        ({"label": [-1]}, "label -1 of object 0 .* classes 0 to 2"),
        ({"image": b"no picture"}, "image of example 7 .* cannot be read: cannot iden"),
    ],
)
def test_what_is_wrong_is_named_when_a_set_is_opened(change, message):
    record = {"image": png(image_of(0)), "image/filename": b"seven.png"}
    objects = {"bbox": [[0.1, 0.2, 0.3, 1.0]], "label": [1]}
    changed = {**objects, **change}
    record |= {"image": changed.pop("image", record["image"]), "objects": changed}
    called = detected._called("data set 'x', split 'train'", 7, record)
    with pytest.raises(settings.Invalid, match=message) as error:
        detected._objects(called, record, 3)
    assert "example 7 (seven.png) of data set 'x', split 'train'" in str(error.value)


def test_a_broken_picture_is_named_when_it_is_read(sets):
    split = detected.open_split(
        "test_things", "test", prepare.builder("test_things", sets)
    )
    record = {"image": png(image_of(0))[:100], "image/filename": b"seven.png"}
    with pytest.raises(settings.Invalid, match=r"the image seven\.png cannot be read"):
        split._images([record])


def test_what_does_not_fit_a_detection_set_is_refused(sets):
    with pytest.raises(settings.Invalid, match=r"boxes and stay whole.*got 32"):
        opened(sets, image_size=32)
    with pytest.raises(settings.Invalid, match=r"unknown split .* 'trian'"):
        opened(sets, train="trian")
    for name in ("crop", "pad_crop_flip"):
        with pytest.raises(settings.Invalid, match=r"'image' differ in size"):
            opened(sets, {name: {}})


def test_a_split_is_scanned_once(sets, monkeypatch):
    opened(sets)
    detected._open.cache_clear()
    monkeypatch.setattr(detected, "_scanned", None)
    opened(sets)
