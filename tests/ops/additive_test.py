"""Additive scores against all pairs at once, in blocks and whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import additive

B, T, S, A = 2, 7, 5, 3


def tokens(dtype=np.float32):
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.normal(size=shape), dtype)
        for shape in ((B, T, A), (B, S, A), A)
    )


def oracle(asked, found, score):
    return jnp.tanh(asked[:, :, None, :] + found[:, None, :, :]) @ score


@pytest.mark.parametrize("at_once", [1, 3 * B * S * A, 2**18])
def test_blocks_give_what_all_pairs_give(monkeypatch, at_once):
    monkeypatch.setattr(additive, "AT_ONCE", at_once)  # blocks of 1 and 3, and none
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(B, T, S)), jnp.float32)
    value = lambda f: lambda *x: jnp.sum(weight * f(*x))
    for f, want in (
        (additive.additive_logits, oracle),
        (
            jax.grad(value(additive.additive_logits), (0, 1, 2)),
            jax.grad(value(oracle), (0, 1, 2)),
        ),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            jax.jit(f)(*tokens()),
            want(*tokens()),
        )


def test_memory_does_not_grow_with_pairs_times_channels():
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    loss = lambda *x: jnp.sum(additive.additive_logits(*x) ** 2)
    args = shape(1, 512, 64), shape(1, 512, 64), shape(64)
    compiled = jax.jit(jax.grad(loss)).lower(*args).compile()
    pairs = 512 * 512 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * pairs  # not 64


def test_scores_are_float32_whatever_the_tokens_are():
    logits = additive.additive_logits(*tokens(jnp.bfloat16))
    assert logits.dtype == jnp.float32
    want = oracle(*tokens())
    np.testing.assert_allclose(logits, want, rtol=0.05, atol=0.05)
