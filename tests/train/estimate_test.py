"""The estimate of a training's time."""

import jax
import pytest

from attn.train import estimate
from attn.train.program import Program
from tests.train import small


def test_grows_with_the_steps_and_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = estimate.seconds(Program(small.config(), jax.devices()[:1]))
    assert found["train"] >= 8 * found["ms_per_step"] / 1000
    assert found["compile"] == pytest.approx(found["compile"], abs=60)
    assert found["ms_per_step"] > 0
    assert not list(tmp_path.iterdir())
