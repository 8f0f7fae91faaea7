"""Measures of a trained model are means over its first examples."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from attn import explain
from attn.train import partition, probes
from attn.train.probes import measures
from attn.train.program import Program
from tests.train import small


@dataclasses.dataclass(frozen=True)
class Located:
    """A data set that knows where the object is: where the image is bright."""

    of: object
    known: bool = True

    def split(self, *args, **kwargs):
        return self.of.split(*args, **kwargs)

    def size(self, split):
        return self.of.size(split)

    def objects(self, batch):
        return batch["image"][..., 0] > 1 if self.known else None


@pytest.fixture(scope="module")
def program():
    return Program(small.config(data__test="test[:39]"), jax.devices()[:1])


@pytest.fixture(scope="module")
def variables(program):
    return partition.fetch(small.start(program, 0).variables())


@pytest.mark.parametrize("most", [1000, 25])
def test_values_are_means_over_the_first_examples(
    program, variables, tmp_path, monkeypatch, most
):
    monkeypatch.setattr(measures, "EXAMPLES", most)
    monkeypatch.setattr(measures, "BATCH", 16)
    monkeypatch.setattr(measures, "CURVES", 16)
    dataset = Located(program.dataset)
    written = probes.find("measures")(tmp_path, program, variables, dataset)
    (batch,) = program.dataset.split("test", 39)
    images, objects = batch["image"][:most], dataset.objects(batch)[:most]
    run = jax.jit(lambda x, o: explain.measure_each(program.model, variables, x, o))
    wanted, single = run(images, objects)
    assert {entry["name"] for entry in written} == wanted.keys()
    assert len(wanted) == 8  # all but the distance of tokens
    for entry in written:
        values = np.asarray(wanted[entry["name"]], np.float64)
        np.testing.assert_allclose(entry["value"], values.mean(), rtol=1e-3)
        shown = explain.MEASURES[entry["name"]]
        facts = {k: v for k, v in entry.items() if k not in ("name", "value")}
        assert facts == dataclasses.asdict(shown)
    record = json.loads((tmp_path / "measures.json").read_text())
    assert (record["split"], record["examples"]) == ("test", min(39, most))
    np.testing.assert_allclose(record["object_area"], 100 * objects.mean(), rtol=1e-4)
    (path,) = single
    means = {name: float(values.mean()) for name, values in single[path].items()}
    (entry,) = record["attentions"]
    assert entry.pop("path") == path
    assert entry == pytest.approx(means, rel=1e-3)


def test_without_objects_there_are_none_of_them(program, variables, tmp_path):
    dataset = Located(program.dataset, known=False)
    written = measures.write(tmp_path, program, variables, dataset)
    assert {entry["name"] for entry in written} == {
        f"attention_{name}" for name in ("entropy", "deletion", "insertion")
    }


def test_images_without_an_object_count_in_no_mean():
    parts = [{"a": np.array([np.nan, 2.0])}, {"a": np.array([4.0])}]
    assert measures._means(parts) == {"a": 3}
    assert measures._means([{"a": np.array([np.nan])}]) == {}
