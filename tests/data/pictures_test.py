"""Pictures from elsewhere are what the same pictures are in a data set."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from attn import data, settings
from attn.data import pictures
from attn.data.images import labelled
from tests.data.images.detected_test import AUGMENTED, SIZES, _row, image_of, sets
from tests.data.streams import taken

__all__ = ["sets"]  # a fixture
PHOTOS = {"name": "photos", "test": "test[:4]"}
CONFIGS = {
    "photos": PHOTOS,
    "shrunk": {**PHOTOS, "image_size": 30},
    "cropped": {**PHOTOS, "transforms": {"random_resized_crop_flip": {"size": 40}}},
    "bars": {**PHOTOS, "transforms": {"resize_pad": {"size": 60}}},
    "larger": {**PHOTOS, "transforms": {"resize_shorter": {"shorter": 70}}},
    "digits": {"name": "mnist_5k", "test": "test[:4]"},
    "scene": {"name": "digits_scene", "test": "test[:4]", "canvas": 70},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_picture_of_a_data_set_is_the_example_that_it_has(directory, name, tmp_path):
    dataset = data.open({**CONFIGS[name], "directory": directory})
    (batch, *_) = taken(dataset.split("test", 4), 1)
    if name == "scene":  # drawn, and seen through a PNG
        shown = np.rint(255 * dataset.picture(batch["image"])).astype(np.uint8)
    else:
        source = CONFIGS[name]["name"]
        shown = labelled.open_split(source, "test[:4]", directory).pixels
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, shown, strict=True):
        Image.fromarray(image.squeeze()).save(path)
    found, places = pictures.examples(dataset, list(map(pictures.read, paths)))
    atol = 0.02 if name == "scene" else 1e-6
    np.testing.assert_allclose(found["image"], batch["image"], atol=atol)
    assert ("image_mask" in found) == ("image_mask" in batch)
    assert places.scale.shape == places.shift.shape == (4, 2)


def test_pictures_of_a_detection_set_are_resized_and_padded_alike(sets):
    config = {"name": "test_things", "directory": sets, "transforms": AUGMENTED}
    dataset, count = data.open(config), 0
    for batch in taken(dataset.split("test", 1)):
        picture = image_of(_row(batch, 0))
        found, places = pictures.examples(dataset, [picture])
        for field in ("image", "image_mask"):
            np.testing.assert_allclose(found[field], batch[field], atol=1e-6)
        box = batch["boxes"][0, 0] if batch["boxes_mask"][0, 0] else None
        if box is not None:  # found again in the picture
            back = (box.reshape(2, 2) - places.shift[0]) / places.scale[0]
            rows, columns = np.nonzero((picture == (250, 0, 0)).all(axis=-1))
            low = [columns.min(), rows.min()]
            np.testing.assert_allclose(back[0], low, atol=0.01)
            count += 1
    assert count > 3 and len(SIZES) > count


@pytest.mark.parametrize("size", [(90, 30), (31, 200), (48, 48), (20, 11), (30, 1500)])
def test_a_place_of_a_picture_is_found_in_its_image(directory, size):
    """A bright square, that is neither in the centre nor cut off."""
    dataset = data.open({**PHOTOS, "directory": directory})
    height, width = size
    side = min(size)
    picture = np.zeros((*size, 3), np.uint8)
    top, left = height // 2 - side // 4, width // 2 - side // 3
    picture[top : top + side // 2, left : left + side // 2] = 255
    batch, places = pictures.examples(dataset, [picture])
    image = dataset.picture(batch["image"][0])[..., 0]
    assert image.shape == (48, 48)
    rows, columns = np.nonzero(image > 0.5)
    found = [[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]]
    corners = np.array([[left, top], [left + side // 2, top + side // 2]])
    np.testing.assert_allclose(
        corners * places.scale[0] + places.shift[0], found, atol=1.1
    )


def test_files_are_named_by_a_path_a_folder_or_a_pattern(tmp_path, monkeypatch):
    for name in ("b.png", "a.JPG", "c.jpeg", ".d.png", "e.txt"):
        (tmp_path / name).write_bytes(b"")
    names = lambda text: [path.name for path in pictures.named(text)]
    assert names(str(tmp_path)) == ["a.JPG", "b.png", "c.jpeg"]
    assert names(f"{tmp_path}/[ab]*") == ["a.JPG", "b.png"]
    assert names(f"{tmp_path}/e.txt") == ["e.txt"]
    monkeypatch.chdir(tmp_path)
    assert names("*.png") == [".d.png", "b.png"] and names("b.png") == ["b.png"]
    (tmp_path / "empty").mkdir()
    for text in ("empty", "nothing.png", "*.gif", str(tmp_path / "none" / "*.png")):
        with pytest.raises(settings.Invalid, match=r"there is no file|has no PNG"):
            pictures.named(text)
    says = r"^a\*\*\.png is no pattern: |there is no file a\*\*\.png"  # by 3.13
    with pytest.raises(settings.Invalid, match=says):
        pictures.named("a**.png")


def test_files_that_cannot_be_read_are_skipped_if_asked(tmp_path, capsys):
    random = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.jpg")]
    for path in paths:
        Image.fromarray(random).save(path)
    assert pictures.named(str(tmp_path), skip_corrupt=True) == paths
    assert not capsys.readouterr().err
    paths[0].write_bytes(paths[0].read_bytes()[:900])
    paths[2].write_text("no picture")
    assert pictures.named(str(tmp_path)) == paths
    assert pictures.named(str(tmp_path), skip_corrupt=True) == [paths[1]]
    said = capsys.readouterr().err
    assert "2 of 3 files cannot be read and are skipped" in said
    assert f"{paths[0]}, {paths[2]}" in said
    with pytest.raises(settings.Invalid, match="none of the files that"):
        pictures.named(str(paths[0]), skip_corrupt=True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_photograph_is_upright_as_its_exif_says(tmp_path, orientation, suffix):
    path, exif = tmp_path / f"x.{suffix}", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = np.zeros((40, 64, 3), np.uint8)
    stored[:16, :16] = 255  # at the first row and column of what is stored
    Image.fromarray(stored).save(path, exif=exif)
    found = pictures.read(path)
    assert found.shape[1::-1] == pictures.size(path)
    assert found.shape[:2] == ((64, 40) if orientation > 4 else (40, 64))
    # where the standard puts them: rows at the top or at the bottom, and so on
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    corner = found[-8 if bottom else 8, -8 if right else 8]
    assert (corner > 200).all()
    assert found.mean() < 50


def test_what_is_no_picture_is_refused_by_its_name(tmp_path):
    path = tmp_path / "x.png"
    path.write_text("no picture")
    with pytest.raises(settings.Invalid, match=r"x\.png is no PNG or JPEG$"):
        pictures.size(path)
    Image.fromarray(np.full((40, 30), 9, np.uint8)).save(path, format="GIF")
    with pytest.raises(settings.Invalid, match=r"x\.png is no PNG or JPEG$"):
        pictures.size(path)
    random = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(random).save(path)
    path.write_bytes(path.read_bytes()[:900])
    assert pictures.size(path) == (30, 40)
    with pytest.raises(settings.Invalid, match=r"picture .*x\.png cannot be read: "):
        pictures.read(path)
    with pytest.raises(settings.Invalid, match="cannot be read: Is a directory"):
        pictures.size(tmp_path)


@pytest.mark.parametrize("name, says", [("babel", "none"), ("sequences", "none")])
def test_data_without_images_are_refused(name, says):
    config = {"name": name, "train_size": 30, "eval_size": 8}
    dataset = data.open(config)
    with pytest.raises(settings.Invalid, match=f"and this one has {says}"):
        pictures.examples(dataset, [np.zeros((8, 8, 3), np.uint8)])
