"""Linear attention against equations 5 and 7 in float64, pair by pair of tokens."""

import functools

import jax
import numpy as np

import attn
from attn.modules.token.linear import LinearAttention

B, T, S, C = 2, 5, 7, 12


def tokens(seed=1):
    rng = np.random.default_rng(seed)
    q, kv = rng.normal(size=(B, T, C)), rng.normal(size=(B, S, C))
    return q.astype(np.float32), kv.astype(np.float32)


def phi(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1) + 1


def oracle(params, q, kv, seen):
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


def test_matches_the_paper(random_variables):
    module, (q, kv) = LinearAttention(num_heads=3), tokens()
    seen = np.random.default_rng(0).random((B, S)) < 0.6
    variables = random_variables(module, q, kv)

    run = jax.jit(functools.partial(attn.capture, module, grid=(1, S)))
    y, maps = run(variables, q, kv, kv_mask=seen)

    want, matrix = oracle(variables["params"], q, kv, seen)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    left, right = maps["factors"].values
    assert left.shape == (B, 3, T, 4)
    assert maps["factors"].grid == (1, S)
    np.testing.assert_allclose(left @ right, matrix, rtol=1e-4, atol=1e-6)


def test_one_source_is_read_whatever_it_is(random_variables):
    module, (q, kv) = LinearAttention(), tokens()
    variables = random_variables(module, q)
    y = module.apply(variables, q, kv[:, :1], train=False)
    np.testing.assert_allclose(y, np.broadcast_to(y[:, :1], y.shape), rtol=1e-4)
