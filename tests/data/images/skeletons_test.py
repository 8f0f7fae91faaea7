"""Stick figures: joints are where they are drawn, and boxes err as they should."""

import itertools
import math

import numpy as np
import pytest

from attn import data, settings
from attn.data.images import augment, boxed, geometry, skeletons
from attn.data.images.skeletons import JOINTS, Skeletons

COUNT, MIDDLE = 60, np.full((60, 3), 0.5)
LARGE = {"size": (128, 90), "clutter": 0}
ENDS = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]
TIGHT = {**LARGE, "margin": 0.0, "shift": 0.0, "scale": 0.0}


def made(draws=MIDDLE, split="train", rows=None, **given):
    rows = np.arange(COUNT) if rows is None else rows
    return Skeletons(**given).open(split).read(rows, draws)


def at(joint):
    return JOINTS.index(joint)


def test_joints_are_where_they_are_drawn():
    batch, above = made(size=(200, 130), clutter=0), []
    for image, points in zip(batch["image"], batch["keypoints"], strict=True):
        top, neck = points[at("head")], points[at("neck")]
        places = np.vstack([points[1:], top + (neck - top) / 10]).astype(int)
        seen = image[places[:, 1], places[:, 0]]
        np.testing.assert_allclose(seen, np.broadcast_to(seen[:1], seen.shape))
        assert seen.max() == 255
        x, y = (top - (neck - top) / 10).astype(int)
        above.append(image[y, x].max())
    assert np.mean(np.array(above) <= 150) > 0.9  # but where an arm is there
    assert batch["visible"].all()


def test_without_errors_and_margin_the_figure_just_fills_the_crop():
    batch = made(np.random.default_rng(0).random((COUNT, 3)), **TIGHT)
    height, width = TIGHT["size"]
    for image in batch["image"]:
        rows, columns = np.nonzero(image.max(axis=-1) > 240)
        gaps = [rows.min(), height - 1 - rows.max()]
        gaps += [columns.min(), width - 1 - columns.max()]
        assert min(gaps) <= 1
        assert abs(gaps[0] - gaps[1]) <= 2 and abs(gaps[2] - gaps[3]) <= 2
        # the limits of the ink, and of what the crop was made for
        assert max(gaps[:2]) <= 1 or max(gaps[2:]) <= 1
    tight = ((batch["area"] / boxed.PERSON)[:, None] / (height * width)).max()
    assert tight <= 1


def test_boxes_err_by_a_shift_and_a_scale():
    draws = np.random.default_rng(1).random((COUNT, 3))
    given = {**TIGHT, "shift": 0.15, "scale": 0.3}
    right, wrong = made(**TIGHT), made(draws, **given)
    spread = [b["keypoints"].std(axis=1) for b in (right, wrong)]
    larger = spread[1] / spread[0]
    np.testing.assert_allclose(larger[:, 0], larger[:, 1], rtol=1e-4)
    factor = 1 / np.exp((2 * draws[:, 2] - 1) * math.log(1.3))
    np.testing.assert_allclose(larger[:, 0], factor, rtol=1e-4)
    np.testing.assert_allclose(wrong["head"] / right["head"], factor, rtol=1e-4)
    np.testing.assert_allclose(wrong["area"] / right["area"], factor**2, rtol=1e-4)
    size = np.array(TIGHT["size"][::-1])
    middle = right["keypoints"] - size / 2
    moved = factor[:, None] * 0.15 * (2 * draws[:, :2] - 1) * size
    expected = factor[:, None, None] * middle - moved[:, None] + size / 2
    np.testing.assert_allclose(wrong["keypoints"], expected, atol=1e-3)
    outside = (expected < 0) | (expected >= size)
    np.testing.assert_array_equal(wrong["visible"], ~outside.any(axis=-1))
    assert 0.7 < wrong["visible"].mean() < 0.999


def test_the_margin_enlarges_the_box():
    right, wide = made(**TIGHT), made(**{**TIGHT, "margin": 0.25})
    np.testing.assert_allclose(right["head"] / wide["head"], 1.25, rtol=1e-5)
    middle = np.array(TIGHT["size"][::-1]) / 2
    expected = (right["keypoints"] - middle) / 1.25 + middle
    np.testing.assert_allclose(wide["keypoints"], expected, atol=1e-3)


def test_where_joints_would_be_if_the_detector_were_right():
    given = {**LARGE, "margin": 0.0}  # so that joints are at the edge
    draws = np.random.default_rng(2).random((2, COUNT, 3))
    right = made(draws[0], **{**given, "shift": 0.0, "scale": 0.0})
    for name, centred in (("keypoints", "centred"), ("visible", "centred_visible")):
        np.testing.assert_array_equal(right[name], right[centred])
    one, other = (made(d, **{**given, "shift": 0.4, "scale": 0.5}) for d in draws)
    for name in ("centred", "centred_visible"):
        np.testing.assert_array_equal(one[name], right[name])
        np.testing.assert_array_equal(other[name], right[name])
        assert one[name].dtype == right[name].dtype
    assert (one["visible"] != one["centred_visible"]).mean() > 0.05
    wide = made(draws[0], **{**given, "margin": 0.25, "shift": 0.4})
    middle = np.array(LARGE["size"][::-1]) / 2
    expected = (right["centred"] - middle) / 1.25 + middle
    np.testing.assert_allclose(wide["centred"], expected, atol=1e-3)


def test_bones_have_their_lengths_and_the_head_its_size():
    batch = made(**TIGHT)
    points, head = batch["keypoints"].astype(np.float64), batch["head"]
    # the diagonal of the square around the disc, by 0.6, of which HEAD follows
    unit = head / (0.6 * math.hypot(2, 2) * skeletons.DISC * skeletons.HEAD)
    length = lambda a, b: np.linalg.norm(points[:, at(a)] - points[:, at(b)], axis=1)
    for side in ("left", "right"):
        for ends, bone in zip(ENDS, skeletons.BONES, strict=True):
            found = length(*(f"{side}_{end}" for end in ends))
            np.testing.assert_allclose(found, bone * unit, rtol=1e-4)
    np.testing.assert_allclose(length("head", "neck"), 0.18 * unit, rtol=1e-4)
    across = points[:, at("left_hip")] - points[:, at("right_hip")]
    assert (across[:, 0] > 0).all()  # they face the viewer
    assert len(skeletons.SIGMAS) == len(JOINTS) == 14


def test_a_figure_is_that_of_its_row_and_of_no_other_split():
    whole, rows = made(), np.array([41, 7])
    some = made(MIDDLE[:2], rows=rows)
    for name, value in some.items():
        np.testing.assert_array_equal(value, whole[name][rows])
    part = made(MIDDLE[:2], "train[7:60]", rows=np.array([34, 0]))
    np.testing.assert_array_equal(part["image"], some["image"])
    others = [made(split=split)["keypoints"] for split in ("validation", "test")]
    poses = [whole["keypoints"], *others]
    for one, other in itertools.combinations(poses, 2):
        assert np.abs(one[:, None] - other[None]).max(axis=(2, 3)).min() > 0.1


def test_clutter_is_bright_and_behind_the_figure():
    plain, full = made(**LARGE), made(**{**LARGE, "clutter": 30})
    bright = [(b["image"].max(axis=-1) > 240).mean() for b in (plain, full)]
    assert bright[1] > 1.5 * bright[0]
    for image, points in zip(full["image"], full["keypoints"], strict=True):
        x, y = points[1:].astype(int).T
        seen = image[y, x]
        np.testing.assert_allclose(seen, np.broadcast_to(seen[:1], seen.shape))


def test_transforms_that_would_leave_keypoints_behind_are_refused():
    for name, given in (("crop", {"size": 20}), ("pad_crop_flip", {})):
        config = {"name": "skeletons", "train_size": 4, "transforms": {name: given}}
        with pytest.raises(settings.Invalid, match="does not move keypoints"):
            data.open(config)


@pytest.mark.parametrize("draws", [0.2, 0.8])
def test_left_and_right_change_places_in_a_mirror(draws):
    source = Skeletons(**LARGE).open("train")
    random = np.random.default_rng(3)
    rows, numbers = np.arange(3), random.random((3, source.draws))
    batch, want = (source.read(rows, numbers) for _ in range(2))
    for seen in ("visible", "centred_visible"):
        want[seen] = random.random((3, len(JOINTS))) < 0.5
        batch[seen] = want[seen].copy()
    chosen = np.array([True, False, True])
    flip = augment.Flip(probability=0.5).bound(source)
    found = flip.apply(batch, np.where(chosen, draws, 1 - draws)[:, None])
    chosen = chosen if draws < 0.5 else ~chosen
    width, names = want["image"].shape[2], source.facts["joint_names"]
    np.testing.assert_array_equal(
        found["image"][chosen], want["image"][chosen, :, ::-1]
    )
    np.testing.assert_array_equal(found["image"][~chosen], want["image"][~chosen])
    for points, seen in (("keypoints", "visible"), ("centred", "centred_visible")):
        for joint, name in enumerate(names):
            side, _, rest = name.partition("_")
            other = {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)
            there = names.index(other)
            x, y = np.moveaxis(want[points][chosen, there], -1, 0)
            mirrored = np.stack([width - x, y], axis=-1)
            np.testing.assert_array_equal(found[points][chosen, joint], mirrored)
            same = want[seen][chosen, there]
            np.testing.assert_array_equal(found[seen][chosen, joint], same)
        for field in (points, seen):
            np.testing.assert_array_equal(found[field][~chosen], want[field][~chosen])


def test_a_joint_without_a_counterpart_is_named():
    assert geometry.other_sides(["left_eye", "nose", "right_eye"]) == (2, 1, 0)
    with pytest.raises(settings.Invalid, match="'left_eye' has no 'right_eye'"):
        geometry.other_sides(["left_eye", "nose"])
