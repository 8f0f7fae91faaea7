"""Augmentations against what torchvision and the papers describe."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from attn import data, settings
from attn.data.images import augment, geometry, patches, rescale
from attn.data.order import uniform
from attn.data.source import Field, abstract

LAST = 1 - 2**-53


def images(count, height=9, width=7, channels=3):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def applied(transform, batch, seed=1):
    """The batch, copied, under a transform, and the random numbers."""
    batch = {name: value.copy() for name, value in batch.items()}
    count = transform.draws(abstract(batch))
    draws = uniform(seed, 1, 0, len(batch["image"]), count)
    return transform.apply(batch, draws), draws


def test_pad_crop_flip_is_pad_crop_flip():
    batch = images(40)
    result, draws = applied(augment.PadCropFlip(), {"image": batch})
    for image, (u, v, flip), crop in zip(batch, draws, result["image"], strict=True):
        padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
        expected = padded[int(9 * u) : int(9 * u) + 9, int(9 * v) : int(9 * v) + 7]
        np.testing.assert_array_equal(
            crop, np.fliplr(expected) if flip < 0.5 else expected
        )
    corners = {tuple((draw[:2] * 9).astype(int)) for draw in uniform(1, 1, 0, 4000, 3)}
    assert len(corners) == 81  # every crop can happen, the outermost ones included


def marked(count=30, height=24, width=18):
    """Black images with a red and a blue rectangle, and their boxes around a gap."""
    random = np.random.default_rng(2)
    image = np.zeros((count, height, width, 3), np.uint8)
    boxes = np.zeros((count, 3, 4), np.float32)
    for one, frames in zip(image, boxes, strict=True):
        for channel in (0, 2):
            w, h = random.integers(4, 9, 2)
            x, y = random.integers(0, width - w), random.integers(0, height - h)
            one[y : y + h, x : x + w, channel] = 200
            frames[channel] = x, y, x + w, y + h
    mask = np.array([True, False, True])
    mask = np.broadcast_to(mask, (count, 3)).copy()
    objects = image[..., 0] == 200
    labels = np.where(mask, [4, 0, 7], -1)
    return {
        "image": image,
        "boxes": boxes,
        "boxes_mask": mask,
        "labels": labels,
        "objects": objects,
    }


# Transforms, and over how many pixels the edge of a rectangle fades.
FOLLOWED = {
    "flip": (augment.Flip(), 0),
    "crop": (augment.Crop(size=11), 0),
    "padded": (augment.Crop(padding=5), 0),
    "pad_crop_flip": (augment.PadCropFlip(), 0),
    "resized": (augment.RandomResizedCropFlip(size=64, area=(0.5, 1.0)), 3),
    "resize_pad": (augment.ResizePad(size=60), 1.5),
    "resize_shorter": (rescale.ResizeShorter(shorter=43, longest=50), 1.5),
    "multi_scale": (
        rescale.MultiScale(
            sides=(40, 61), longest=90, before=(30,), parts=(20, 40), shorter=47
        ),
        2,
    ),
}


def test_squares_take_their_objects_along_and_refuse_boxes():
    batch = marked()
    square = patches.Patches(size=15, fields=("image",))
    with pytest.raises(settings.Invalid, match="does not move 'boxes' along"):
        applied(square, batch)
    where = batch["objects"][..., None] * np.uint8(1)
    batch = {"image": np.repeat(where, 3, axis=-1), "objects": batch["objects"]}
    found, _ = applied(square, batch)
    assert found["objects"].shape == (len(where), 15, 15)
    np.testing.assert_array_equal(found["objects"], found["image"][..., 0] > 0)


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("train", [True, False])
def test_what_is_told_of_the_disk_is_left_out_of_parts_and_canvases(name, train):
    batch, (transform, _) = marked(), FOLLOWED[name]
    count = len(batch["image"])
    batch |= {
        "image_size": np.full((count, 2), 90, np.int32),
        "boxes_area": np.ones(batch["boxes_mask"].shape, np.float32),
    }
    if train or transform.splits == "all":
        found, _ = applied(transform, batch)
    else:
        found = transform.otherwise(batch)
    whole = name in ("flip", "resize_shorter", "multi_scale")
    whole |= name == "pad_crop_flip" and not train
    assert ("image_size" in found) == ("boxes_area" in found) == whole


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("train", [True, False])
def test_boxes_and_objects_follow_the_image(name, train):
    batch, (transform, fade) = marked(), FOLLOWED[name]
    if train or transform.splits == "all":
        found, _ = applied(transform, batch)
    else:
        found = transform.otherwise({key: v.copy() for key, v in batch.items()})
    assert found["boxes"].dtype == np.float32 and not found["boxes_mask"][:, 1].any()
    seen = 0
    for i, image in enumerate(found["image"]):
        for k in (0, 2):
            rows, columns = np.nonzero(image[..., k] >= 100)
            box, there = found["boxes"][i, k], found["boxes_mask"][i, k]
            if there and (box[2:] - box[:2]).min() > 2 * fade:
                tight = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                np.testing.assert_allclose(box, tight, atol=fade)
                seen += 1
            elif not there:
                assert (box == 0).all() and len(rows) == 0
            assert found["labels"][i, k] == ({0: 4, 2: 7}[k] if there else -1)
        wrong = found["objects"][i] ^ (image[..., 0] >= 100)
        assert wrong.sum() <= fade * 0.25 * (image[..., 0] >= 100).sum()
    assert seen > 40
    same = [
        np.array_equal(*pair)
        for pair in zip(found["image"], batch["image"], strict=True)
    ]
    assert not train or not (
        all(same) or np.array_equal(found["boxes"], batch["boxes"])
    )


def test_images_of_unlike_size_are_mirrored_with_their_boxes():
    batch = marked()
    random = np.random.default_rng(4)
    width = random.integers(10, 30, 30)
    whole = {**batch, "image": [np.zeros((12, n, 3), np.uint8) for n in width]}
    del whole["objects"]
    for image in whole["image"]:
        image[2:5, 1:4] = 200
    boxes = np.zeros((30, 3, 4), np.float32)
    boxes[:, 0] = 1, 2, 4, 5
    which = random.random(30) < 0.5
    found = geometry.mirror({**whole, "boxes": boxes}, ("image",), which)
    for i, image in enumerate(found["image"]):
        left = width[i] - 4 if which[i] else 1
        np.testing.assert_array_equal(found["boxes"][i, 0], [left, 2, left + 3, 5])
        assert (image[2:5, left : left + 3] == 200).all()


def test_evaluation_crops_the_centre():
    batch = {"image": images(3, 9, 7)}
    crops = augment.Crop(size=5).otherwise(batch)["image"]
    np.testing.assert_array_equal(crops, batch["image"][:, 2:7, 1:6])


def test_fields_are_cropped_alike():
    pair = {"image": images(20), "clean": images(20)}
    transform = augment.PadCropFlip(fields=("image", "clean"))
    found, _ = applied(transform, pair)
    np.testing.assert_array_equal(found["image"], found["clean"])
    alone, _ = applied(augment.PadCropFlip(), pair)
    assert not np.array_equal(alone["image"], alone["clean"])


def test_noise_has_its_deviation_and_may_leave_the_image_clean():
    batch = {"image": images(200, 9, 5)}
    found, _ = applied(augment.Noise(deviation=7.0, into="noisy"), batch)
    np.testing.assert_array_equal(found["image"], batch["image"])
    noise = found["noisy"] - batch["image"]
    assert noise.dtype == np.float32 and noise.std() == pytest.approx(7, rel=0.02)
    flat = noise.reshape(200, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(135)).max() < 0.4  # each pixel its own
    clean = augment.Noise(into="noisy").otherwise(batch)
    np.testing.assert_array_equal(clean["noisy"], batch["image"])


def test_noise_of_images_of_unlike_size_has_its_deviation_and_its_own_draws():
    images = [np.full((90, 70, 3), 100, np.uint8), np.full((60, 111, 3), 90, np.uint8)]
    noise = augment.Noise(deviation=7.0)
    example = {"image": Field((None, None, 3), np.dtype(np.uint8))}
    assert noise.draws(example) == 1
    draws = np.array([[0.25], [0.75]])
    found = noise.apply({"image": list(images)}, draws)["image"]
    again = noise.apply({"image": images[::-1]}, draws[::-1])["image"]
    for one, clean, other in zip(found, images, again[::-1], strict=True):
        assert one.dtype == np.float32 and one.shape == clean.shape
        assert (one - clean).std() == pytest.approx(7, rel=0.03)
        assert (one - clean).mean() == pytest.approx(0, abs=0.2)
        np.testing.assert_array_equal(one, other)
    assert np.corrcoef(found[0].ravel()[:9000], found[1].ravel()[:9000])[0, 1] < 0.05
    clean = noise.otherwise({"image": list(images)})["image"]
    assert [one.dtype for one in clean] == [np.float32] * 2


@pytest.mark.parametrize(
    "name, given, message",
    [
        ("crop", {"padding": -1}, "'padding' .* an int of at least 0, got -1"),
        ("flip", {"probability": 1.5}, r"a number in \[0, 1\], got 1.5"),
        ("noise", {"deviation": float("nan")}, "'deviation' .* got nan"),
        ("normalise", {"deviation": [0.0]}, "'deviation' .* got"),
        ("pad_crop_flip", {"padding": 0}, "a positive int, got 0"),
        ("random_resized_crop_flip", {"area": [0.5, 1.5]}, "area is not a range: 0.5"),
        ("random_resized_crop_flip", {"ratio": [2, 1]}, "ratio is not a range: 2 to 1"),
        ("random_resized_crop_flip", {"ratio": [0, 1]}, "'ratio' .* got"),
        ("random_resized_crop_flip", {"margin": 0.5}, "at least 1, got 0.5"),
        ("resize_pad", {"splits": "train"}, "in all splits or in none"),
        ("normalise", {"splits": "train"}, "in all splits or in none"),
    ],
)
def test_settings_out_of_range_are_refused(name, given, message):
    with pytest.raises(settings.Invalid, match=message):
        data.check({"name": "photos", "transforms": {name: given}})


def test_what_does_not_fit_the_images_is_refused():
    with pytest.raises(settings.Invalid, match=r"9 pixels .* got 9x7 with padding 0"):
        applied(augment.Crop(size=9), {"image": images(2)})
    with pytest.raises(settings.Invalid, match="'imgae'; did you mean 'image'"):
        applied(augment.Flip(fields=("imgae",)), {"image": images(2)})


@pytest.mark.parametrize(
    "transform",
    [augment.Flip(probability=1.0), augment.Crop(size=4), augment.PadCropFlip()],
)
def test_a_target_does_not_stay_behind(transform):
    alike = images(2)
    batch = {"image": alike.copy(), "target": alike.copy()}
    with pytest.raises(settings.Invalid, match="the images and not their 'target'"):
        applied(transform, batch)
    both = dataclasses.replace(transform, fields=("image", "target"))
    found, _ = applied(both, batch)
    np.testing.assert_array_equal(found["image"], found["target"])
    words = {"image": alike.copy(), "target": np.zeros((2, 5), int)}
    assert applied(transform, words)[0]["target"].shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("flip", {"fields": ()}, r"fields must name images, got \(\)"),
        ("crop", {"fields": ("label",), "size": 4}, "the field 'label' holds no image"),
        ("flip", {"fields": ("label",)}, "the field 'label' holds no images"),
        ("normalise", {"fields": ("image", "label")}, "'label' holds no images"),
        ("normalise", {"mean": (0.5, 0.5, 0.5)}, "one for each of the 1 channels, got"),
        ("noise", {"field": "label"}, "the field 'label' holds no images"),
        ("haze", {"field": "label"}, "the field 'label' holds no images"),
    ],
)
def test_fields_that_are_no_images_are_refused(directory, name, given, says):
    config = {"name": "mnist_5k", "directory": directory, "transforms": {name: given}}
    with pytest.raises(settings.Invalid, match=says):
        data.open(config)


def test_a_part_of_an_extreme_ratio_has_a_pixel():
    draws = np.full(22, 0.5)
    assert augment.random_part(40, 3, draws, ratio=(0.001, 0.002))[2:] == (40, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_random_resized_crop_is_crop_then_resize_then_flip(channels):
    batch = [images(1, 31 + i, 47 - i, channels)[0] for i in range(8)]
    draws = uniform(2, 1, 0, 8, 23)
    transform = augment.RandomResizedCropFlip(size=12)
    result = transform.apply({"image": iter(batch)}, draws)["image"]
    assert result.shape == (8, 12, 12, channels) and result.dtype == np.uint8
    for image, draw, crop in zip(batch, draws, result, strict=True):
        top, left, height, width = augment.random_part(*image.shape[:2], draw)
        picture = Image.fromarray(image if channels == 3 else image[..., 0])
        picture = picture.crop((left, top, left + width, top + height))
        expected = np.asarray(picture.resize((12, 12), Image.Resampling.BILINEAR))
        expected = expected.reshape(12, 12, channels)
        np.testing.assert_array_equal(
            crop, np.fliplr(expected) if draw[-1] < 0.5 else expected
        )


def test_random_parts_have_the_papers_areas_and_ratios():
    parts = np.array(
        [augment.random_part(400, 500, d) for d in uniform(0, 1, 0, 3000, 23)]
    )
    top, left, height, width = parts.T
    assert (top >= 0).all() and (top + height <= 400).all()
    assert (left >= 0).all() and (left + width <= 500).all()
    area, ratio = height * width / (400 * 500), width / height
    assert 0.078 < area.min() < 0.09 and 0.95 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    # On a logarithmic scale: as many wide as high ones, among the small that all fit.
    assert np.mean(ratio[area < 0.5] > 1) == pytest.approx(0.5, abs=0.05)


def test_a_part_may_touch_every_edge():
    draws = np.full(23, LAST)
    draws[:20] = np.tile([0.3, 0.5], 10)
    top, left, height, width = augment.random_part(30, 40, draws)
    assert (top + height, left + width) == (30, 40)


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (10, 100, (0, 43, 10, 13)),
        (100, 10, (43, 0, 13, 10)),
    ],
)
def test_a_part_that_never_fits_is_the_largest_central_one(height, width, expected):
    draws = np.full(23, LAST)  # the whole area at ratio 4/3, which cannot fit
    assert augment.random_part(height, width, draws) == expected


def test_the_first_pair_that_fits_is_taken():
    draws = np.full(23, LAST)
    draws[4:6] = 0.0, 0.5  # the third pair: 8 % of the area, square
    _, _, height, width = augment.random_part(100, 100, draws)
    assert (height, width) == (28, 28)


def test_evaluation_takes_the_centre_of_the_resized_image():
    batch = {"image": iter(images(1, 60, 90))}
    (result,) = augment.RandomResizedCropFlip(size=21).otherwise(batch)["image"]
    picture = Image.fromarray(images(1, 60, 90)[0])
    picture = picture.resize((36, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(result, np.asarray(picture.crop((7, 1, 28, 22))))


def test_the_whole_image_is_kept_between_bars():
    batch = images(1, 30, 60)
    (found,) = augment.ResizePad(size=40).apply({"image": batch}, np.zeros((1, 0)))[
        "image"
    ]
    picture = Image.fromarray(batch[0]).resize((40, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[10:30], np.asarray(picture))
    assert not found[:10].any() and not found[30:].any()


def test_images_of_the_right_size_are_left_alone():
    batch = {"image": images(3)}
    assert augment.centre_crops(batch, (9, 7))["image"] is batch["image"]
    result = augment.centre_crops({"image": list(batch["image"])}, (9, 7))["image"]
    np.testing.assert_array_equal(result, batch["image"])


def test_sizes_may_differ_and_an_example_does_not_depend_on_its_batch():
    mixed = [images(1, *shape)[0] for shape in ((5, 9), (30, 8), (16, 16), (17, 16))]
    transform = augment.RandomResizedCropFlip(size=16)
    draws = uniform(0, 1, 0, 4, 23)
    whole = transform.apply({"image": iter(mixed)}, draws)["image"]
    assert whole.shape == (4, 16, 16, 3) and whole.dtype == np.uint8
    alone = transform.apply({"image": mixed[2:3]}, draws[2:3])["image"]
    np.testing.assert_array_equal(alone[0], whole[2])


def test_floats_are_resized_as_bytes_are():
    image = images(1, 20, 14)[0]
    found = geometry.resize(image.astype(np.float32), (9, 11))
    np.testing.assert_allclose(found, geometry.resize(image, (9, 11)), atol=1.01)
