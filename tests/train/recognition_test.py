"""Findings in pictures, as a person asks for them."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from attn import report, settings
from attn.data import pictures
from attn.report.formats import recognised
from attn.train import loop, recognition
from attn.train.interruption import Interruption
from attn.train.program import Program
from tests.train import small

ROOT = pathlib.Path(__file__).parents[2]


class Boxes(nn.Module):
    """Outputs of the form of DETR's, of six queries."""

    num_classes: int

    @nn.compact
    def __call__(self, image, *, train):
        del train
        x = nn.avg_pool(image, (16, 16), (16, 16)).reshape(len(image), -1)
        logits = nn.Dense(6 * (self.num_classes + 1))(x)
        boxes = nn.sigmoid(nn.Dense(24)(x))
        shape = (len(x), 1, 6, -1)
        return {"logits": logits.reshape(shape), "boxes": boxes.reshape(shape)}


def trained(directory, **changes):
    """The directory of a model that has hardly been trained."""
    config = small.config(**changes)
    program = Program(config, jax.devices()[:1])
    listener = small.Listener()
    asked = Interruption()
    loop.train(program, config, directory, {}, progress=listener, interruption=asked)
    return directory


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    place = tmp_path_factory.mktemp("classifier") / "point"
    return trained(place, data__distortion="none", train__steps=2, schedule__warmup=0)


@pytest.fixture(scope="module")
def detector():
    """A detector and its state, not trained at all."""
    config = small.config(
        data={"name": "digits_scene", "train": "train[:8]", "test": "test[:8]"},
        model={"name": "tests.train.recognition_test:Boxes"},
        task={"name": "detection"},
    )
    program = Program(config, jax.devices()[:1])
    return program, program.init_state(0)


@pytest.fixture
def files(tmp_path):
    """Eleven pictures of unlike size, the first one grey."""
    random = np.random.default_rng(0)
    found = []
    for k in range(11):
        size = (28 + 3 * k, 40 - k) if k else (28, 28)
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        found.append(tmp_path / f"{k:02}.{'png' if k % 2 else 'jpg'}")
        Image.fromarray(image if k else image[..., 0]).save(found[-1])
    return found


def test_a_classifier_names_five_classes_with_its_attention(
    classifier, files, tmp_path
):
    output = tmp_path / "out.html"
    seen = list(recognition.recognise(classifier, files, output))
    assert [one.path for one in seen] == files
    for one in seen:
        shares = [found.probability for found in one.findings]
        assert len(shares) == 5 and shares == sorted(shares, reverse=True)
        assert all(found.box is None for found in one.findings)
        (gate,) = one.maps.values()
        assert gate.values.shape == (1, 8) and one.image.shape == (28, 28, 1)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["point"] == "point" and record["step"] == 2
    assert [entry["file"] for entry in record["pictures"]] == list(map(str, files))
    assert (record["pictures"][2]["width"], record["pictures"][2]["height"]) == (38, 34)
    names = [found["name"] for found in record["pictures"][3]["found"]]
    assert names == [found.name for found in seen[3].findings]
    assert seen[3].text.startswith(f"{files[3]}: {names[0]} ")
    page = report.write_recognised(output).read_text()
    assert page.count("gates of 8 channels") == 11 * 2  # a line, and what it shows
    assert page.count("data:image/jpeg") == 11
    # each picture is looked at by itself, whatever the others are
    (alone,) = recognition.recognise(classifier, files[9:10], output)
    for one, other in zip(alone.findings, seen[9].findings, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_the_probabilities_are_those_of_the_model(classifier, files, tmp_path):
    program, state = recognition.restored(classifier, "last")
    batch, _ = pictures.examples(program.dataset, [pictures.read(files[4])])
    logits = np.asarray(program.apply(state.variables(), batch), np.float64)[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    (seen,) = recognition.recognise(classifier, files[4:5], tmp_path / "out.html")
    for found in seen.findings:
        assert found.probability == pytest.approx(shares[int(found.name)], abs=1e-5)


def test_a_detector_places_boxes_in_the_picture(detector, tmp_path, monkeypatch):
    """Of a picture twice as large and wider, whose centre the model reads."""
    monkeypatch.setattr(recognition, "LEAST", 0.0)
    monkeypatch.setattr(recognition, "restored", lambda *given: detector)
    program, state = detector
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (128, 200, 3), dtype=np.uint8)
    path, output = tmp_path / "wide.png", tmp_path / "out.html"
    Image.fromarray(picture).save(path)
    (seen,) = recognition.recognise(tmp_path / "point", [path], output)
    batch, _ = pictures.examples(program.dataset, [picture])
    outputs = jax.device_get(program.apply(state.variables(), batch))
    boxes = outputs["boxes"][0, -1].astype(np.float64)
    assert len(seen.findings) == len(boxes) == 6 and not seen.maps
    corners = np.concatenate(
        [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1
    )
    expected = 128 * corners + [36, 0, 36, 0]  # the centre of the picture, 128 x 128
    expected = np.clip(expected, 0, [200, 128, 200, 128])
    found = np.array([one.box for one in seen.findings])
    distance = np.abs(found[:, None] - expected).max(axis=-1)
    np.testing.assert_allclose(distance.min(axis=1), 0, atol=0.05)
    assert sorted(distance.argmin(axis=1)) == list(range(6))
    entry = json.loads((tmp_path / "out.json").read_text())["pictures"][0]
    written = [one["box"] for one in entry["found"]]
    np.testing.assert_allclose(written, found, atol=0.01)
    assert not (tmp_path / "out.npz").exists()
    assert report.write_recognised(output).exists()


@pytest.fixture
def shown(monkeypatch):
    """The pictures that the page shows."""
    found, draw = [], recognised.pictures.draw_boxes
    monkeypatch.setattr(
        recognised.pictures,
        "draw_boxes",
        lambda image, *rest: (found.append(np.asarray(image)), draw(image, *rest)),
    )
    return found


def test_a_grey_picture_of_16_bits_is_shown_as_the_model_sees_it(
    classifier, tmp_path, shown
):
    ramp = np.linspace(0, 65535, 28 * 28).reshape(28, 28).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    output = tmp_path / "found.html"
    list(recognition.recognise(classifier, [tmp_path / "ramp.png"], output))
    recognised.write(output)
    assert 126 < shown[0].mean() < 129


def test_a_photograph_on_its_side_is_shown_as_the_model_sees_it(
    classifier, tmp_path, shown
):
    path, output = tmp_path / "x.png", tmp_path / "found.html"
    random = np.random.default_rng(0).integers(0, 256, (480, 300, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6  # orientation: to be turned by a quarter
    Image.fromarray(random).save(path, exif=exif)
    list(recognition.recognise(classifier, [path], output))
    recognised.write(output)
    np.testing.assert_array_equal(shown[0], pictures.read(path))
    (entry,) = json.loads(output.with_suffix(".json").read_text())["pictures"]
    assert (entry["width"], entry["height"]) == (480, 300)


def test_boxes_are_drawn_where_they_are(tmp_path):
    path, output = tmp_path / "plain.png", tmp_path / "out.html"
    Image.fromarray(np.full((100, 150, 3), 255, np.uint8)).save(path)
    found = [
        {"name": "cat", "probability": 0.9, "box": [20, 30, 70, 90]},
        {"name": "<b>", "probability": 0.4, "box": [100, 10, 140, 40]},
    ]
    entry = {"file": str(path), "width": 150, "height": 100, "found": found}
    record = {"point": "p", "step": 1, "task": "T", "pictures": [entry]}
    (tmp_path / "out.json").write_text(json.dumps(record))
    page = report.write_recognised(output).read_text()
    assert "cat <span>90 %" in page and "&lt;b&gt; <span>40 %" in page
    from attn.report.formats import recognised

    drawn = []
    encode = recognised.pictures.encode_photo
    with pytest.MonkeyPatch.context() as patch:
        keep = lambda picture: drawn.append(picture.copy()) or encode(picture)
        patch.setattr(recognised.pictures, "encode_photo", keep)
        report.write_recognised(output)
    coloured = (np.asarray(drawn[0]) != 255).any(axis=-1)
    rows, columns = np.nonzero(coloured)
    # three times as large: the box of the cat, and its name above
    assert coloured.shape == (300, 450)
    assert (columns.min(), rows.max()) == (60, 269) and 70 < rows.min() < 90
    assert not coloured[93:267, 63:207].any() and not coloured[90:, 210:].any()


@pytest.mark.parametrize(
    "change, says",
    [
        ("text", r"03\.png is no PNG or JPEG"),
        ("output", r"a page FILE\.html in a directory that exists, got .*/none/"),
    ],
)
def test_a_mistake_is_said_before_anything_is_read(
    classifier, files, tmp_path, change, says
):
    output = tmp_path / "out.html"
    if change == "text":
        files[3].write_text("no picture")
    else:
        output = tmp_path / "none" / "out.html"
    with pytest.raises(settings.Invalid, match=says):
        next(recognition.recognise(classifier, files, output))
    assert not output.with_suffix(".json").exists()


def test_a_directory_without_access_is_said_before_anything_is_read(
    classifier, files, tmp_path, monkeypatch
):
    monkeypatch.setattr("os.access", lambda *given: False)
    with pytest.raises(settings.Invalid, match="cannot be written: no access"):
        next(recognition.recognise(classifier, files, tmp_path / "out.html"))


@pytest.mark.parametrize(
    "name, content",
    [
        ("out.json", '{"photos": []}'),
        ("out.json", '["pictures"]'),
        ("out.json", "no JSON"),
        ("out.npz", ""),
    ],
)
def test_files_of_others_beside_the_page_are_kept(
    classifier, files, tmp_path, monkeypatch, name, content
):
    monkeypatch.setattr(recognition, "restored", lambda *given: pytest.fail("computed"))
    (tmp_path / name).write_text(content)
    says = (
        rf"{name} is of no earlier prediction and would be written over; name another"
    )
    with pytest.raises(settings.Invalid, match=says):
        next(recognition.recognise(classifier, files, tmp_path / "out.html"))
    assert (tmp_path / name).read_text() == content


def test_an_earlier_prediction_is_written_over(classifier, files, tmp_path):
    output = tmp_path / "out.html"
    for file in files[:2]:
        list(recognition.recognise(classifier, [file], output))
    assert output.with_suffix(".npz").exists()
    (entry,) = json.loads((tmp_path / "out.json").read_text())["pictures"]
    assert entry["file"] == str(files[1])


@pytest.mark.parametrize(
    ("writes", "file"), [("write_json", "out.json"), ("write_npz", "out.npz")]
)
def test_a_page_that_no_longer_fits_on_the_disk_is_one_sentence(
    classifier, files, tmp_path, monkeypatch, writes, file
):
    def full(*given, **arrays):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recognition.files, writes, full)
    with pytest.raises(settings.Invalid, match=f"{file} cannot be written: No space"):
        list(recognition.recognise(classifier, files[:1], tmp_path / "out.html"))


def test_the_command_prints_a_line_for_each_picture(classifier, files, tmp_path):
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    command = [sys.executable, str(ROOT / "launch.py"), "predict"]
    command += [f"--workdir={classifier}", f"--compilation_cache={cache}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}

    def run(*more):
        return subprocess.run(
            [*command, *more],
            env=environment,
            capture_output=True,
            text=True,
            timeout=1000,
        )

    files[3].write_text("no picture")
    done = run(f"--images={tmp_path}/0[1-3].*", "--skip_corrupt")
    assert done.returncode == 0, done.stderr
    assert f"1 of 3 files cannot be read and are skipped: {files[3]}" in done.stderr
    *lines, page, record = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(map(str, files[1:3]))
    assert page == f"page: {classifier}/predictions.html"
    assert record == f"predictions: {classifier}/predictions.json"
    wrong = run(f"--images={tmp_path}")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
    assert f"launch.py: {files[3]} is no PNG or JPEG" in wrong.stderr
