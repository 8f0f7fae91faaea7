"""PixelAttention against PAN's and FFA-Net's formulas in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.pixel.pixel_attention import PixelAttention


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def oracle(params, x, variant):
    """The gate of every value, one position at a time."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    gate = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        z = x[place].astype(np.float64)
        if variant == "ffa":
            z = np.maximum(z @ p["squeeze"]["kernel"] + p["squeeze"]["bias"], 0)
        gate[place] = sigmoid(z @ p["excite"]["kernel"] + p["excite"]["bias"])
    return gate


@pytest.mark.parametrize(
    ("variant", "kind"), [("pan", "pixel_gate"), ("ffa", "spatial_map")]
)
def test_matches_the_paper(random_variables, variant, kind):
    module = PixelAttention(variant=variant)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 24)).astype(np.float32)
    variables = random_variables(module, x)

    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)

    gate = oracle(variables["params"], x, variant)
    np.testing.assert_allclose(y, x * gate, rtol=1e-5, atol=1e-6)
    assert maps.keys() == {kind}
    want = gate if variant == "pan" else gate[..., 0]
    np.testing.assert_allclose(maps[kind].values, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "channels", "count"),
    [("pan", 24, 600), ("pan", 64, 4_160), ("pan", 256, 65_792), ("ffa", 64, 529)],
)
def test_has_the_published_number_of_parameters(variant, channels, count):
    module = PixelAttention(variant=variant)
    init = functools.partial(module.init, train=False)
    x = np.zeros((1, 2, 3, channels), np.float32)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(shapes)) == count
    assert module.card.parameters(module, (2, 3, channels)) == count
