"""Persons of COCO: pictures whose colours are places tell where a joint was seen."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import cocoeval

from attn import data, settings
from attn.data.images import boxed, coco_keypoints
from attn.data.images.coco_keypoints import JOINTS, CocoKeypoints

SIZES = [(160, 200), (110, 90), (64, 101)]  # height and width of pictures
EXACT = {"margin": 0.0, "shift": 0.0, "scale": 0.0, "size": (64, 48)}


def picture(number):
    """Red is the column, green the row and blue the number of the picture."""
    row, column = np.indices(SIZES[number])
    blue = np.full(SIZES[number], 10 * number + 5)
    return np.stack([column, row, blue], axis=-1).astype(np.uint8)


def person(number, name, *, seed, joints=9, **given):
    """A person somewhere in a picture, with some labelled joints in the box."""
    random = np.random.default_rng(seed)
    height, width = SIZES[number]
    low = random.uniform(8, [width / 3, height / 3])
    sides = random.uniform([width / 4, height / 4], [width / 2, height / 2])
    keypoints = np.zeros((17, 3), int)
    chosen = random.permutation(17)[:joints]
    keypoints[chosen, :2] = random.uniform(low, low + sides, (joints, 2)).astype(int)
    keypoints[chosen, 2] = random.integers(1, 3, joints)
    found = {
        "id": name,
        "image_id": 70 + number,
        "category_id": 1,
        "bbox": [*low.tolist(), *sides.tolist()],
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": joints,
        "area": 1000.0 + name,
        "iscrowd": 0,
    }
    return found | given


PEOPLE = [
    person(0, 1, seed=1),
    person(1, 2, seed=2, joints=17),
    person(0, 3, seed=3, joints=1),
    person(2, 4, seed=4, iscrowd=1),
    person(2, 5, seed=5, joints=0),
    person(2, 6, seed=6),
    person(1, 7, seed=7, bbox=[20.0, 20.0, 0.0, 30.0]),
]
del PEOPLE[5]["area"]
KEPT = [PEOPLE[0], PEOPLE[1], PEOPLE[2], PEOPLE[5]]


def written(root, name="train2017", people=PEOPLE, ending="png"):
    """A folder in the form of COCO."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / name).mkdir()
    images = []
    for number, (height, width) in enumerate(SIZES):
        file = f"{number:012}.{ending}"
        Image.fromarray(picture(number)).save(root / name / file)
        images.append(
            {"id": 70 + number, "file_name": file, "height": height, "width": width}
        )
    content = {"images": images, "annotations": people}
    file = root / "annotations" / f"person_keypoints_{name}.json"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("coco")
    written(place)
    written(place, "val2017", [person(1, 8, seed=8)], "jpg")
    return place


def read(root, draws=None, split="train", **given):
    source = CocoKeypoints(path=str(root), **{**EXACT, **given}).open(split)
    rows = np.arange(source.size)
    draws = np.full((source.size, 3), 0.5) if draws is None else draws[: source.size]
    return source.read(rows, draws)


def persons(batch):
    """The person of each row, known by the places of joints in the picture."""
    found = []
    for image, joints, there in zip(
        batch["image"], batch["keypoints"], batch["visible"], strict=True
    ):
        places = [seen(image, joint)[:2] for joint in joints[there]]
        likely = [np.reshape(p["keypoints"], (17, 3)) for p in KEPT]
        errors = [
            np.abs(places - p[there, :2]).max() if p[there, 2].all() else np.inf
            for p in likely
        ]
        found.append(int(np.argmin(errors)))
    return found


def seen(image, joint):
    """The colour of an image at a place, between its pixels, in float64."""
    (x, y), image = joint - 0.5, image.astype(np.float64)
    x, y = np.clip(x, 0, image.shape[1] - 1.001), np.clip(y, 0, image.shape[0] - 1.001)
    column, row = int(x), int(y)
    a, b = x - column, y - row
    rows = (1 - b) * image[row] + b * image[row + 1]
    return (1 - a) * rows[column] + a * rows[column + 1]


@pytest.mark.parametrize("size", [(64, 48), (150, 200), (25, 18)])
def test_joints_are_seen_where_they_are_said_to_be(root, size):
    draws = np.random.default_rng(9).random((9, 3))
    jitter = {"margin": 0.2, "shift": 0.1, "scale": 0.3}
    for batch in (read(root, size=size), read(root, draws, size=size, **jitter)):
        assert (
            batch["image"].shape == (4, *size, 3) and batch["image"].dtype == np.uint8
        )
        whole, off = persons(batch), []
        assert sorted(whole) == [0, 1, 2, 3]
        for i, number in enumerate(whole):
            truth = np.reshape(KEPT[number]["keypoints"], (17, 3))
            assert not batch["visible"][i, truth[:, 2] == 0].any()
            assert (batch["keypoints"][i, truth[:, 2] == 0] == 0).all()
            where = batch["keypoints"][i]
            inside = (where >= 1) & (where <= np.array(size[::-1]) - 1)
            for joint in np.flatnonzero(batch["visible"][i] & inside.all(axis=1)):
                colour = seen(batch["image"][i], where[joint])
                off.append(colour[:2] - truth[joint, :2])
            blue = 10 * (KEPT[number]["image_id"] - 70) + 5
            middle = batch["image"][i, size[0] // 2, size[1] // 2]
            assert middle[2] == blue
        assert len(off) > 25 and np.abs(off).max() < 0.6  # colours are whole numbers
        np.testing.assert_allclose(np.mean(off, axis=0), 0, atol=0.2)


def test_the_crop_is_the_box_made_to_the_shape(root):
    batch = read(root)
    for image, number, area in zip(
        batch["image"], persons(batch), batch["area"], strict=True
    ):
        x, y, width, height = KEPT[number]["bbox"]
        pixel = max(width / 48, height / 64)
        middle = np.array([x + width / 2, y + height / 2])
        found = image[31:33, 23:25, :2].mean(axis=(0, 1))
        np.testing.assert_allclose(found, middle - 0.5, atol=0.6)
        step = (image[20:-20, -10, 0].astype(float) - image[20:-20, 10, 0]).mean() / 28
        assert step == pytest.approx(pixel, rel=0.03)
        outline = KEPT[number].get("area", boxed.PERSON * width * height)
        assert area == pytest.approx(outline / pixel**2, rel=1e-5)


def test_beyond_the_picture_it_is_black(root, tmp_path):
    across = person(1, 9, seed=9, bbox=[50.0, 70.0, 100.0, 100.0])  # 90x110
    written(tmp_path, people=[across])
    batch = read(tmp_path, margin=0.25)
    # cut off at the edges, the box is (50, 70) to (90, 110), and wider for the shape
    pixel = 1.25 * 40 / 48
    columns = 50 + 20 + pixel * (np.arange(48) + 0.5 - 24)
    rows = 70 + 20 + pixel * (np.arange(64) + 0.5 - 32)
    blue = batch["image"][0, ..., 2].astype(int)
    inside = (rows < 108)[:, None] & (columns < 88)
    outside = (rows > 112)[:, None] | (columns > 92)
    assert inside.any() and outside.any()
    assert (blue[inside] == 15).all() and (blue[outside] == 0).all()


def test_where_joints_would_be_if_the_detector_were_right(root):
    draws = np.random.default_rng(3).random((2, 9, 3))
    right = read(root, draws[0], margin=0.1)
    for name, centred in (("keypoints", "centred"), ("visible", "centred_visible")):
        np.testing.assert_array_equal(right[name], right[centred])
    for some in draws:
        wrong = read(root, some, margin=0.1, shift=0.4, scale=0.3)
        np.testing.assert_array_equal(wrong["centred"], right["centred"])
        np.testing.assert_array_equal(wrong["centred_visible"], right["visible"])
        assert np.abs(wrong["keypoints"] - right["keypoints"]).max() > 1


def test_splits_have_no_picture_in_common(root, capsys):
    coco_keypoints._opened.cache_clear()
    dataset = data.open({"name": "coco_keypoints", "path": str(root), "train": "fit"})
    assert "1 boxes without area are left out" in capsys.readouterr().err
    with dataset.split("test", 1) as batches:
        assert next(batches)["image"].shape == (1, 256, 192, 3)
    pictures = [
        {int(b) for b in read(root, split=split)["image"][:, 32, 24, 2]}
        for split in ("fit", "validation", "train")
    ]
    assert not pictures[0] & pictures[1] and pictures[0] | pictures[1] == pictures[2]
    assert dataset.facts["joint_names"] == JOINTS and dataset.facts["num_joints"] == 17
    assert dataset.facts["heads"] is False and (read(root)["head"] == 0).all()
    with pytest.raises(settings.Invalid, match=r"unknown split .*'val'.*validation"):
        read(root, split="val")


def test_joints_are_those_of_coco():
    sigmas = cocoeval.Params("keypoints").kpt_oks_sigmas
    np.testing.assert_allclose(coco_keypoints.SIGMAS, sigmas)
    assert JOINTS[:3] == ("nose", "left_eye", "right_eye") and len(JOINTS) == 17
    assert JOINTS[13:] == ("left_knee", "right_knee", "left_ankle", "right_ankle")
    named = {frozenset((JOINTS[a], JOINTS[b])) for a, b in coco_keypoints.LIMBS}
    assert len(named) == 19 and {"left_knee", "left_ankle"} in named
    mirrored = {frozenset(map(_mirrored, pair)) for pair in named}
    assert mirrored == named


def _mirrored(joint):
    side, _, rest = joint.partition("_")
    return {"left": "right_", "right": "left_"}.get(side, side) + rest


def test_what_is_wrong_is_one_sentence(root, tmp_path):
    with pytest.raises(settings.Invalid, match="needs path, the folder"):
        CocoKeypoints().open("train")
    with pytest.raises(settings.Invalid, match=r"folder '.*gone' .* is not there"):
        read(tmp_path / "gone")
    with pytest.raises(settings.Invalid, match=r"points_x\.json cannot be read: No su"):
        read(root, training="x")
    file = written(tmp_path, people=[PEOPLE[0]])
    (tmp_path / "train2017" / f"{0:012}.png").write_bytes(b"nothing")
    with pytest.raises(settings.Invalid, match=r"0\.png cannot be read: cannot id"):
        read(tmp_path)
    for content, message in (
        ("{", "is no JSON: Expecting"),
        ("[]", "not in the form of COCO's keypoints"),
        ('{"images": []}', "KeyError 'annotations'"),
        ('{"images": [], "annotations": []}', "no person with a labelled joint"),
    ):
        coco_keypoints._opened.cache_clear()
        file.write_text(content)
        with pytest.raises(settings.Invalid, match=message):
            read(tmp_path)
    (tmp_path / "two").mkdir()
    file = written(tmp_path / "two", people=PEOPLE[:2])
    (tmp_path / "two" / "train2017" / f"{1:012}.png").unlink()
    with pytest.raises(settings.Invalid, match=r"1\.png is not there, and .* 1 of 2"):
        read(tmp_path / "two")
    short = PEOPLE[0] | {"keypoints": [1, 2, 2]}
    file.write_text(file.read_text().replace(json.dumps(PEOPLE[0]), json.dumps(short)))
    with pytest.raises(settings.Invalid, match="with 17 joints: ValueError"):
        read(tmp_path / "two")
