"""docs/explain.md tells the truth: its examples run, and give what they say."""

import pathlib
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.modules.capture import Kind
from tests.explain import networks

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "explain.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE, re.S))
MADE = {"maps", "mean", "inside", "hits", "spread_out", "curve", "area", "found"}


@pytest.fixture(scope="module")
def network():
    return networks.network("vit", depth=1)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(network, name):
    model, variables = network
    objects = jnp.zeros((2, *networks.SIZE), bool).at[:, 2:5, 3:9].set(True)
    given = {
        "variables": variables,
        "images": networks.images(),
        "labels": jnp.asarray([1, 3]),
        "maps": jnp.ones((2, *networks.SIZE)),
        "objects": objects,
    }

    def run(given):
        names = {"attn": attn, "model": model, **given}
        exec(EXAMPLES[name], names)
        return {k: v for k, v in names.items() if k in MADE}

    made = jax.jit(run)(given)
    if name in ("saliency", "rollout"):
        np.testing.assert_allclose(made["maps"].sum(axis=(1, 2)), 1, rtol=1e-5)
    if name == "maps":
        assert made["mean"].shape == (2, *networks.SIZE)
    if name == "measures":
        np.testing.assert_allclose(made["inside"], 18 / 96, rtol=1e-5)
        np.testing.assert_allclose(made["spread_out"], 1, rtol=1e-5)
    if name == "curves":
        assert made["curve"].shape == (2, 21)
        assert made["area"].shape == (2,)
    if name == "all":
        assert set(made["found"]) == set(attn.explain.MEASURES)


def test_the_page_tells_of_every_measure():
    told = set(re.findall(r"`(\w+)`", PAGE))
    assert {"share_inside", "pointing_game", "entropy", "mean_distance"} <= told
    assert {"deletion", "insertion", "rollout", "gradient_rollout"} <= told
    for kind in typing.get_args(Kind):
        assert kind in told
