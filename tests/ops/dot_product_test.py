"""Softmax attention against a float64 loop over equation 1, and against jax.nn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import dot_product

B, T, S, N, D, DV = 2, 3, 5, 2, 7, 4


def arrays(dv=DV, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (B, T, N, D), (B, S, N, D), (B, S, N, dv)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def oracle(q, k, v, bias, mask, scale):
    """One target of one head at a time, in float64."""
    q, k, v, bias = (np.asarray(a, np.float64) for a in (q, k, v, bias))
    bias = np.broadcast_to(bias, (B, N, T, S))
    mask = np.broadcast_to(mask, (B, N, T, S))
    y, weights = np.zeros((B, T, N, v.shape[-1])), np.zeros((B, N, T, S))
    for b, n, t in np.ndindex(B, N, T):
        seen = np.flatnonzero(mask[b, n, t])
        if not len(seen):
            continue
        logits = [q[b, t, n] @ k[b, s, n] * scale + bias[b, n, t, s] for s in seen]
        parts = np.exp(np.array(logits) - max(logits))
        weights[b, n, t, seen] = parts / parts.sum()
        y[b, t, n] = weights[b, n, t] @ v[b, :, n]
    return y, weights


def random_mask(shape=(B, 1, T, S)):
    return np.random.default_rng(3).random(shape) < 0.6


@pytest.mark.parametrize("scale", [None, 0.9])
@pytest.mark.parametrize("mask_shape", [(B, 1, T, S), (B, N, T, S), (T, S), (1,)])
@pytest.mark.parametrize("bias_shape", [(N, T, S), (B, 1, 1, S)])
def test_matches_the_loop(scale, mask_shape, bias_shape):
    q, k, v = arrays()
    bias = np.random.default_rng(1).normal(size=bias_shape).astype(np.float32)
    mask = random_mask(mask_shape)
    attend = functools.partial(
        dot_product.dot_product_attention, scale=scale, return_weights=True
    )

    y, weights = jax.jit(attend)(q, k, v, bias=bias, mask=mask)

    want = oracle(q, k, v, bias, mask, D**-0.5 if scale is None else scale)
    np.testing.assert_allclose(y, want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights, want[1], rtol=1e-5, atol=1e-6)


def test_equals_jax_nn_forward_and_backward():
    q, k, v = arrays(dv=D)
    bias = np.random.default_rng(1).normal(size=(1, N, T, S)).astype(np.float32)
    mask = random_mask() | (np.arange(S) == 2)  # every target sees something

    def both(attend):
        def loss(q, k, v):
            y = attend(q, k, v, bias=bias, mask=mask)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))

    got = both(dot_product.dot_product_attention)(q, k, v)
    want = both(jax.nn.dot_product_attention)(q, k, v)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want
    )


def test_a_target_that_sees_nothing_gets_zeros_and_zero_gradients():
    q, k, v = arrays()
    mask = np.ones((B, 1, T, S), bool)
    mask[0, 0, 1] = False

    @jax.jit
    def both(q, k, v):
        y = dot_product.dot_product_attention(q, k, v, mask=mask)
        loss = lambda q, k, v: jnp.sum(
            dot_product.dot_product_attention(q, k, v, mask=mask)[0, 1] ** 2 + 1
        )
        return y, jax.grad(loss, argnums=(0, 1, 2))(q, k, v)

    y, grads = both(q, k, v)
    np.testing.assert_array_equal(y[0, 1], 0)
    assert np.all(np.any(y[1], axis=-1)), "the other targets read something"
    for grad in grads:
        np.testing.assert_array_equal(grad, 0)


def test_bfloat16_inputs_keep_float32_logits():
    # Logits near 300: rounded to bfloat16 they would be off by 1, weights by e.
    q, k, v = (jnp.asarray(a, jnp.bfloat16) for a in arrays())
    q = q * 64
    y, weights = jax.jit(
        functools.partial(dot_product.dot_product_attention, return_weights=True)
    )(q, k, v)

    assert y.dtype == jnp.bfloat16
    assert weights.dtype == jnp.float32
    want, want_weights = oracle(q, k, v, np.zeros(1), np.ones(1, bool), D**-0.5)
    np.testing.assert_allclose(weights, want_weights, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(y.astype(jnp.float32), want, rtol=0.02, atol=0.01)


def test_gradients_are_finite_at_extreme_logits():
    q, k, v = (1e4 * a for a in arrays())
    loss = lambda *qkv: jnp.sum(dot_product.dot_product_attention(*qkv))
    for grad in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v):
        assert np.all(np.isfinite(grad))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": np.ones((B, 1, T, S))}, "mask must be boolean"),
        ({"mask": np.ones((T, S + 1), bool)}, r"\(3, 6\) does not broadcast to"),
        ({"bias": np.ones((3, T, S))}, r"bias of shape \(3, 3, 5\)"),
        ({"q": np.ones((B, T, N + 1, D))}, "must agree in B and N"),
        ({"q": np.ones((B, T, N, D + 1))}, "queries have 8 channels, of keys 7"),
        ({"v": np.ones((B, S + 1, N, D))}, "must agree in B, S and N"),
    ],
)
def test_says_what_does_not_fit(change, says):
    q, k, v = arrays()
    given = {"q": q, "k": k, "v": v} | change
    with pytest.raises(ValueError, match=says):
        dot_product.dot_product_attention(**given)
