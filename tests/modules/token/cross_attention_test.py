"""CrossAttention against section 3.2.3 in float64, with sources of another width."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.token.cross_attention import CrossAttention

B, T, S, C, E = 2, 5, 7, 12, 10


def tokens(seed=1):
    rng = np.random.default_rng(seed)
    q, kv = rng.normal(size=(B, T, C)), rng.normal(size=(B, S, E))
    return q.astype(np.float32), kv.astype(np.float32)


def oracle(params, q, kv, mask):
    """One target of one head of one example at a time, in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    if "kv_ln" in p:
        spread = np.sqrt(((kv - kv.mean(-1, keepdims=True)) ** 2).mean(-1) + 1e-6)
        kv = (kv - kv.mean(-1, keepdims=True)) / spread[..., None]
        kv = kv * p["kv_ln"]["scale"] + p["kv_ln"]["bias"]
    heads, dim = p["out"]["kernel"].shape[:2]
    out, matrix = np.zeros(q.shape), np.zeros((B, heads, T, kv.shape[1]))
    for b, n, t in np.ndindex(B, heads, T):

        def head(name, x, n=n):
            return x @ p[name]["kernel"][:, n] + p[name].get("bias", np.zeros(heads))[n]

        logits = head("key", kv[b]) @ head("query", q[b, t]) / np.sqrt(dim)
        weights = np.where(mask[b, 0, t], np.exp(logits), 0)
        matrix[b, n, t] = weights / weights.sum()
        out[b, t] += matrix[b, n, t] @ head("value", kv[b]) @ p["out"]["kernel"][n]
    return out + p["out"].get("bias", 0), matrix


@pytest.mark.parametrize(
    "settings",
    [
        {"kv_norm": True},
        {"num_heads": 3, "kv_channels": E, "qkv_bias": False, "out_bias": False},
    ],
    ids=str,
)
def test_matches_the_paper(random_variables, settings):
    module, (q, kv) = CrossAttention(**settings), tokens()
    mask = np.random.default_rng(2).random((B, 1, T, S)) < 0.5
    mask[..., 1] = True
    variables = random_variables(module, q, kv)

    run = jax.jit(functools.partial(attn.capture, module, grid=(1, S)))
    y, maps = run(variables, q, kv, mask=mask)

    want, matrix = oracle(variables["params"], q, kv, mask)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    got = maps["token_matrix"]
    assert got.grid == (1, S)
    np.testing.assert_allclose(got.values, matrix, rtol=1e-5, atol=1e-6)


def test_without_sources_it_is_multi_head(random_variables):
    q, _ = tokens()
    module, same = CrossAttention(num_heads=3), attn.create("multi_head", num_heads=3)
    variables = random_variables(module, q)
    y = jax.jit(functools.partial(module.apply, train=False))(variables, q)
    want = jax.jit(functools.partial(same.apply, train=False))(variables, q)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_counts_parameters_of_sources_of_another_width():
    module, (q, kv) = CrossAttention(kv_channels=E, kv_norm=True), tokens()
    init = functools.partial(module.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), q, kv)["params"]
    count = sum(a.size for a in jax.tree.leaves(params))
    assert count == module.card.parameters(module, (T, C)) == 2 * C * (C + E) + 68


@pytest.mark.parametrize("kv", [None, np.zeros((B, S, E + 1), np.float32)])
def test_refuses_sources_of_a_width_it_is_not_for(kv):
    width = C if kv is None else E + 1
    module = CrossAttention(kv_channels=E)
    with pytest.raises(ValueError, match=f"kv_channels={E}, but .* have {width}"):
        module.init(jax.random.key(0), tokens()[0], kv, train=False)
