"""SimAM against its paper's energy, in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.pixel.simam import SimAM


def energy(t, others, epsilon):
    """Equation 5: the energy of the best linear classifier of t against all others.

    The variance is that of the released code, divided by one less than their number.
    """
    mean = np.mean(others)
    variance = np.sum((others - mean) ** 2) / (len(others) - 1)
    return 4 * (variance + epsilon) / ((t - mean) ** 2 + 2 * variance + 2 * epsilon)


def gates(x, epsilon):
    found = np.zeros(x.shape)
    for b, h, w, c in np.ndindex(x.shape):
        channel = x[b, :, :, c].astype(np.float64).ravel()
        found[b, h, w, c] = 1 / energy(float(x[b, h, w, c]), channel, epsilon)
    return 1 / (1 + np.exp(-found))


@pytest.mark.parametrize("epsilon", [1e-4, 0.3])
def test_matches_the_paper(epsilon):
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.1, 3, size=6)  # of each channel
    x = (scale * rng.normal(size=(2, 3, 5, 6)) + 1).astype(np.float32)
    module = SimAM(epsilon=epsilon)
    y, maps = jax.jit(functools.partial(attn.capture, module))({}, x)
    want = gates(x, epsilon)
    np.testing.assert_allclose(maps["pixel_gate"].values, want, rtol=1e-5)
    np.testing.assert_allclose(y, x * want, rtol=1e-5, atol=1e-6)


def test_a_single_position_and_a_flat_map_have_the_least_gate():
    least = 1 / (1 + np.exp(-0.5))
    apply = functools.partial(SimAM().apply, {}, train=False)
    for shape in [(2, 1, 1, 4), (2, 3, 5, 4)]:
        x = np.full(shape, 3.0, np.float32)
        np.testing.assert_allclose(apply(x), x * least, rtol=1e-6)
