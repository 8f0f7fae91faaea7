"""The probe of glimpses: where, what was seen there, and how often at the object."""

import json

import jax
import numpy as np
import pytest

from attn.train import partition
from attn.train.probes import glimpses
from attn.train.program import Program
from tests.ops.glimpse_test import crop
from tests.train import small

MODEL = {
    "name": "recurrent_attention",
    "glimpses": 3,
    "size": 6,
    "scales": 2,
    "eval_samples": 2,
    "patch_width": 8,
    "place_width": 8,
    "width": 8,
}


def made(**given):
    config = small.config(
        data={"name": "mnist_5k", "distortion": "translated"},
        model={**MODEL, **given},
        task={"name": "recurrent_attention"},
    )
    program = Program(config, jax.devices()[:1])
    return program, partition.fetch(program.init_state(1).variables())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    program, variables = made()
    place = tmp_path_factory.mktemp("glimpses")
    found = glimpses.write(place, program, variables, program.dataset)
    with np.load(place / "examples.npz") as file:
        return program, variables, found, dict(file)


def test_patches_are_those_of_the_places(written):
    program, _, _, file = written
    fields = {field["name"]: field for field in json.loads(str(file["index"]))}
    assert fields["path"]["on"] == "image" and fields["path"]["kind"] == "path"
    assert file["patches"].shape == (6, 2, 3, 6, 6, 1)
    for i, scale, t in np.ndindex(file["patches"].shape[:3]):
        want = crop(file["image"][i], file["places"][i, t].astype(float), (6, 6), scale)
        np.testing.assert_allclose(file["patches"][i, scale, t], want, atol=2e-3)
    assert file["sides"].tolist() == [[6, 6]] * 6
    with program.dataset.split(program.curve_split, 6) as batches:
        labels = next(batches)["label"]
    assert [text[0] for text in file["answer"]] == [str(label) for label in labels]


def test_the_measure_is_the_share_in_the_frame_of_the_object(written):
    program, variables, (measure,), _ = written
    with program.dataset.split(program.curve_split, glimpses.MEASURED) as batches:
        batch = next(batches)
    given = {name: batch[name] for name in program.fields}
    places = np.asarray(program.capture(variables, given)[0]["places"])[:, 0, 1:]
    hits = []
    for path, mask, weight in zip(
        places, batch["objects"], batch["weight"], strict=True
    ):
        rows, columns = np.nonzero(mask)
        if weight:
            x, y = (path.T + 1) * 30
            across = (columns.min() <= x) & (x <= columns.max() + 1)
            hits += list(across & (rows.min() <= y) & (y <= rows.max() + 1))
    assert measure["value"] == pytest.approx(100 * np.mean(hits), rel=1e-5)
    assert 0 < measure["value"] < 100


def test_of_a_model_without_places_there_is_nothing(tmp_path):
    program, variables = made(slots={"grid": "additive_soft"})
    assert glimpses.write(tmp_path, program, variables, program.dataset) == []
    assert not list(tmp_path.iterdir())
