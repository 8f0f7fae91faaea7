"""SecondOrderChannel against its paper, with an eigen-decomposition in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.models import cost
from attn.modules.order.second_order_channel import SecondOrderChannel


def gate_of(params, z):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    hidden = z @ p["squeeze"]["kernel"] + p["squeeze"]["bias"]
    logits = np.maximum(hidden, 0) @ p["excite"]["kernel"] + p["excite"]["bias"]
    return 1 / (1 + np.exp(-logits))


def root(covariance, iterations, norm):
    """The recursion of Newton-Schulz on eigenvalues; iterations None is the root."""
    values, vectors = np.linalg.eigh(covariance)
    if iterations is None:
        found = np.sqrt(np.maximum(values, 0))
    else:
        n = np.sum(values) if norm == "trace" else np.sqrt(np.sum(values**2))
        y, z = values / n, np.ones_like(values)
        for _ in range(iterations):
            y, z = y * (3 - z * y) / 2, (3 - z * y) * z / 2
        found = np.sqrt(n) * y
    return vectors * found @ vectors.T


def matrices(x, iterations, norm="trace"):
    """Covariances of the channels, and their roots."""
    points = x.reshape(len(x), -1, x.shape[-1]).astype(np.float64)
    covariances = [np.cov(p, rowvar=False, bias=True) for p in points]
    roots = [root(c, iterations, norm) for c in covariances]
    return np.stack(covariances), np.stack(roots)


def descriptor(x, iterations, norm="trace"):
    return matrices(x, iterations, norm)[1].mean(axis=2)


def made(random_variables, **settings):
    module = SecondOrderChannel(reduction=4, **settings)
    x = 2 * np.random.default_rng(1).normal(size=(2, 5, 7, 12)).astype(np.float32)
    return module, random_variables(module, x), x


@pytest.mark.parametrize("norm", ["trace", "frobenius"])
@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_matches_the_paper(random_variables, norm, iterations):
    module, variables, x = made(random_variables, iterations=iterations, norm=norm)
    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    gate = gate_of(variables["params"], descriptor(x, iterations, norm))
    assert maps.keys() == {"channel_gate", "covariance"}
    recorded = maps["covariance"].values
    for got, want in zip(recorded, matrices(x, iterations, norm), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps["channel_gate"].values, gate, rtol=1e-5, atol=1e-6)
    want = x * gate[:, None, None]
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_many_iterations_gate_by_the_exact_root(random_variables):
    module, variables, x = made(random_variables, iterations=20)
    y = jax.jit(functools.partial(module.apply, train=False))(variables, x)
    gate = gate_of(variables["params"], descriptor(x, None))
    np.testing.assert_allclose(y, x * gate[:, None, None], rtol=1e-4, atol=1e-4)


def test_maps_that_do_not_vary_have_the_gate_of_the_biases(random_variables):
    module, variables, x = made(random_variables)
    flat = np.broadcast_to(x[:, :1, :1], x.shape)
    y = jax.jit(functools.partial(module.apply, train=False))(variables, flat)
    gate = gate_of(variables["params"], np.zeros(12))
    np.testing.assert_allclose(y, flat * gate, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "count"), [(64, 580), (256, 8_464), (512, 33_312), (2048, 526_464)]
)
def test_has_the_published_number_of_parameters(channels, count):
    module = SecondOrderChannel()
    init = functools.partial(module.init, train=False)
    x = np.zeros((1, 2, 3, channels), np.float32)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(shapes)) == count
    assert module.card.parameters(module, (2, 3, channels)) == count


@pytest.mark.parametrize(("iterations", "products"), [(0, 0), (1, 1), (2, 3), (5, 12)])
def test_pays_for_the_covariance_and_three_products_an_iteration(iterations, products):
    module = SecondOrderChannel(iterations=iterations)
    x = jax.ShapeDtypeStruct((1, 5, 7, 32), np.float32)
    variables = jax.eval_shape(
        functools.partial(module.init, train=False), jax.random.key(0), x
    )
    found = cost.macs(module.apply, variables, x, train=False)
    assert found == 35 * 32**2 + products * 32**3 + 2 * 32 * 2
