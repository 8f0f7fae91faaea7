"""Restored photographs in detail: the square, the pictures in it, PSNR and the gate."""

import json

import jax
import numpy as np
import pytest

from attn import ops
from attn.data import canvases
from attn.train.probes import restored
from attn.train.program import Program
from tests.data.images.degraded_test import folder
from tests.train import small

__all__ = ["folder"]  # a fixture


def opened(folder, **given):
    source = {"name": "degraded", "source": folder, "test": "test", **given}
    model = {"name": "edsr", "width": 4, "depth": 1}
    model["slots"] = {"block0/block.residual": "pixel_attention"}
    config = small.config(data=source, model=model, task={"name": "restoration"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "SIDES", 1)  # one canvas, one program
        program = Program(config, jax.devices()[:1])
        program.dataset.split("test", 1).close()
    return program


@pytest.mark.parametrize("scale", [2, 1])
def test_the_square_farthest_from_the_truth_is_shown(
    folder, tmp_path, scale, monkeypatch
):
    monkeypatch.setattr(restored, "DETAIL", 17)
    monkeypatch.setattr(restored, "STRIDE", 4)
    noise = {"noise": {"splits": "all"}}
    program = opened(folder, scale=scale, transforms=noise)
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda a: random.normal(0, 0.2, a.shape).astype(np.float32),
        program.abstract_state().variables(),
    )
    dataset = program.dataset
    assert restored.write(tmp_path, program, variables, dataset) == []
    with np.load(tmp_path / "examples.npz") as file:
        found = dict(file)
    fields = {f["name"]: f for f in json.loads(str(found["index"]))}
    assert ("bicubic" in fields) == (scale > 1)
    assert fields["last gate"]["on"] == "truth"
    side = 17 // scale * scale
    with dataset.split("test", 1) as batches:
        batches = {int(batch["index"][0]): batch for batch in batches}
    for row, batch in batches.items():
        batch = {name: batch[name] for name in program.fields}
        outputs, maps = program.capture(variables, batch)
        (gate,) = (m.values for path, m in maps.items() if "residual" in path)
        mask = batch["image_mask"][0]
        height, width = scale * mask.any(1).sum(), scale * mask.any(0).sum()
        truth, image = batch["target"][0] / 255, batch["image"][0]
        larger = ops.imresize(image, scale) if scale > 1 else image
        error = ((larger - truth) ** 2).mean(-1)
        places = [
            (error[y : y + side, x : x + side].sum(), y, x)
            for y in range(0, height - side + 1, 4)
            for x in range(0, width - side + 1, 4)
        ]
        _, y, x = max(places)
        square = np.s_[y : y + side, x : x + side]
        low = tuple(slice(s.start // scale, s.stop // scale) for s in square)
        inside = lambda image: np.clip(image, 0, 1)
        np.testing.assert_allclose(found["truth"][row], truth[square], atol=1e-6)
        np.testing.assert_allclose(
            found["degraded"][row], inside(image[low]), atol=1e-6
        )
        expected = inside(np.asarray(outputs[0])[square])
        np.testing.assert_allclose(found["restored"][row], expected, atol=1e-5)
        expected = np.asarray(gate[0]).mean(-1)[low]
        np.testing.assert_allclose(found["gate"][row], expected, atol=1e-3)
        means = program.compiled("restored", program.task.evaluate)(outputs, batch)
        text = [float(means[name].total[0]) for name in ("input_psnr", "psnr")]
        assert found["psnr"][row] == f"{text[0]:.2f} to {text[1]:.2f} dB"


def test_maps_that_are_too_large_are_not_made(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(restored, "BYTES", 1000)
    monkeypatch.setattr(restored, "DETAIL", 16)
    program = opened(folder, scale=2)
    state = program.init_state(0)
    restored.write(tmp_path, program, state.variables(), program.dataset)
    with np.load(tmp_path / "examples.npz") as file:
        assert "gate" not in file and "restored" in file


def test_maps_of_a_few_photographs_are_not_shown(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(restored, "DETAIL", 16)
    program = opened(folder, scale=2)
    state, seen = program.init_state(0), restored._seen
    rows = []

    def cut(*given):  # of the second one the maps are too large
        rows.append(seen(*given))
        if len(rows) == 2:
            del rows[-1]["gate"], rows[-1]["place"]
        return rows[-1]

    monkeypatch.setattr(restored, "_seen", cut)
    restored.write(tmp_path, program, state.variables(), program.dataset)
    with np.load(tmp_path / "examples.npz") as file:
        assert len(file["restored"]) == len(rows) > 1
        assert not {"gate", "place"} & {*file}
