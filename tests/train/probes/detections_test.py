"""What a detector finds and reads, against the maps and outputs of the whole model."""

import json

import jax
import numpy as np
import pytest

from attn.data import canvases
from attn.train.probes import detections, rows
from attn.train.program import Program
from tests.data.images.detected_test import sets
from tests.train import small

__all__ = ["sets"]  # a fixture
MODEL = {
    "name": "detr",
    "backbone": {"depth": 8, "layout": "cifar", "stem_stride": 2, "width": 4},
    "frozen_norm": False,
    "masked": True,
    "width": 8,
    "num_heads": 2,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "mlp_dim": 0,
    "num_queries": 5,
}


@pytest.fixture(scope="module")
def made(sets):
    """A program on padded images, and random variables."""
    transforms = {"resize_shorter": {"shorter": 30, "longest": 60}}
    data = {"name": "test_things", "directory": sets, "transforms": transforms}
    config = small.config(data=data, model=MODEL, task={"name": "detection"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "SIDES", 1)  # one canvas, one program
        program = Program(config, jax.devices()[:1])
    random = np.random.default_rng(0)

    def draw(path, a):
        # with small biases, and queries that differ
        scale = {"bias": 0.1, "queries": 4.0}.get(path[-1].key, 0.7)
        values = random.normal(0, scale, a.shape).astype(np.float32)
        return np.abs(values) if path[-1].key == "var" else values

    variables = program.abstract_state().variables()
    return program, jax.tree_util.tree_map_with_path(draw, variables)


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """The arrays of both files, and the batch that they are of."""
    program, variables = made
    place = tmp_path_factory.mktemp("probe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detections, "LIKELY", 0.2)
        assert detections.write(place, program, variables, program.dataset) == []
    found = []
    for name in ("examples.npz", "query_areas.npz"):
        with np.load(place / name, allow_pickle=False) as file:
            found.append({key: file[key] for key in file.files})
    batch = rows.first(program.dataset, "test", 6, program.fields)
    return *found, batch


def test_boxes_are_those_of_the_outputs(made, written):
    program, variables = made
    examples, _, batch = written
    given = {name: batch[name] for name in program.inputs}
    outputs, maps = jax.device_get(program.capture(variables, given))
    logits = outputs["logits"][:, -1].astype(np.float64)
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    scores = (chances / chances.sum(-1, keepdims=True))[..., :-1]
    reads = maps["decoder1/cross/token_matrix"].values.mean(axis=1)
    own = maps["encoder0/mixer/token_matrix"].values.mean(axis=1)
    height, width = batch["image"].shape[1:3]
    grid = (height // 8, width // 8)
    assert own.shape[1] == grid[0] * grid[1]
    # maps and boxes that differ, so that a wrong one is seen
    assert np.ptp(own, axis=1).max() > 0.05 and np.ptp(reads, axis=1).max() > 0.05
    assert np.ptp(outputs["boxes"][:, -1], axis=1).max() > 0.1
    for i in range(6):
        rows_, columns = np.nonzero(batch["image_mask"][i])
        sides = np.array([columns.max() + 1, rows_.max() + 1] * 2)
        cx, cy, w, h = outputs["boxes"][i, -1].T
        boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1) * sides
        best = scores[i].max(axis=-1)
        order = np.argsort(-best, kind="stable")
        shown = [q for q in order if best[q] >= 0.2]
        names = [f"{detection(scores[i, q])} {100 * best[q]:.0f}" for q in shown]
        assert examples["found_names"][i].tolist() == names + [""] * (5 - len(shown))
        assert (
            examples["found_classes"][i].tolist()
            == scores[i, order].argmax(-1).tolist()
        )
        found = examples["found"][i]
        np.testing.assert_allclose(found[: len(shown)], boxes[shown], rtol=1e-4)
        assert (found[len(shown) :] == 0).all()
        for k in range(3):
            np.testing.assert_allclose(
                examples[f"decoder{k}"][i].ravel(), reads[i, order[k]], atol=1e-3
            )
            mark = examples[f"decoder{k}_mark"][i]
            np.testing.assert_allclose(mark, boxes[order[k]], rtol=1e-4)
            x, y = examples[f"encoder{k}_mark"][i]
            cell = int(y // 8) * grid[1] + int(x // 8)
            np.testing.assert_allclose(
                examples[f"encoder{k}"][i].ravel(), own[i, cell], atol=1e-3
            )


def detection(scores):
    return ["red", "green", "blue"][int(scores.argmax())]


def test_objects_and_their_centres_are_those_of_the_data(written):
    examples, _, batch = written
    for i, mask in enumerate(batch["boxes_mask"]):
        boxes = batch["boxes"][i][mask]
        np.testing.assert_array_equal(examples["objects"][i][: len(boxes)], boxes)
        names = ["red", "green", "blue"][: len(boxes)]
        assert [name for name in examples["object_names"][i] if name] == names
        numbers = examples["object_classes"][i][: len(names)].tolist()
        assert numbers == list(range(len(names)))
        for k, box in enumerate(boxes):
            centre = (box[:2] + box[2:]) / 2
            np.testing.assert_allclose(examples[f"encoder{k}_mark"][i], centre)
    real = batch["image_mask"]
    assert not real.all() and (examples["image"][~real] == 1).all()
    assert examples["image"][real].std() > 0.05


def test_the_fields_have_an_order_and_name_their_arrays(written):
    examples, _, _ = written
    fields = json.loads(str(examples["index"]))
    assert [field["name"] for field in fields] == [
        *("image", "objects", "found"),
        *(f"read for box {k}" for k in (1, 2, 3)),
        *(f"read by place {k}" for k in (1, 2, 3)),
    ]
    assert all(key in examples for field in fields for key in field["keys"])


def test_areas_are_of_every_image_once(written):
    _, areas, _ = written
    assert areas["boxes"].shape == (7, 5, 4) and areas["scores"].shape == (7, 5)
    assert (areas["boxes"] > 0).all() and (areas["boxes"] < 1).all()
    assert len(np.unique(areas["boxes"][:, 0], axis=0)) > 3


@pytest.mark.parametrize(
    "places, image, grid",
    [(96, (64, 96), (8, 12)), (96, (96, 64), (12, 8)), (64, (64, 64), (8, 8))],
)
def test_a_grid_has_the_ratio_of_the_image(places, image, grid):
    assert detections._grid(places, image) == grid
