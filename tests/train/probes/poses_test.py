"""Poses that are found and seen, by a transformer whose map is known."""

import json

import jax
import numpy as np

from attn.train.probes import poses
from attn.train.program import Program
from tests.tasks import keypoints_test
from tests.train import small

SIZE = (32, 24)
THETA = np.array([[0.7, 0.2, 0.1], [-0.3, 0.9, -0.2]], np.float32)


def shown(model, directory):
    """What is written of a network with random weights, and the first examples."""
    data = {**keypoints_test.DATA, "size": SIZE}
    name = f"tests.tasks.keypoints_test:{model}"
    task = {"name": "keypoints"}
    config = small.config(data=data, model={"name": name}, task=task)
    program = Program(config, jax.devices()[:1])
    assert "poses" in program.task.probes
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda a: rng.uniform(-1, 1, a.shape).astype(np.float32) ** 2,
        program.abstract_state().variables(),
    )
    if "theta" in variables["params"]:
        variables["params"]["theta"] = THETA
    assert poses.write(directory, program, variables, program.dataset) == []
    with np.load(directory / "examples.npz") as file:
        found = dict(file)
    with program.dataset.split("test", poses.EXAMPLES) as batches:
        batch = next(batches)
    given = {name: batch[name] for name in program.fields}
    outputs = jax.jit(program.apply)(variables, given)
    return found, batch, outputs, program, given


def test_poses_are_shown_before_and_after_the_transformer(tmp_path):
    found, batch, outputs, program, given = shown("Moved", tmp_path)
    fields = {field["name"]: field for field in json.loads(str(found["index"]))}
    kinds = [field["kind"] for field in fields.values()]
    assert kinds == ["image", "pose", "pose", "image", "pose", "text"]
    assert fields["pose in what is seen"]["on"] == "seen"
    visible, truth = batch["visible"], batch["keypoints"]
    assert not visible.all()
    np.testing.assert_array_equal(np.isnan(found["true"]).any(-1), ~visible)
    np.testing.assert_array_equal(found["true"][visible], truth[visible])
    limbs = program.dataset.facts["limbs"]
    assert (found["limbs"] == np.array(limbs)).all() and len(found["limbs"]) == 6
    # the highest place of each map, within a quarter of a pixel of it
    maps = np.asarray(outputs["heatmaps"])
    height, width, joints = maps.shape[1:]
    row, column = np.unravel_index(
        maps.reshape(len(maps), -1, joints).argmax(1), (height, width)
    )
    centres = np.stack([(column + 0.5) / width, (row + 0.5) / height], -1)
    apart = found["found"] / SIZE[::-1] - centres
    assert (np.abs(apart) * (width, height)).max() < 0.2501
    # theta takes places of what is seen to those of the image
    places = lambda points: 2 * points / np.array(SIZE[::-1]) - 1
    there = np.concatenate([places(found["there"]), np.ones((*truth.shape[:2], 1))], -1)
    np.testing.assert_allclose(there @ THETA.T, places(found["found"]), atol=1e-4)
    picture = program.dataset.picture(np.asarray(outputs["seen"][1]))
    np.testing.assert_allclose(found["seen"][1], np.clip(picture, 0, 1), atol=1e-5)
    told = program.task.describe(outputs, given, program.dataset.facts)
    assert found["right"].tolist() == [text for text, _ in told]


def test_a_network_without_transformer_shows_its_poses(tmp_path):
    found, *_ = shown("Pose", tmp_path)
    names = [field["name"] for field in json.loads(str(found["index"]))]
    assert names == ["image", "true pose", "pose found", "right"]
