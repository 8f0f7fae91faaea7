"""Pictures of what a model looks at: which maps, how many images, the same bytes."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from attn.modules import sow
from attn.train import partition
from attn.train.probes import attention
from attn.train.program import Program
from tests.train import small


class Looker(nn.Module):
    """A host that looks in many ways, and compiles fast."""

    num_classes: int
    fill: Mapping[str, Any] | None = None
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        tokens = x.reshape(len(x), 1, -1, 1)
        sow(self, "sampling_grid", jnp.concatenate([x, -x], axis=-1))
        sow(self, "spatial_map", x[..., 0])
        sow(self, "pixel_gate", x)
        sow(self, "token_matrix", tokens * tokens.mT, grid=(28, 28))
        return nn.Dense(self.num_classes)(x.mean(axis=1)[..., 0])


@pytest.fixture(scope="module")
def program():
    model = {"name": "tests.train.probes.attention_test:Looker"}
    return Program(small.config(model=model), jax.devices()[:1])


@pytest.fixture(scope="module")
def variables(program):
    return partition.fetch(small.start(program, 0).variables())


def read(path):
    with np.load(path) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays["index"]))


def test_small_ones_keep_the_kinds_that_change_in_training(
    program, variables, tmp_path
):
    attention.write(tmp_path, program, variables, program.dataset)
    attention.snapshot(tmp_path, 7, program, variables, program.dataset)
    _, index = read(tmp_path / "attention.npz")
    path = tmp_path / "snapshots" / "7.npz"
    arrays, few = read(path)
    kinds = {entry["kind"] for entry in index}
    assert kinds == {"pixel_gate", "sampling_grid", "token_matrix", "spatial_map"}
    # 784 x 784 weights of 8 images take 10 MB
    assert {entry["kind"] for entry in few} == {"sampling_grid", "spatial_map"}
    assert arrays["images"].shape == (8, 28, 28, 1)
    assert path.stat().st_size <= attention.SMALL_BYTES
    whole = {entry["path"]: entry for entry in index}
    for entry in few:
        assert entry["grid"] == whole[entry["path"]]["grid"]
    assert not list(tmp_path.glob("**/.*"))


def test_fewer_images_where_the_file_would_be_large(
    program, variables, tmp_path, monkeypatch
):
    monkeypatch.setattr(attention, "SMALL_BYTES", 40_000)
    attention.snapshot(tmp_path, 0, program, variables, program.dataset)
    arrays, index = read(tmp_path / "snapshots" / "0.npz")
    assert {entry["kind"] for entry in index} == {"sampling_grid", "spatial_map"}
    assert 1 <= len(arrays["images"]) < 8
    held = sum(arrays[key].nbytes for entry in index for key in entry["keys"])
    assert held + arrays["images"].nbytes <= 40_000
    for name in ("captions", "wrong", index[0]["keys"][0]):
        assert len(arrays[name]) == len(arrays["images"])


def test_the_same_variables_make_the_same_bytes(program, variables, tmp_path):
    for step in (0, 1):
        attention.snapshot(tmp_path, step, program, variables, program.dataset)
    first, second = sorted((tmp_path / "snapshots").iterdir())
    assert first.read_bytes() == second.read_bytes()


def test_a_network_that_attends_to_nothing_leaves_no_small_file(tmp_path):
    model = {"name": "mlp", "widths": (3,)}
    blind = Program(small.config(model=model), jax.devices()[:1])
    variables = partition.fetch(small.start(blind, 0).variables())
    attention.snapshot(tmp_path, 0, blind, variables, blind.dataset)
    assert not list(tmp_path.iterdir())
