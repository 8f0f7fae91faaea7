"""SqueezeExcite against equations 2 to 4 in float64, and the published counts."""

import functools
import itertools

import jax
import numpy as np
import pytest

import attn
from attn.models import cost
from attn.modules.channel.squeeze_excite import SqueezeExcite, hidden_channels

SQUEEZE = {"avg": np.mean, "max": np.max, "none": lambda x, axis: x}
EXCITE = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}


def oracle(params, x, squeeze, excitation):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    out = np.zeros(x.shape)
    for b in range(len(x)):
        pooled = SQUEEZE[squeeze](x[b].astype(np.float64), axis=(0, 1))
        for row, column in np.ndindex(x.shape[1:3]):
            z = pooled[row, column] if squeeze == "none" else pooled
            hidden = p["squeeze"]["kernel"].T @ z + p["squeeze"].get("bias", 0)
            s = p["excite"]["kernel"].T @ np.maximum(hidden, 0)
            gate = EXCITE[excitation](s + p["excite"].get("bias", 0))
            out[b, row, column] = x[b, row, column] * gate
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
        (160, 10, 8),  # timm's SEModule has no limit of nine tenths
        (176, 11, 8),
        (288, 18, 16),
        (8, 1, 8),
    ],
)
def test_rounds_the_hidden_width_as_timm(channels, exact, timm):
    assert hidden_channels(channels, 16) == exact
    assert hidden_channels(channels, 16, 8) == timm


@pytest.mark.parametrize("squeeze", SQUEEZE)
def test_records_the_gate_that_it_multiplies_by(random_variables, squeeze):
    module = SqueezeExcite(squeeze=squeeze, reduction=4)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 8)).astype(np.float32)
    variables = random_variables(module, x)
    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    kind = "pixel_gate" if squeeze == "none" else "channel_gate"
    assert list(maps) == [kind]
    gate = maps[kind].values
    gate = gate if squeeze == "none" else gate[:, None, None, :]
    np.testing.assert_allclose(y, x * gate, rtol=1e-6)


def test_without_a_squeeze_it_pays_at_every_position():
    x = jax.ShapeDtypeStruct((1, 5, 7, 32), np.float32)
    for squeeze, places in {"avg": 1, "none": 35}.items():
        module = SqueezeExcite(squeeze=squeeze)
        init = functools.partial(module.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), x)
        found = cost.macs(module.apply, variables, x, train=False)
        assert found == places * 2 * 32 * 2
