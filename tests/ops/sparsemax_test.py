"""Sparsemax and 1.5-entmax against their definitions, in float64.

The oracle finds the threshold by bisection, with no sorting, and the optimum is
checked by what it is the optimum of.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import entmax15, sparsemax

FUNCTIONS = {"sparsemax": sparsemax, "entmax15": entmax15}
each = pytest.mark.parametrize("name", list(FUNCTIONS))
LOGITS = np.random.default_rng(0).normal(scale=1.2, size=(3, 5, 7))


def weigh(name, z, tau):
    if name == "sparsemax":
        return np.maximum(z - tau, 0)
    return np.maximum(z / 2 - tau, 0) ** 2


def bisect(name, z):
    """A row of weights: the threshold at which they sum to 1."""
    low, high = z.min() - 10, z.max() + 10
    for _ in range(200):
        middle = (low + high) / 2
        if weigh(name, z, middle).sum() > 1:
            low = middle
        else:
            high = middle
    return weigh(name, z, middle)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@each
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_equals_bisection(double, name, scale):
    z = scale * LOGITS
    want = np.apply_along_axis(lambda row: bisect(name, row), -1, z)
    got = jax.jit(FUNCTIONS[name])(z)
    np.testing.assert_allclose(got, want, atol=1e-12)
    if scale == 1:
        share = np.mean(want == 0)
        assert 0.05 < share < 0.9, "some weights are zeros, and not all but one"
        np.testing.assert_array_equal(got == 0, want == 0)


def objective(name, p, z):
    """What the weights are the largest of: equation 2 of both papers."""
    if name == "sparsemax":
        return p @ z - 0.5 * (p @ p)
    return p @ z + 4 / 3 * (p - p**1.5).sum()


@each
def test_is_the_best_point_of_the_simplex(double, name):
    z = LOGITS[0, 0]
    p = np.asarray(FUNCTIONS[name](z))
    best = objective(name, p, z)
    rng = np.random.default_rng(1)
    for scale in (1.0, 0.1, 0.001):
        others = (1 - scale) * p + scale * rng.dirichlet(np.full(7, 0.5), size=2000)
        assert max(objective(name, other, z) for other in others) <= best


@each
def test_derivatives_are_those_of_differences(double, name):
    z, direction = LOGITS[1], np.random.default_rng(2).normal(size=(5, 7))
    cotangent = np.random.default_rng(3).normal(size=(5, 7))
    loss = lambda z: jnp.sum(jnp.sin(3 * FUNCTIONS[name](z)) * cotangent)
    slope = lambda z: jnp.sum(jax.grad(loss)(z) * direction)
    for function, order in ((loss, 1), (slope, 2)):
        gradient = np.asarray(jax.jit(jax.grad(function))(z))
        assert np.abs(gradient).max() > 0.1
        steps = 1e-6 * np.eye(z.size).reshape(-1, *z.shape)
        run = jax.jit(jax.vmap(function))
        difference = (run(z + steps) - run(z - steps)).reshape(z.shape) / 2e-6
        np.testing.assert_allclose(gradient, difference, atol=1e-7, err_msg=order)


@each
def test_masked_entries_and_rows_get_nothing(double, name):
    z = LOGITS[2].copy()
    z[:, 1] = z[2, 3:] = z[4] = -np.inf
    run = lambda z: jnp.sum(FUNCTIONS[name](z) * LOGITS[0])
    got, gradient = FUNCTIONS[name](z), jax.grad(run)(z)
    np.testing.assert_array_equal(got[4], 0)
    np.testing.assert_array_equal(gradient[4], 0)
    np.testing.assert_array_equal(gradient[:, 1], 0)
    for row in range(4):
        keep = np.isfinite(z[row])
        np.testing.assert_allclose(
            got[row, keep], bisect(name, z[row, keep]), atol=1e-12
        )
        np.testing.assert_array_equal(got[row, ~keep], 0)


@each
def test_takes_any_axis(name):
    run = jax.jit(FUNCTIONS[name], static_argnames="axis")
    z = LOGITS.astype(np.float32)
    want = np.moveaxis(run(np.moveaxis(z, 1, -1)), -1, 1)
    np.testing.assert_array_equal(run(z, axis=1), want)
    np.testing.assert_allclose(want.sum(1), 1, atol=1e-6)


@each
def test_stays_exact_in_float32_and_for_many_logits(name):
    rng = np.random.default_rng(4)
    one = np.r_[0.0, -0.98 + 1e-4 * rng.normal(size=4095)]
    rows = [one, 1.8 * one, np.zeros(4096), 1e-3 * rng.normal(size=4096), 500 * one]
    rows = np.stack(rows).astype(np.float32)
    got = jax.jit(FUNCTIONS[name])(rows)
    want = np.apply_along_axis(
        lambda row: bisect(name, row), -1, rows.astype(np.float64)
    )
    np.testing.assert_allclose(got, want, atol=3e-6)
    np.testing.assert_allclose(np.asarray(got, np.float64).sum(-1), 1, atol=3e-5)
    low = FUNCTIONS[name](jnp.asarray(LOGITS, jnp.bfloat16))
    assert low.dtype == jnp.float32


@each
def test_ties_share_and_a_clear_winner_takes_all(name):
    tied = FUNCTIONS[name](jnp.asarray([1.0, 1.0, 1.0, -9.0]))
    np.testing.assert_allclose(tied, [1 / 3, 1 / 3, 1 / 3, 0], atol=1e-6)
    won = FUNCTIONS[name](jnp.asarray([5.0, 2.0, 1e30, -1e30]))
    np.testing.assert_array_equal(won, [0, 0, 1, 0])
