"""EfficientChannel against equations 9 and 12 in float64, and the published counts."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.models import cost
from attn.modules.channel.efficient_channel import EfficientChannel, adaptive_size


def oracle(kernel, x):
    """One gate at a time: output and gates."""
    kernel, x = np.asarray(kernel, np.float64), x.astype(np.float64)
    reach, gates = len(kernel) // 2, np.zeros((len(x), x.shape[-1]))
    for b, c in np.ndindex(gates.shape):
        logit = 0
        for k, weight in enumerate(kernel):
            seen = c + k - reach
            if 0 <= seen < x.shape[-1]:
                logit += weight * x[b, :, :, seen].mean()
        gates[b, c] = 1 / (1 + np.exp(-logit))
    return x * gates[:, None, None, :], gates


@pytest.mark.parametrize(
    ("settings", "channels", "size"),
    [
        ({}, 64, 3),
        ({}, 256, 5),
        ({"gamma": 1.0, "b": 2.0}, 16, 7),
        ({"kernel_size": 1}, 6, 1),
        ({"kernel_size": 7}, 6, 7),
        ({"kernel_size": 9}, 3, 9),
    ],
)
def test_matches_the_paper(random_variables, settings, channels, size):
    module = EfficientChannel(**settings)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, channels)).astype(np.float32)
    variables = random_variables(module, x)
    kernel = variables["params"]["conv"]["kernel"]
    assert kernel.shape == (size, 1, 1)
    assert list(variables["params"]["conv"]) == ["kernel"]

    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)

    want, gates = oracle(kernel[:, 0, 0], x)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps["channel_gate"].values, gates, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "size"),  # of section 3.2 and the released code
    [(64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7), (8, 3), (1, 1)],
)
def test_the_kernel_grows_with_the_logarithm_of_the_channels(channels, size):
    assert adaptive_size(channels) == size
    module = EfficientChannel()
    assert module.card.parameters(module, (4, 5, channels)) == size


def test_costs_as_many_multiply_adds_as_kernel_entries_and_channels():
    module = EfficientChannel(kernel_size=5)
    x = jax.ShapeDtypeStruct((1, 3, 4, 20), np.float32)
    init = functools.partial(module.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)
    assert cost.macs(module.apply, variables, x, train=False) == 5 * 20


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd.* got 4"),
        ({"kernel_size": 0}, "'kernel_size'.*must be a positive int or None, got 0"),
        ({"gamma": 0.0}, "gamma must be above 0, got 0.0"),
    ],
)
def test_says_what_would_fit(settings, says):
    with pytest.raises(ValueError, match=says):
        attn.create("efficient_channel", **settings)
