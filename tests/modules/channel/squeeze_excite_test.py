"""SqueezeExcite against equations 2 to 4 in float64, and the published counts."""

import functools
import itertools

import jax
import numpy as np
import pytest

from attn.modules.channel.squeeze_excite import SqueezeExcite, hidden_channels

SQUEEZE = {"avg": np.mean, "max": np.max}
EXCITE = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}


def oracle(params, x, squeeze, excitation):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    out = np.zeros(x.shape)
    for b in range(len(x)):
        z = SQUEEZE[squeeze](x[b].astype(np.float64), axis=(0, 1))
        hidden = p["squeeze"]["kernel"].T @ z + p["squeeze"].get("bias", 0)
        s = p["excite"]["kernel"].T @ np.maximum(hidden, 0) + p["excite"].get("bias", 0)
        out[b] = x[b] * EXCITE[excitation](s)
    return out


@pytest.mark.parametrize(
    ("squeeze", "excitation", "bias", "divisor"),
    list(itertools.product(SQUEEZE, EXCITE, (True, False), (1, 8))),
)
def test_matches_the_paper(random_variables, squeeze, excitation, bias, divisor):
    module = SqueezeExcite(
        squeeze=squeeze, excitation=excitation, bias=bias, divisor=divisor
    )
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 32)).astype(np.float32)
    variables = random_variables(module, x)

    y = jax.jit(functools.partial(module.apply, train=False))(variables, x)

    assert ("bias" in variables["params"]["squeeze"]) == bias
    assert variables["params"]["squeeze"]["kernel"].shape == (32, {1: 2, 8: 8}[divisor])
    want = oracle(variables["params"], x, squeeze, excitation)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, {64: 580, 256: 8_464, 512: 33_312, 2048: 526_464}),
        ({"bias": False}, {64: 512, 256: 8_192, 512: 32_768, 2048: 524_288}),
        ({"divisor": 8}, {64: 1_096, 256: 8_464}),
        ({"divisor": 8, "bias": False}, {64: 1_024, 256: 8_192}),
    ],
)
def test_has_the_published_number_of_parameters(settings, counts):
    for channels, want in counts.items():
        module = SqueezeExcite(**settings)
        init = functools.partial(module.init, train=False)
        x = np.zeros((1, 2, 3, channels), np.float32)
        shapes = jax.eval_shape(init, jax.random.key(0), x)
        assert sum(a.size for a in jax.tree.leaves(shapes)) == want
        assert module.card.parameters(module, (2, 3, channels)) == want


@pytest.mark.parametrize(
    ("channels", "exact", "timm"),
    [
        (32, 2, 8),
        (64, 4, 8),
        (96, 6, 8),
        (128, 8, 8),
        (320, 20, 24),
        (176, 11, 16),  # 8 is nearest, but less than nine tenths of 11
        (8, 1, 8),
    ],
)
def test_rounds_the_hidden_width_as_timm(channels, exact, timm):
    assert hidden_channels(channels, 16) == exact
    assert hidden_channels(channels, 16, 8) == timm
