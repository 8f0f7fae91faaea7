"""SecondOrderNonLocal against its equations, with NumPy's covariance in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.order.second_order_non_local import SecondOrderNonLocal


def oracle(variables, points):
    """Of the positions of one map, [P, C]: the output, and who reads whom [P, P]."""
    p, state = variables["params"], variables["batch_stats"]["norm"]
    z = points @ p["theta"]["kernel"]
    z = (z - state["mean"]) / np.sqrt(state["var"] + 1e-5)
    z = z * p["norm"]["scale"] + p["norm"]["bias"]
    z = np.where(z > 0, z, 0.01 * z)
    logits = np.cov(z, bias=True) / np.sqrt(z.shape[1])  # of positions, the rows
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    g = points @ p["g"]["kernel"] + p["g"]["bias"]
    return points + weights @ g @ p["out"]["kernel"] + p["out"]["bias"], weights


@pytest.mark.parametrize("reduction", [2, 3])
def test_matches_the_paper(random_variables, reduction):
    module = SecondOrderNonLocal(reduction=reduction)
    x = 2 * np.random.default_rng(1).normal(size=(2, 3, 5, 12)).astype(np.float32)
    variables = random_variables(module, x)
    variables["params"]["norm"]["scale"] += 3  # so that some attend to few
    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    for b, points in enumerate(x.reshape(2, 15, 12).astype(np.float64)):
        want, weights = oracle(exact, points)
        got = maps["token_matrix"].values[b, 0]
        np.testing.assert_allclose(got, weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(y[b].reshape(15, 12), want, rtol=1e-4, atol=1e-5)


def test_starts_as_the_identity():
    module = SecondOrderNonLocal()
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 8)).astype(np.float32)
    run = functools.partial(module.init_with_output, train=False)
    y, _ = jax.jit(run)(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)


def test_has_as_many_parameters_as_its_layers():
    module = SecondOrderNonLocal()
    x = jax.ShapeDtypeStruct((1, 2, 3, 256), np.float32)
    init = functools.partial(module.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), x)["params"]
    count = 256 * 128 + 2 * 128 + (256 + 1) * 128 + (128 + 1) * 256
    assert sum(a.size for a in jax.tree.leaves(params)) == count
