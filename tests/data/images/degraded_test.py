"""Whole photographs at a lower resolution, in patches for training."""

import numpy as np
import pytest
from PIL import Image

from attn import data, ops, settings
from attn.data.images import whole

SIZES = {"train": [(50, 70), (64, 47)], "test": [(41, 63), (80, 52), (40, 40)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files whose pixels tell their place: red the row, green the column."""
    root = tmp_path_factory.mktemp("pictures")
    for split, sizes in SIZES.items():
        (root / split).mkdir()
        for number, size in enumerate(sizes):
            row, column = np.meshgrid(*map(np.arange, size), indexing="ij")
            blue = np.full(size, 10 * number)
            pixels = np.stack([2 * row, 2 * column, blue], axis=-1).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
    return str(root)


def opened(source, **given):
    return data.open({"name": "degraded", "source": source, **given})


def take(dataset):
    with dataset.train(4, seed=0) as batches:
        return next(batches)


def test_photographs_are_held_out_whole():
    names = [set(found) for found in whole.PHOTOGRAPHS.values()]
    files = [set(found.values()) for found in whole.PHOTOGRAPHS.values()]
    for one in (names, files):
        assert not (one[0] & one[1] or one[0] & one[2] or one[1] & one[2])
    dataset = opened("photographs", scale=4, validation="validation")
    assert [dataset.size(s) for s in ("train", "validation", "test")] == [7, 2, 4]


def test_whole_images_are_shrunk_cut_and_padded_by_their_mirror_images(folder):
    dataset = opened(folder, scale=3)
    assert dataset.facts == {"scale": 3}
    with dataset.split("test", 2) as batches:
        found = {
            int(index): {name: batch[name][i] for name in batch}
            for batch in batches
            for i, index in enumerate(batch["index"])
            if index >= 0
        }
    for number, (height, width) in enumerate(SIZES["test"]):
        one, size = found[number], (height // 3, width // 3)
        target = np.asarray(Image.open(f"{folder}/test/{number}.png"))
        target = target[: 3 * size[0], : 3 * size[1]]
        inside = np.s_[: size[0], : size[1]]
        assert one["image_mask"][inside].all()
        assert one["image_mask"].sum() == size[0] * size[1]
        np.testing.assert_array_equal(
            one["target"][: len(target), : target.shape[1]], target
        )
        assert one["target"].shape == (96, 96, 3) and one["image"].shape == (32, 32, 3)
        shrunk = ops.imresize(target, size=size)
        np.testing.assert_allclose(255 * one["image"][inside], shrunk, atol=1e-4)
        for canvas, real in ((one["image"], shrunk / 255), (one["target"], target)):
            room = [(0, c - r) for c, r in zip(canvas.shape, real.shape, strict=True)]
            mirrored = np.pad(real, room, mode="symmetric")
            np.testing.assert_allclose(canvas, mirrored, atol=1e-6)


def test_patches_are_of_one_place_in_both_images(folder):
    patches = {"patches": {"size": 7}}
    dataset = opened(folder, scale=4, transforms=patches)
    places, ways = set(), set()
    with dataset.train(5, seed=3) as batches:
        for _, batch in zip(range(12), batches, strict=False):
            image, target = batch["image"], batch["target"]
            assert image.shape == (5, 7, 7, 3) and target.shape == (5, 28, 28, 3)
            assert batch["image_mask"].shape == (5, 7, 7) and batch["image_mask"].all()
            for low, high in zip(image, target.astype(np.float64), strict=True):
                # inside, bicubic averages leave a ramp as it is
                means = high.reshape(7, 4, 7, 4, 3).mean(axis=(1, 3))
                inside = np.s_[2:-2, 2:-2, :2]
                np.testing.assert_allclose(255 * low[inside], means[inside], atol=1.01)
                steps = (
                    np.sign(high[1, 0] - high[0, 0]),
                    np.sign(high[0, 1] - high[0, 0]),
                )
                ways.add(tuple(np.concatenate(steps).astype(int)[[0, 1, 3, 4]]))
                places.add((high[..., 0].min(), high[..., 1].min()))
    assert len(ways) == 8 and len(places) > 30
    assert all(row % 8 == column % 8 == 0 for row, column in places)


def test_without_turns_patches_stay_upright(folder):
    dataset = opened(
        folder, scale=2, transforms={"patches": {"size": 6, "turn": False}}
    )
    with dataset.train(8, seed=0) as batches:
        target = next(batches)["target"].astype(int)
    assert (target[:, 1:, :, 0] > target[:, :-1, :, 0]).all()
    assert (target[:, :, 1:, 1] > target[:, :, :-1, 1]).all()


def test_grey_deep_and_transparent_files_are_read_as_rgb(tmp_path):
    deep = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40) * 54
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.full((30, 40), 70, np.uint8)).save(tmp_path / "grey.png")
    clear = np.full((30, 40, 4), (10, 20, 30, 0), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    found = whole.open_split(str(tmp_path), "train", "")
    read = {
        name.rpartition("/")[2]: found.read(i) for i, name in enumerate(found.names)
    }
    assert (read["grey.png"] == 70).all() and read["grey.png"].shape == (30, 40, 3)
    assert (read["clear.png"] == (10, 20, 30)).all()
    np.testing.assert_allclose(read["deep.png"][..., 1], deep / 257, atol=0.51)


def test_what_cannot_be_is_said_in_a_sentence(folder, tmp_path):
    wrong = [
        ({"source": "./nowhere"}, "does not exist"),
        ({"source": str(tmp_path)}, "has no images"),
        ({"source": folder, "test": "test[5:]"}, "is empty"),
        ({"source": folder, "scale": 48}, "of 64x47 pixels is smaller than scale=48"),
        (
            {"source": folder, "scale": 4, "transforms": {"patches": {"size": 13}}},
            "a patch of 13 pixels needs images as large, got",
        ),
    ]
    for given, says in wrong:
        with pytest.raises(settings.Invalid, match=says):
            take(data.open({"name": "degraded", **given}))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    with pytest.raises(settings.Invalid, match=r"broken.png cannot be read"):
        opened(str(tmp_path), test="train")


def test_corrupt_files_are_skipped_if_asked(tmp_path, capsys):
    for number in range(3):
        random = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(random).save(tmp_path / f"{number}.png")
    broken = tmp_path / "1.png"
    broken.write_bytes(broken.read_bytes()[:300])  # its head is whole
    chosen = {"test": "train[1:]", "skip_corrupt": True}
    dataset = opened(str(tmp_path), **chosen)
    said = capsys.readouterr().err
    assert f"'train': 1 of 3 files cannot be read and are skipped: {broken}" in said
    assert dataset.size("train") == 2
    with dataset.split("test", 1) as batches:
        target = next(batches)["target"][0, :20, :30]
    expected = np.asarray(Image.open(tmp_path / "2.png"))
    np.testing.assert_array_equal(target, expected)
    with pytest.raises(settings.Invalid, match=r"1\.png cannot be read: .*truncated"):
        take(opened(str(tmp_path), test="train"))
    with pytest.raises(settings.Invalid, match="source='photographs' is none"):
        opened("photographs", skip_corrupt=True)
