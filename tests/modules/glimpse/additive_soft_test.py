"""AdditiveSoft against Bahdanau's and Xu's equations in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.glimpse.additive_soft import AdditiveSoft

B, T, S, C = 2, 5, 6, 8


def tokens(seed=1):
    rng = np.random.default_rng(seed)
    q, kv = rng.normal(size=(B, T, C)), rng.normal(size=(B, S, C))
    return q.astype(np.float32), kv.astype(np.float32)


def oracle(params, q, kv, mask):
    """One pair at a time, in float64: outputs [B, T, C] and weights [B, T, S]."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    weights = np.zeros((B, q.shape[1], kv.shape[1]))
    z = np.zeros(q.shape)
    for b, t in np.ndindex(B, q.shape[1]):
        for s in np.flatnonzero(mask[b, 0, t]):
            inner = q[b, t] @ p["query"]["kernel"] + kv[b, s] @ p["key"]["kernel"]
            inner = np.tanh(inner + p["query"].get("bias", 0))
            weights[b, t, s] = np.exp(inner @ p["score"])
        weights[b, t] /= weights[b, t].sum()
        z[b, t] = sum(weights[b, t, s] * kv[b, s] for s in range(kv.shape[1]))
    return z, weights


@pytest.mark.parametrize("cross", [True, False])
@pytest.mark.parametrize("settings", [{}, {"bias": True, "hidden": 3}], ids=str)
def test_matches_the_papers(random_variables, settings, cross):
    module, (q, kv) = AdditiveSoft(**settings), tokens()
    inputs = (q, kv) if cross else (q,)
    kv = kv if cross else q
    mask = np.random.default_rng(2).random((B, 1, T, kv.shape[1])) < 0.6
    mask |= np.arange(kv.shape[1]) == 3  # every target sees something
    variables = random_variables(module, *inputs)

    capture = functools.partial(attn.capture, module, grid=(1, kv.shape[1]))
    y, maps = jax.jit(capture)(variables, *inputs, mask=mask)

    want, weights = oracle(variables["params"], q, kv, mask)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    got = maps["token_matrix"]
    assert got.grid == (1, kv.shape[1])
    np.testing.assert_allclose(got.values[:, 0], weights, rtol=1e-5, atol=1e-6)


def test_places_are_of_queries_and_keys_and_are_not_read(random_variables):
    module, (q, kv) = AdditiveSoft(), tokens()
    variables = random_variables(module, q, kv)
    places = {"q_position": tokens(3)[0], "k_position": tokens(4)[1]}
    _, maps = attn.capture(module, variables, q, kv, **places)
    moved = [q + places["q_position"], kv + places["k_position"]]
    _, want = attn.capture(module, variables, *moved)
    weights = maps["token_matrix"].values
    np.testing.assert_allclose(weights, want["token_matrix"].values, rtol=1e-5)
    y = module.apply(variables, q, kv, train=False, **places)
    np.testing.assert_allclose(y, weights[:, 0] @ kv, rtol=1e-4, atol=1e-5)


def test_output_lies_among_the_annotations(random_variables):
    module, (q, kv) = AdditiveSoft(), tokens()
    y = module.apply(random_variables(module, q, kv), q, kv, train=False)
    assert np.all(y >= kv.min(1, keepdims=True) - 1e-6)
    assert np.all(y <= kv.max(1, keepdims=True) + 1e-6)


def test_one_source_is_read_whole(random_variables):
    module, (q, kv) = AdditiveSoft(), tokens()
    variables = random_variables(module, q, kv)
    y = module.apply(variables, q, kv[:, :1], train=False)
    np.testing.assert_allclose(y, np.repeat(kv[:, :1], T, axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2 * 64 * 64 + 64),
        ({"hidden": 10}, 2 * 64 * 10 + 10),
        ({"bias": True}, 2 * 64 * 64 + 64 + 64),
    ],
    ids=str,
)
def test_number_of_parameters(settings, count):
    module = AdditiveSoft(**settings)
    init = functools.partial(module.init, train=False)
    x = np.zeros((1, 3, 64), np.float32)
    params = jax.eval_shape(init, jax.random.key(0), x)["params"]
    assert sum(a.size for a in jax.tree.leaves(params)) == count
    assert module.card.parameters(module, (3, 64)) == count
