"""Performer against its formula in float64, and against what it estimates."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn import settings
from attn.modules.token.performer import Performer
from attn.ops import kernel_features

B, T, S, C = 2, 5, 7, 12


def tokens(seed=1):
    rng = np.random.default_rng(seed)
    q, kv = rng.normal(size=(B, T, C)), rng.normal(size=(B, S, C))
    return q.astype(np.float32), kv.astype(np.float32)


def oracle(params, q, kv, seen, phi):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    heads = p["out"]["kernel"].shape[0]
    out, matrix = np.zeros(q.shape), np.zeros((B, heads, T, S))
    for b, n in np.ndindex(B, heads):

        def head(name, x, n=n):
            return x @ p[name]["kernel"][:, n] + p[name]["bias"][n]

        query, key = phi(head("query", q[b])), phi(head("key", kv[b]))
        similar = query @ key.T * seen[b]
        matrix[b, n] = similar / similar.sum(-1, keepdims=True)
        out[b] += matrix[b, n] @ head("value", kv[b]) @ p["out"]["kernel"][n]
    return out + p["out"]["bias"], matrix


def favor(x, w):
    """Lemma 1 for x of D = 4, with the scale 4^(-1/4) of each factor."""
    x = x / np.sqrt(2)
    return np.exp(x @ w.T - np.sum(x**2, -1, keepdims=True) / 2) / np.sqrt(len(w))


def relu(x, w):
    return (np.maximum(x @ w.T, 0) + 1e-3) / np.sqrt(len(w))


@pytest.mark.parametrize(("kernel", "phi"), [("softmax", favor), ("relu", relu)])
def test_matches_the_paper(random_variables, kernel, phi):
    module = Performer(num_heads=3, num_features=9, kernel=kernel, seed=5)
    q, kv = tokens()
    seen = np.random.default_rng(0).random((B, S)) < 0.6
    variables = random_variables(module, q, kv)
    w = kernel_features.random_projection(9, 4, seed=5).astype(np.float64)

    run = jax.jit(functools.partial(attn.capture, module, grid=(1, S)))
    y, maps = run(variables, q, kv, kv_mask=seen)

    want = oracle(variables["params"], q, kv, seen, functools.partial(phi, w=w))
    np.testing.assert_allclose(y, want[0], rtol=1e-4, atol=1e-5)
    left, right = maps["factors"].values
    assert left.shape == (B, 3, T, 9)
    np.testing.assert_allclose(left @ right, want[1], rtol=1e-4, atol=1e-6)


def test_many_features_come_near_softmax_attention(random_variables):
    q, kv = tokens()
    exact = attn.create("multi_head")
    variables = random_variables(exact, q, kv)
    want = exact.apply(variables, q, kv, train=False)
    errors = []
    for features in (16, 4096):
        module = Performer(num_features=features)
        y = jax.jit(functools.partial(module.apply, train=False))(variables, q, kv)
        errors.append(np.abs(y - want).max())
    assert errors[1] < 0.1 < errors[0]


@pytest.mark.parametrize("scale", [1, 8, 16])
def test_decoding_is_one_causal_call_however_large_the_tokens_are(scale):
    module = Performer(num_heads=2, num_features=64)
    x = scale * jax.random.normal(jax.random.key(1), (1, 5, 64))
    init = functools.partial(module.init, decode=True, train=False, causal=True)
    variables = jax.jit(init)(jax.random.key(0), x)
    params = {"params": variables["params"]}
    whole = jax.jit(functools.partial(module.apply, train=False, causal=True))
    options = {"decode": True, "causal": True, "train": False, "mutable": ["cache"]}
    step = jax.jit(functools.partial(module.apply, **options))
    cache, found = variables["cache"], []
    for place in range(5):
        y, changed = step(params | {"cache": cache}, x[:, place : place + 1])
        cache = changed["cache"]
        found.append(y)
    want = np.asarray(whole(params, x))
    np.testing.assert_allclose(np.concatenate(found, 1), want, rtol=1e-3, atol=1e-3)
    assert np.abs(want).max() > 1e-2


@pytest.mark.parametrize("name", ["linear", "performer"])
def test_a_sum_of_sources_cannot_be_masked_afterwards(name):
    module, (q, kv) = attn.create(name, num_heads=2), tokens()
    variables = module.init(jax.random.key(0), q, kv, decode=True, train=False)
    options = {"decode": True, "train": False, "mutable": ["cache"]}
    _, changed = module.apply(variables, q, kv, **options)
    mask = np.ones(kv.shape[:2], bool)
    with pytest.raises(settings.Invalid, match="keeps a sum of its sources"):
        module.apply({**variables, **changed}, q, kv_mask=mask, **options)


def test_the_matrix_is_no_variable_and_follows_from_the_seed():
    q, _ = tokens()
    init = functools.partial(Performer().init, jax.random.key(0), train=False)
    variables = jax.jit(init)(q)
    assert set(variables) == {"params"}
    run = lambda seed: Performer(seed=seed).apply(variables, q, train=False)
    np.testing.assert_array_equal(run(0), run(0))
    assert not np.allclose(run(0), run(1), rtol=1e-4)


def test_no_number_of_features_is_d_log_d(random_variables):
    module, (q, _) = Performer(num_heads=2, num_features=None), tokens()
    variables = random_variables(module, q)
    _, maps = jax.eval_shape(functools.partial(attn.capture, module), variables, q)
    assert maps["factors"].values[0].shape == (B, 2, T, 11)  # 6 ln 6 = 10.75
