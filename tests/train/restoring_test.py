"""Pictures that a model makes of pictures: whole, by tiles, and as files."""

import jax
import numpy as np
import pytest
from PIL import Image

from attn import settings
from attn.commands import predict
from attn.data import canvases, pictures
from attn.train import restoring
from tests.data.images.degraded_test import folder
from tests.train.recognition_test import classifier, trained

__all__ = ["classifier", "folder"]  # fixtures


@pytest.fixture(scope="module")
def point(folder, tmp_path_factory):
    """The directory of a model that has hardly been trained, on noisy images."""
    data = {
        "name": "degraded",
        "source": folder,
        "scale": 2,
        "transforms": {
            "patches": {"size": 8, "order": 1},
            "noise": {"splits": "all", "order": 2},
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "SIDES", 1)
        return trained(
            tmp_path_factory.mktemp("restorer") / "point",
            data=data,
            model={"name": "edsr", "width": 4, "depth": 1},
            task={"name": "restoration"},
            optimizer={"name": "adam"},
            train__steps=2,
            train__eval_batch_size=1,
            schedule__warmup=0,
        )


@pytest.fixture(scope="module")
def program(point):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "SIDES", 1)
        program, state = restoring.restored(point, "last")
        program.dataset.split("test", 1).close()
    return program, state.variables()


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_picture_is_restored_whole_without_noise(program):
    program, variables = program
    image = picture(21, 18)
    made = restoring.of_picture(program, variables, image)
    assert made.shape == (42, 36, 3) and made.dtype == np.uint8
    canvas = np.pad(image, ((0, 11), (0, 14), (0, 0)), mode="symmetric")
    given = {"image": canvas[None].astype(np.float32) / 255}
    outputs = np.asarray(jax.jit(program.apply)(variables, given))
    expected = np.rint(255 * np.clip(outputs[0, :42, :36], 0, 1))
    assert np.abs(made - expected).max() <= 1
    assert (made == expected).mean() > 0.999


def test_with_the_ensemble_it_is_the_mean_over_the_eight_ways(point, program):
    plain, _ = program
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "SIDES", 1)
        chosen = [("task.ensemble", "true")]
        ensemble, state = restoring.restored(point, "last", chosen)
        ensemble.dataset.split("test", 1).close()
    variables, image = state.variables(), picture(21, 40)
    made = restoring.of_picture(ensemble, variables, image)
    canvas = np.pad(image, ((0, 11), (0, 24), (0, 0)), mode="symmetric") / 255
    apply, total = jax.jit(plain.apply), 0
    for turns in range(4):
        for mirrored in (canvas, canvas[:, ::-1]):
            given = {"image": np.rot90(mirrored, turns)[None].astype(np.float32)}
            back = np.rot90(np.asarray(apply(variables, given))[0], -turns)
            total = total + (back if mirrored is canvas else back[:, ::-1])
    expected = np.rint(255 * np.clip(total[:42, :80] / 8, 0, 1))
    assert made.shape == (42, 80, 3) and np.abs(made - expected).max() <= 1
    assert (made == expected).mean() > 0.999
    once = restoring.of_picture(plain, variables, image)
    assert (made == once).mean() < 0.9


def test_tiles_are_joined_where_each_sees_what_is_around(program, monkeypatch):
    program, variables = program
    image = picture(57, 38)
    whole = restoring.of_picture(program, variables, image)
    monkeypatch.setattr(restoring, "TILE", 24)
    monkeypatch.setattr(restoring, "OVERLAP", 12)  # as far as the network sees, twice
    tiled = restoring.of_picture(program, variables, image)
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    monkeypatch.setattr(restoring, "OVERLAP", 4)
    tiled = restoring.of_picture(program, variables, image)
    assert np.abs(tiled.astype(int) - whole).max() > 1


def test_a_folder_of_pictures_becomes_files(point, program, tmp_path, capsys):
    for name, seed in (("one.jpg", 1), ("two.png", 2)):
        Image.fromarray(picture(16, 20, seed)).save(tmp_path / name)
    out = tmp_path / "out"
    command = {"checkpoint": "last", "overrides": ()}
    predict.pictures(point, str(tmp_path), str(out), **command)
    said = capsys.readouterr().out.splitlines()
    assert said[1] == f"{tmp_path / 'two.png'}: {out / 'two.png'}, 40x32"
    expected = restoring.of_picture(*program, pictures.read(tmp_path / "two.png"))
    found = np.asarray(Image.open(out / "two.png"))
    assert (
        found.shape == (32, 40, 3) and np.abs(found - expected.astype(int)).max() <= 1
    )
    assert sorted(p.name for p in out.iterdir()) == ["one.png", "two.png"]
    with pytest.raises(settings.Invalid, match=r"two\.png would be written over"):
        predict.pictures(point, str(tmp_path), str(tmp_path), **command)
    with pytest.raises(settings.Invalid, match=r"output .*two\.png is a file"):
        predict.pictures(point, str(tmp_path), str(out / "two.png"), **command)
    # what an earlier call wrote is written anew, and nothing else
    predict.pictures(point, str(tmp_path / "one.jpg"), str(out), **command)
    Image.fromarray(picture(16, 20, 3)).save(out / "one.png")
    mine = (out / "one.png").read_bytes()
    with pytest.raises(settings.Invalid, match=r"one\.png is known as that of no"):
        predict.pictures(point, str(tmp_path / "one.jpg"), str(out), **command)
    assert (out / "one.png").read_bytes() == mine
    (out / "one.png").unlink()
    (tmp_path / "one.png").write_bytes(b"nothing")
    with pytest.raises(
        settings.Invalid, match=r"one\.\w+ and another picture would both"
    ):
        predict.pictures(point, str(tmp_path), str(out), **command)
    (tmp_path / "one.jpg").unlink()
    with pytest.raises(settings.Invalid, match=r"one\.png is no PNG"):
        predict.pictures(point, str(tmp_path), str(out), **command)
    capsys.readouterr()
    predict.pictures(point, str(tmp_path), str(out), **command, skip_corrupt=True)
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path / 'two.png'}: ")
    assert said.out.count("\n") == 1 and "1 of 2 files" in said.err


def test_other_tasks_find_things_in_pictures(point, classifier):
    assert restoring.makes_pictures(point)
    assert not restoring.makes_pictures(classifier)
