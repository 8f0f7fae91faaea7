"""Draws by Gumbel noise: how often each comes, and the gradient of the relaxed one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops

LOGITS = np.array([[0.5, -1.0, 2.0, 0.0], [3.0, 0.0, 1.0, -2.0]], np.float32)
MASK = np.array([[True, True, False, True], [False] * 4])


def draws(function, count=20_000, **options):
    run = lambda key: function(key, jnp.asarray(LOGITS), **options)
    return np.asarray(
        jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), count))
    )


@pytest.mark.parametrize("name", ["draw_one_hot", "straight_through_gumbel"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "some"])
def test_categories_come_as_often_as_the_softmax_says(name, mask):
    found = draws(getattr(ops, name), mask=mask)
    assert set(np.unique(found)) == {0, 1}
    there = np.ones((2, 4), bool) if mask is None else mask
    weights = np.where(there, np.exp(LOGITS.astype(np.float64)), 0)
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found.sum(axis=-1).mean(axis=0), weights.sum(-1))
    np.testing.assert_allclose(found.mean(axis=0), weights, atol=4 * 0.5 / 20_000**0.5)
    assert not np.any(found[:, ~there])


def test_both_draw_the_same():
    one, other = (
        draws(f, 50, mask=jnp.asarray(MASK))
        for f in (ops.draw_one_hot, ops.straight_through_gumbel)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_the_gradient_is_that_of_the_relaxed_draw(temperature):
    key, value = jax.random.key(3), np.array([1.0, -2.0, 0.5, 3.0], np.float32)

    def loss(logits):
        y = ops.straight_through_gumbel(key, logits, MASK, temperature=temperature)
        return jnp.sum(jnp.sin(y @ value))

    found = jax.grad(loss)(jnp.asarray(LOGITS))
    noise = np.asarray(jax.random.gumbel(key, LOGITS.shape, jnp.float32), np.float64)
    weights = np.where(MASK, np.exp((LOGITS + noise) / temperature), 0)[0]
    weights /= weights.sum()
    slope = (np.diag(weights) - np.outer(weights, weights)) / temperature @ value
    chosen = np.argmax(np.where(MASK, LOGITS + noise, -np.inf)[0])
    np.testing.assert_allclose(found[0], np.cos(value[chosen]) * slope, rtol=1e-4)
    np.testing.assert_array_equal(found[1], 0)
