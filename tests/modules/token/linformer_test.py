"""Linformer against equation 7 in float64, for each way of sharing."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.token.linformer import Linformer

B, T, S, C, R = 2, 5, 7, 12, 3


def tokens(seed=1):
    rng = np.random.default_rng(seed)
    q, kv = rng.normal(size=(B, T, C)), rng.normal(size=(B, S, C))
    return q.astype(np.float32), kv.astype(np.float32)


def oracle(params, q, kv, seen):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    sources, heads = kv.shape[1], p["out"]["kernel"].shape[0]
    out, matrix = np.zeros(q.shape), np.zeros((B, heads, q.shape[1], sources))
    for b, n in np.ndindex(B, heads):

        def head(name, x, n=n):
            return x @ p[name]["kernel"][:, n] + p[name]["bias"][n]

        e = p["key_rows"][n % len(p["key_rows"])][:, :sources] * seen[b]
        f = p.get("value_rows", p["key_rows"])
        f = f[n % len(f)][:, :sources] * seen[b]
        query = head("query", q[b])
        logits = query @ (e @ head("key", kv[b])).T / np.sqrt(query.shape[-1])
        weights = np.exp(logits)
        weights = weights / weights.sum(-1, keepdims=True)
        matrix[b, n] = weights @ f
        out[b] += weights @ (f @ head("value", kv[b])) @ p["out"]["kernel"][n]
    return out + p["out"]["bias"], matrix


@pytest.mark.parametrize(
    ("share", "matrices"), [("headwise", 2), ("none", 6), ("key_value", 1)]
)
def test_matches_the_paper(random_variables, share, matrices):
    module, (q, kv) = Linformer(num_heads=3, rank=R, share=share), tokens()
    seen = np.random.default_rng(0).random((B, S)) < 0.6
    variables = random_variables(module, q, kv)

    run = jax.jit(functools.partial(attn.capture, module, grid=(1, S)))
    y, maps = run(variables, q, kv, kv_mask=seen)

    want, matrix = oracle(variables["params"], q, kv, seen)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    left, right = maps["factors"].values
    np.testing.assert_allclose(left @ right, matrix, rtol=1e-4, atol=1e-5)
    count = sum(a.size for a in jax.tree.leaves(variables))
    assert count == 4 * C * C + 4 * C + matrices * R * S
    assert count == module.card.parameters(module, (S, C))


def test_the_identity_for_e_and_f_is_multi_head(random_variables):
    q, kv = tokens()
    exact, module = attn.create("multi_head"), Linformer(rank=S)
    variables = random_variables(exact, q, kv)
    rows = {name: np.eye(S)[None] for name in ("key_rows", "value_rows")}
    both = {"params": {**variables["params"], **rows}}
    y = jax.jit(functools.partial(module.apply, train=False))(both, q, kv)
    want = exact.apply(variables, q, kv, train=False)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_shorter_sequences_use_the_first_columns(random_variables):
    module, (q, kv) = Linformer(num_heads=3, rank=R, max_length=S + 2), tokens()
    variables = random_variables(module, q, kv)
    assert variables["params"]["key_rows"].shape == (1, R, S + 2)
    run = jax.jit(functools.partial(module.apply, train=False))
    for length in (S, 2):
        short = kv[:, :length]
        want, _ = oracle(variables["params"], q, short, np.ones((B, length)))
        np.testing.assert_allclose(run(variables, q, short), want, rtol=1e-4, atol=1e-5)


def test_projected_keys_start_as_large_as_keys():
    module, x = Linformer(rank=20), np.zeros((1, 300, C), np.float32)
    init = functools.partial(module.init, jax.random.key(0), train=False)
    rows = jax.jit(init)(x)["params"]["key_rows"]
    assert np.sqrt(300) * rows.std() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("max_length", "sources", "says"),
    [
        (None, S - 1, "are for 7 sources, got 6"),
        (None, S + 1, "are for 7 sources, got 8"),
        (S, S + 1, "are for up to 7 sources, got 8"),
    ],
)
def test_says_what_length_it_is_for(random_variables, max_length, sources, says):
    module, (q, kv) = Linformer(max_length=max_length), tokens()
    variables = random_variables(module, q, kv)
    longer = np.zeros((B, sources, C), np.float32)
    with pytest.raises(ValueError, match=says):
        module.apply(variables, q, longer, train=False)
