"""CrossCovariance against equation 2 in float64, one pair of channels at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.modules.token.cross_covariance import CrossCovariance

B, T, C = 2, 7, 12


def tokens(seed=1):
    return np.random.default_rng(seed).normal(size=(2, B, T, C)).astype(np.float32)


def oracle(params, q, kv, seen):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    heads, dim = p["out"]["kernel"].shape[:2]
    out, matrix = np.zeros(q.shape), np.zeros((B, heads, dim, dim))
    for b, n in np.ndindex(B, heads):

        def head(name, x, n=n):
            return x @ p[name]["kernel"][:, n] + p[name]["bias"][n]

        query, key, value = (
            head(name, x[b]) for name, x in (("query", q), ("key", kv), ("value", kv))
        )
        for d in range(dim):
            one = query[seen[b], d]
            cosines = [
                one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                for other in key[seen[b]].T
            ]
            weights = np.exp(p["temperature"][n] * np.array(cosines))
            matrix[b, n, d] = weights / weights.sum()
        mixed = np.stack([matrix[b, n] @ token for token in value])
        out[b] += mixed @ p["out"]["kernel"][n]
    return out + p["out"]["bias"], matrix


@pytest.mark.parametrize("cross", [False, True])
def test_matches_the_paper(random_variables, cross):
    module, (q, kv) = CrossCovariance(num_heads=3), tokens()
    kv = kv if cross else q
    seen = np.ones((B, T), bool)
    mask = None
    if cross:
        seen = np.random.default_rng(0).random((B, T)) < 0.6
        mask = seen
    variables = random_variables(module, q, kv)

    run = jax.jit(functools.partial(attn.capture, module))
    y, maps = run(variables, q, *((kv,) if cross else ()), kv_mask=mask)

    want, matrix = oracle(variables["params"], q, kv, seen)
    # Padding has no values of its own.
    np.testing.assert_allclose(y[seen], want[seen], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        maps["channel_matrix"].values, matrix, rtol=1e-5, atol=1e-6
    )


def test_starts_with_a_factor_of_one():
    init = functools.partial(CrossCovariance().init, jax.random.key(0), train=False)
    temperature = init(tokens()[0])["params"]["temperature"]
    np.testing.assert_array_equal(temperature, np.ones(4))


def test_does_not_change_with_the_length_of_queries_and_keys(random_variables):
    module, (x, _) = CrossCovariance(qkv_bias=False), tokens()
    params = random_variables(module, x)["params"]
    longer = jax.tree.map(lambda a: a, params)
    for name in ("query", "key"):
        longer[name] = {"kernel": 50 * params[name]["kernel"]}
    run = jax.jit(functools.partial(module.apply, train=False))
    y, want = run({"params": longer}, x), run({"params": params}, x)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)


def test_tokens_of_zeros_have_finite_gradients():
    module = CrossCovariance(qkv_bias=False)
    x = jnp.zeros((B, T, C))
    variables = module.init(jax.random.key(0), x, train=False)
    loss = lambda v, x: jnp.sum(module.apply(v, x, train=False))
    for grad in jax.tree.leaves(jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, x)):
        assert np.all(np.isfinite(grad))


@pytest.mark.parametrize(
    ("channels", "heads", "count"),
    [(64, 8, 16_648), (256, 8, 263_176), (512, 8, 1_050_632), (2048, 8, 16_785_416)],
)
def test_has_the_published_number_of_parameters(channels, heads, count):
    module = CrossCovariance(num_heads=heads)
    assert module.card.parameters(module, (3, channels)) == count


def test_says_that_tokens_must_be_as_many():
    x, _ = tokens()
    with pytest.raises(ValueError, match=r"one shape .* \(2, 7, 4, 3\) and \(2, 6,"):
        CrossCovariance().init(jax.random.key(0), x, x[:, :6], train=False)
