"""Polarized against its paper's equations, and its released code's, in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.pixel.polarized import Polarized


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


def norm(p, z):
    z = (z - z.mean()) / np.sqrt(z.var() + 1e-5)
    return z * p["norm"]["scale"] + p["norm"]["bias"]


def channel_gate(p, x, variant, order):
    """The channel-only branch of one map, [P, C] -> [C]; positions are rows."""
    weights = softmax(x @ p["channel_query"]["kernel"][:, 0])
    z = weights @ (x @ p["channel_value"]["kernel"])
    if variant == "paper":
        return sigmoid(norm(p, z @ p["excite"]["kernel"]))
    if order == "sequential":
        z = norm(p, z @ p["squeeze"]["kernel"] + p["squeeze"]["bias"])
        z = np.maximum(z, 0)
        return sigmoid(z @ p["excite"]["kernel"] + p["excite"]["bias"])
    return sigmoid(z @ p["excite"]["kernel"])


def spatial_gate(p, x, variant, order):
    """The spatial-only branch of one map, [P, C] -> [P]."""
    query = (x @ p["spatial_query"]["kernel"]).mean(axis=0)
    value = x @ p["spatial_value"]["kernel"]
    if variant == "paper":
        return sigmoid(value @ softmax(query))
    if order == "parallel":
        return sigmoid(softmax(value @ query))
    return sigmoid(np.stack([softmax(c) for c in value.T], axis=-1) @ query)


def oracle(params, x, variant, order):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    outputs = []
    for points in x.reshape(len(x), -1, x.shape[-1]).astype(np.float64):
        channel = points * channel_gate(p, points, variant, order)
        seen = points if order == "parallel" else channel
        spatial = seen * spatial_gate(p, seen, variant, order)[:, None]
        outputs.append(channel + spatial if order == "parallel" else spatial)
    return np.reshape(outputs, x.shape)


@pytest.mark.parametrize("order", ["parallel", "sequential"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_matches_the_paper_and_the_released_code(random_variables, variant, order):
    module = Polarized(variant=variant, order=order)
    x = 2 * np.random.default_rng(1).normal(size=(2, 3, 5, 16)).astype(np.float32)
    variables = random_variables(module, x)
    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    want = oracle(variables["params"], x, variant, order)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    # the maps are those by which x was multiplied
    by = maps["channel_gate"].values[:, None, None], maps["spatial_map"].values
    total = by[0] + by[1][..., None]
    if order == "sequential":
        total = by[0] * by[1][..., None]
    np.testing.assert_allclose(x * total, want, rtol=1e-5, atol=1e-5)


def test_gates_are_a_half_where_all_parameters_are_zero(random_variables):
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 8)).astype(np.float32)
    for order, share in [("parallel", 1.0), ("sequential", 0.25)]:
        module = Polarized(order=order)
        zeros = jax.tree.map(np.zeros_like, random_variables(module, x))
        y = jax.jit(functools.partial(module.apply, train=False))(zeros, x)
        np.testing.assert_allclose(y, share * x, rtol=1e-6)


# 2 C^2 + C of the four maps and w_q; then the norm, or the bottleneck instead of W_z.
@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2 * 64**2 + 3 * 64),
        ({"variant": "released"}, 2 * 64**2 + 64),
        (
            {"variant": "released", "order": "sequential"},
            3 * 64 * 32 + 64 + (32 * 8 + 8) + 2 * 8 + (8 * 64 + 64),
        ),
    ],
)
def test_has_as_many_parameters_as_the_released_code(settings, count):
    module = Polarized(**settings)
    x = np.zeros((1, 2, 3, 64), np.float32)
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(shapes)) == count


def test_what_all_channels_have_in_common_is_lost_and_nothing_else(random_variables):
    """In the norm, where a difference of two squares would lose digits as well."""
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 16)).astype(np.float32)
    module = Polarized()
    params = jax.tree.map(np.array, random_variables(module, x)["params"])
    plain = module.apply({"params": params}, x, train=False)
    params["excite"]["kernel"] += np.float32(1000)
    far = module.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(far, plain, atol=2e-3)
