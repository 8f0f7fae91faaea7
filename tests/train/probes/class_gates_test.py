"""The mean gates by class, against means taken one by one."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from attn import modules
from attn.train import partition
from attn.train.probes import class_gates
from attn.train.program import Program
from tests.train import small


@pytest.fixture(scope="module")
def program():
    return Program(small.config(data__test="test[:39]"), jax.devices()[:1])


def variables(program, seed=0):
    """Random ones, as the first gates are nearly 0.5 everywhere."""
    rng = np.random.default_rng(seed)
    draw = lambda a: np.abs(rng.normal(size=a.shape)).astype(np.float32)
    return jax.tree.map(draw, partition.fetch(small.start(program, 0).variables()))


@pytest.mark.parametrize("most", [1000, 25])
def test_means_by_class_are_those_taken_one_by_one(
    program, tmp_path, monkeypatch, most
):
    monkeypatch.setattr(class_gates, "EXAMPLES", most)  # 25 end within a batch of 16
    values = variables(program)
    path = tmp_path / "gates.npz"
    class_gates.write(tmp_path, program, values, program.dataset)
    images, labels = [], []
    for batch in program.dataset.split("test", 1):
        images.append(batch["image"])
        labels.append(int(batch["label"][0]))
    images, labels = np.concatenate(images)[:most], np.array(labels[:most])
    _, maps = modules.capture(program.model, values, images)
    ((place, found),) = maps.items()
    with np.load(path) as file:
        (entry,) = json.loads(str(file["index"]))
        assert entry == {"path": place, "key": "mean0", "channels": 8}
        means = file["mean0"]
        counts = file["examples"]
        assert list(file["classes"]) == list(program.dataset.facts["class_names"])
    assert means.shape == (10, 8)
    np.testing.assert_array_equal(counts, np.bincount(labels, minlength=10))
    assert np.ptp(np.asarray(found.values), axis=0).max() > 0.05
    for label in range(10):
        if counts[label]:
            want = np.asarray(found.values, np.float64)[labels == label].mean(axis=0)
            np.testing.assert_allclose(means[label], want, rtol=1e-5)
        else:
            assert np.isnan(means[label]).all()


def test_a_model_without_gates_has_no_file(tmp_path):
    model = {"name": "tests.train.probes.attention_test:Looker"}
    program = Program(small.config(model=model), jax.devices()[:1])
    values = partition.fetch(small.start(program, 0).variables())
    class_gates.write(tmp_path, program, values, program.dataset)
    assert not list(tmp_path.iterdir())


class Gates(nn.Module):
    """Gates of channels whose order is not that of their names."""

    @nn.compact
    def __call__(self, x, *, train):
        del train
        for name in ("second", "first"):
            x = modules.find("squeeze_excite")(reduction=2, name=name)(x, train=False)
        return nn.Dense(10)(x.mean(axis=(1, 2)))


def test_gates_are_in_the_order_of_the_network(tmp_path):
    model = {"name": "tests.train.probes.class_gates_test:Gates"}
    program = Program(small.config(model=model), jax.devices()[:1])
    values = partition.fetch(small.start(program, 0).variables())
    class_gates.write(tmp_path, program, values, program.dataset)
    with np.load(tmp_path / "gates.npz") as file:
        index = json.loads(str(file["index"]))
    assert [entry["path"].split("/")[0] for entry in index] == ["second", "first"]
