"""Folders of images: order, classes, splits, sizes, and files that are none."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from attn import data, settings
from attn.data.images import folder, whole


def save(path, value, size=(6, 5), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value, 0, 0)
    Image.new(mode, size[::-1], colour).save(path)


@pytest.fixture
def root(tmp_path):
    """Twenty cats and twenty dogs, each of its own grey."""
    place = tmp_path / "pets"
    for number in range(20):
        for kind, first in (("dog", 0), ("cat", 100)):
            save(place / kind / f"{number}.png", first + number, mode="L")
    (place / "dog" / "notes.txt").write_text("no image")
    (place / ".hidden").mkdir()
    return place


def opened(root, **config):
    config = {"name": str(root), "test": "train[75%:]", **config}
    return data.open({"train": "train[:75%]", **config})


def test_every_file_is_an_example_with_its_class(root):
    found = folder.open_split(str(root), "train")
    assert found.class_names == ("cat", "dog") and found.shape == (6, 5, 1)
    values = found.pixels[:, 0, 0, 0]
    assert sorted(values) == [*range(20), *range(100, 120)]
    np.testing.assert_array_equal(found.labels, (values < 100).astype(int))


def test_parts_are_disjoint_and_have_their_share_of_each_class(root):
    config = {"train": "train[:50%]", "validation": "train[50%:75%]"}
    dataset = opened(root, **config)
    assert [dataset.size(s) for s in ("train", "validation", "test")] == [20, 10, 10]
    values = {}
    for split in ("train[:50%]", "train[50%:75%]", "train[75%:]"):
        found = folder.open_split(str(root), split)
        values[split] = set(found.pixels[:, 0, 0, 0].tolist())
        assert 0.25 < np.mean(found.labels) < 0.75
    assert len(set.union(*values.values())) == 40
    assert dataset.facts == {"num_classes": 2, "class_names": ("cat", "dog")}
    with dataset.train(5, seed=0) as batches:
        batch = next(batches)
    assert batch["image"].shape == (5, 6, 5, 1) and batch["image"].dtype == np.float32


def test_the_order_does_not_depend_on_where_the_folder_is(root, tmp_path):
    moved = root.rename(tmp_path / "moved")
    values = folder.open_split(str(moved), "train").pixels[:, 0, 0, 0]
    folder._open.cache_clear()
    again = moved.rename(tmp_path / "pets")
    other = folder.open_split(str(again), "train").pixels[:, 0, 0, 0]
    np.testing.assert_array_equal(values, other)
    assert values.tolist() != sorted(values)


def test_folders_of_splits_are_splits(tmp_path):
    save(tmp_path / "train" / "a" / "1.jpg", 10)
    save(tmp_path / "train" / "c" / "1.JPEG", 20)
    save(tmp_path / "val" / "b" / "1.png", 30)
    dataset = data.open({"name": str(tmp_path), "validation": "val", "test": "val"})
    assert dataset.facts["class_names"] == ("a", "b", "c")
    assert dataset.example()["image"].shape == (6, 5, 3)
    (batch,) = dataset.split("validation", 1)
    assert batch["label"].tolist() == [1]
    with pytest.raises(settings.Invalid, match=r"'test'.*valid: train, val, parts"):
        data.open({"name": str(tmp_path)})


def test_images_of_unlike_size_need_image_size(root):
    save(root / "cat" / "large.png", 0, (9, 9), mode="L")
    with pytest.raises(settings.Invalid, match="set image_size"):
        opened(root)
    assert opened(root, image_size=4).example()["image"].shape == (4, 4, 1)


def test_one_coloured_image_makes_all_of_three_channels(root):
    save(root / "cat" / "red.png", 200)
    assert opened(root).example()["image"].shape == (6, 5, 3)


def test_all_splits_have_one_shape(tmp_path):
    for number in range(20):
        save(tmp_path / "train" / "a" / f"{number}.png", number, mode="L")
        save(tmp_path / "test" / "a" / f"{number}.png", number, mode="L")
    for name, change in (("red", {}), ("wide", {"size": (6, 9), "mode": "L"})):
        save(tmp_path / "test" / "a" / f"{name}.png", 9, **change)
        where = {"train": "train[:50%]", "validation": "train[50%:]", "test": "test"}
        config = {"name": str(tmp_path), **where}
        if name == "wide":
            with pytest.raises(settings.Invalid, match="set image_size"):
                data.open(config)
            config["image_size"] = 4
        dataset = data.open(config)
        for split in ("validation", "test"):
            for batch in dataset.split(split, 4):
                assert batch["image"].shape[1:] == dataset.example()["image"].shape
        assert dataset.example()["image"].shape[-1] == 3
        for cached in (folder._open, folder._heads):
            cached.cache_clear()


def test_names_may_be_of_any_bytes(tmp_path):
    save(tmp_path / "a" / "caf\udce9.png", 1)
    save(tmp_path / "a" / "b.png", 2)
    assert folder.open_split(str(tmp_path), "train").size == 2


@pytest.mark.parametrize("kept", [0, 60])
def test_a_corrupt_file_is_named(root, kept):
    path = root / "dog" / "bad.png"
    save(path, 7, (40, 40))
    random = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(random).save(path)
    path.write_bytes(path.read_bytes()[:kept])  # the head is whole in the second
    with pytest.raises(settings.Invalid, match=r"the image .*dog/bad.png cannot be"):
        opened(root)


def test_a_corrupt_file_is_named_when_it_comes_up(root):
    random = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    path = root / "cat" / "bad.png"
    Image.fromarray(random).save(path)  # of another size: none is kept in memory
    path.write_bytes(path.read_bytes()[:600])
    dataset = opened(root, image_size=4, train="train")
    with (
        dataset.train(41, seed=0) as batches,
        pytest.raises(settings.Invalid, match=r"cat/bad.png cannot be read: .*trunc"),
    ):
        next(batches)


@pytest.mark.parametrize("size", [(5, 6), (30, 40)])  # as the others, or not
def test_corrupt_files_are_skipped_if_asked(root, capsys, size):
    whole = opened(root, image_size=4, train="train")
    random = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for name, kept in (("empty.png", 0), ("cut.png", 60)):
        path = root / "cat" / name
        Image.fromarray(random).save(path)
        path.write_bytes(path.read_bytes()[:kept])
    capsys.readouterr()
    dataset = opened(root, image_size=4, train="train", skip_corrupt=True)
    said = capsys.readouterr().err
    count = whole.size("train")
    assert f"split 'train': 2 of {count + 2} files cannot be read" in said
    assert "cat/empty.png" in said and "cat/cut.png" in said
    assert dataset.size("train") == count
    streams = [one.train(count, seed=0) for one in (whole, dataset)]
    with streams[0], streams[1]:
        one, other = (next(stream) for stream in streams)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    "name, message",
    [
        ("./no_such_folder", "the folder of images './no_such_folder' does not exist"),
        ("{root}/.hidden", "has no images: they are looked for as CLASS/FILE or SPLIT"),
    ],
)
def test_what_is_no_folder_of_images_is_one_sentence(root, name, message):
    with pytest.raises(settings.Invalid, match=message) as error:
        data.open({"name": name.format(root=root)})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["classes", "photographs"])
def test_files_are_upright_as_their_exif_says(tmp_path, kind):
    exif, stored = Image.Exif(), np.zeros((40, 64, 3), np.uint8)
    exif[ExifTags.Base.Orientation] = 6  # what is stored first is shown at the right
    stored[:16, :16] = 255
    (tmp_path / "cat").mkdir()
    for number in range(2):
        Image.fromarray(stored).save(tmp_path / "cat" / f"{number}.png", exif=exif)
    if kind == "classes":
        found = folder.open_split(str(tmp_path), "train")
        assert found.shape == (64, 40, 3)
        image, _ = found.read(np.array([0]))
    else:
        found = whole.open_split(str(tmp_path / "cat"), "train", "")
        assert found.sizes.tolist() == [[64, 40]] * 2
        image = [found.read(0)]
    assert image[0].shape == (64, 40, 3)
    assert (image[0][:16, -16:] == 255).all() and image[0].mean() < 40
