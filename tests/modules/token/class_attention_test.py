"""ClassAttention against CaiT's equations in float64, with and without kv."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.token.class_attention import ClassAttention

B, S, C = 2, 7, 12


def tokens(seed=1):
    return np.random.default_rng(seed).normal(size=(B, S, C)).astype(np.float32)


def oracle(params, token, tokens, seen):
    """The new class token [B, C] and its weights [B, N, S]."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    heads, dim = p["out"]["kernel"].shape[:2]
    out, weights = np.zeros((B, C)), np.zeros((B, heads, S))
    for b, n in np.ndindex(B, heads):

        def head(name, x, n=n):
            return x @ p[name]["kernel"][:, n] + p[name]["bias"][n]

        logits = head("key", tokens[b]) @ head("query", token[b]) / np.sqrt(dim)
        row = np.exp(logits) * seen[b]
        weights[b, n] = row / row.sum()
        out[b] += weights[b, n] @ head("value", tokens[b]) @ p["out"]["kernel"][n]
    return out + p["out"]["bias"], weights


@pytest.mark.parametrize("others", ["keep", "zero"])
def test_without_kv_the_first_token_asks_and_others_pass(random_variables, others):
    module, x = ClassAttention(num_heads=3, others=others), tokens()
    variables = random_variables(module, x)
    seen = np.random.default_rng(0).random((B, S)) < 0.6

    run = jax.jit(functools.partial(attn.capture, module))
    y, maps = run(variables, x, mask=seen[:, None, None])

    want, weights = oracle(variables["params"], x[:, 0], x, seen)
    np.testing.assert_allclose(y[:, 0], want, rtol=1e-5, atol=1e-5)
    kept = others == "keep"
    np.testing.assert_array_equal(y[:, 1:], kept * x[:, 1:])
    matrix = np.asarray(maps["token_matrix"].values)
    np.testing.assert_allclose(matrix[:, :, 0], weights, rtol=1e-5, atol=1e-6)
    rest = np.broadcast_to(kept * np.eye(S)[1:], (B, 3, S - 1, S))
    np.testing.assert_array_equal(matrix[:, :, 1:], rest)


def test_with_kv_it_is_the_class_token_alone(random_variables):
    module, x = ClassAttention(), tokens()
    token = tokens(seed=2)[:, :1]
    variables = random_variables(module, token, x)

    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, token, x)

    want, weights = oracle(variables["params"], token[:, 0], x, np.ones((B, S)))
    assert y.shape == (B, 1, C)
    np.testing.assert_allclose(y[:, 0], want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        maps["token_matrix"].values[:, :, 0], weights, rtol=1e-5, atol=1e-6
    )


def test_has_the_parameters_of_cait():
    # One of CaiT-XXS's class layers, C = 192: four maps with biases.
    module = ClassAttention(num_heads=4)
    assert module.card.parameters(module, (197, 192)) == 4 * 192 * 192 + 4 * 192
