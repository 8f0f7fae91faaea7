"""The reference, everything it can, against loops in float64 and against jax.nn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import dot_product

B, T, S, N, K, D, DV = 2, 5, 7, 6, 3, 4, 3
attend = functools.partial(
    dot_product.dot_product_attention, implementation="reference"
)


def arrays(*, key_heads=K, width=DV, lead=(B,), seed=0):
    rng = np.random.default_rng(seed)
    shapes = (*lead, T, N, D), (*lead, S, key_heads, D), (*lead, S, key_heads, width)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def normal(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def random_mask(*shape):
    return np.random.default_rng(3).random(shape) < 0.6


def softmax(logits):
    parts = np.exp(logits - logits.max())
    return parts / parts.sum()


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def sees(b, t, s, *, is_causal=False, window, q_lengths, kv_lengths):
    left, right = window
    return (
        (s <= t or not is_causal)
        and -left <= s - t <= right
        and t < q_lengths[b]
        and s < kv_lengths[b]
    )


WHOLE = {"window": (99, 99), "q_lengths": (T, T), "kv_lengths": (S, S)}


def oracle(
    q, k, v, *, bias=0.0, mask=True, scale=D**-0.5, cap=None, function=softmax, **limits
):
    """One target of one head at a time, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, heads, group = len(q), q.shape[2], q.shape[2] // k.shape[2]
    bias, mask = (np.broadcast_to(x, (batch, heads, T, S)) for x in (bias, mask))
    y, weights = np.zeros((batch, T, heads, v.shape[3])), np.zeros(mask.shape)
    who = WHOLE | limits
    for b, n, t in np.ndindex(batch, heads, T):
        seen = [s for s in range(S) if mask[b, n, t, s] and sees(b, t, s, **who)]
        if not seen:
            continue
        keys = k[b, seen, n // group]
        logits = keys @ q[b, t, n] * scale + bias[b, n, t, seen]
        if cap is not None:
            logits = cap * np.tanh(logits / cap)
        weights[b, n, t, seen] = function(logits)
        y[b, t, n] = weights[b, n, t] @ v[b, :, n // group]
    return y, weights


def sparse(logits):
    """The projection onto the simplex, by halving an interval for its threshold."""
    low, high = logits.max() - 1, logits.max()
    for _ in range(200):
        middle = (low + high) / 2
        enough = np.maximum(logits - middle, 0).sum() >= 1
        low, high = (middle, high) if enough else (low, middle)
    return np.maximum(logits - low, 0)


CASES = {
    "plain": ({}, {}),
    "bias, mask, scale": (
        {"bias": normal(N, T, S), "mask": random_mask(B, 1, T, S), "scale": 0.9},
        {},
    ),
    "mask of heads": ({"bias": normal(B, 1, 1, S), "mask": random_mask(N, T, 1)}, {}),
    "causal, cap": (
        {"is_causal": True, "logits_cap": 0.7, "bias": normal(T, S)},
        {"is_causal": True, "cap": 0.7, "bias": normal(T, S)},
    ),
    "window, q lengths": (
        {"window": (2, 1), "q_lengths": np.array([3, 5])},
        {"window": (2, 1), "q_lengths": (3, 5)},
    ),
    "open window, kv lengths": (
        {"window": (None, 1), "kv_lengths": np.array([0, 4])},
        {"window": (99, 1), "kv_lengths": (0, 4)},
    ),
    "sigmoid": (
        {"normalize": "sigmoid", "mask": random_mask(T, S)},
        {"function": sigmoid, "mask": random_mask(T, S)},
    ),
    "sparsemax": (
        {"normalize": "sparsemax", "mask": random_mask(T, S), "scale": 1.5},
        {"function": sparse, "mask": random_mask(T, S), "scale": 1.5},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_matches_the_loop(name):
    options, expected = CASES[name]
    expected = expected or options

    run = functools.partial(attend, return_weights=True, **options)
    y, weights = jax.jit(run)(*arrays())

    want, want_weights = oracle(*arrays(), **expected)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights, want_weights, rtol=1e-5, atol=1e-6)


def test_entmax_lies_between_softmax_and_sparsemax():
    # Its exact values are checked with `ops.entmax15`; here, that it is the one used.
    q, k, v = arrays()
    run = lambda name: attend(3 * q, k, v, normalize=name, return_weights=True)[1]
    soft, middle, sparse = jax.jit(
        lambda: [run(name) for name in ("softmax", "entmax15", "sparsemax")]
    )()
    zeros = [np.sum(np.asarray(x) == 0) for x in (soft, middle, sparse)]
    assert zeros[0] < zeros[1] < zeros[2]
    np.testing.assert_allclose(middle.sum(-1), 1, rtol=1e-5)


def test_equals_jax_nn_forward_and_backward():
    q, k, v = arrays(key_heads=N, width=D)
    bias, mask = normal(1, N, T, S), random_mask(B, 1, T, S) | (np.arange(S) == 2)

    def both(function):
        def loss(q, k, v):
            y = function(q, k, v, bias=bias, mask=mask)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))

    got, want = both(attend)(q, k, v), both(jax.nn.dot_product_attention)(q, k, v)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, got, want)


def test_more_leading_axes_are_more_examples():
    q, k, v = arrays(lead=(2, 3))
    bias, mask = normal(2, 1, 1, T, S), random_mask(3, N, 1, S)
    lengths = np.array([[3], [6]])

    @jax.jit
    def run(q, k, v):
        return attend(q, k, v, bias=bias, mask=mask, kv_lengths=lengths)

    y = run(q, k, v)
    for a, b in np.ndindex(2, 3):
        one = (x[a, b][None] for x in (q, k, v))
        hidden = {"mask": mask[b], "kv_lengths": lengths[a], "q_lengths": (T,)}
        want, _ = oracle(*one, bias=bias[a, 0], **hidden)
        np.testing.assert_allclose(y[a, b], want[0], rtol=1e-5, atol=1e-6)


def test_the_matrix_alone_is_the_same():
    q, k, v = arrays()
    options = {"mask": random_mask(B, 1, T, S), "window": (3, 2), "logits_cap": 0.8}
    _, want = jax.jit(functools.partial(attend, return_weights=True, **options))(
        q, k, v
    )
    weights = functools.partial(dot_product.attention_weights, **options)
    np.testing.assert_array_equal(jax.jit(weights)(q, k), want)


def test_a_softmax_is_float32_whatever_its_logits_are():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 50)), jnp.bfloat16)
    weights = dot_product.masked_softmax(logits)
    assert weights.dtype == jnp.float32
    want = jax.nn.softmax(logits.astype(jnp.float32))
    np.testing.assert_allclose(weights, want, rtol=1e-5)


def test_bfloat16_inputs_keep_float32_logits():
    # Logits near 300: rounded to bfloat16 they would be off by 1, weights by e.
    q, k, v = (jnp.asarray(a, jnp.bfloat16) for a in arrays())
    q = q * 64
    y, weights = jax.jit(functools.partial(attend, return_weights=True))(q, k, v)

    assert (y.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)
    want, want_weights = oracle(q, k, v)
    np.testing.assert_allclose(weights, want_weights, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(y.astype(jnp.float32), want, rtol=0.02, atol=0.01)


def test_dropout_drops_each_weight_alone_and_keeps_the_mean():
    shape, rate = (4, 96, 2, 64), 0.3
    eye = jnp.broadcast_to(jnp.eye(64)[None, :, None], (4, 64, 2, 64))
    q = jnp.zeros((4, 96, 2, 3))

    @jax.jit
    def run(key):
        y = attend(q, eye[..., :3], eye, dropout_rate=rate, dropout_rng=key)
        return y * 64

    factors = np.asarray(run(jax.random.key(0)))
    assert factors.shape == shape
    np.testing.assert_allclose(np.unique(factors.round(4)), [0, 1 / 0.7], atol=1e-4)
    assert abs(np.mean(factors > 0) - 0.7) < 4 * np.sqrt(0.21 / factors.size)
    kept = (factors > 0) - 0.7
    for axis in range(4):  # neighbours along no axis are related
        pairs = np.mean(kept * np.roll(kept, 1, axis)) / 0.21
        assert abs(pairs) < 4 / np.sqrt(kept.size), axis
    assert np.mean(np.asarray(run(jax.random.key(1))) != factors) > 0.3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask": np.ones((B, 1, T, S))}, "mask must be boolean"),
        ({"mask": np.ones((T, S + 1), bool)}, r"\(5, 8\) does not broadcast to"),
        ({"mask": np.ones((1, B, N, T, S), bool)}, "mask of shape"),
        ({"bias": np.ones((5, T, S))}, r"bias of shape \(5, 5, 7\)"),
        ({"q": np.ones((B + 1, T, N, D))}, "must agree in B, got"),
        ({"q": np.ones((B, T, N + 1, D))}, r"3 .* not divide 7 .* one of \[1, 7\]"),
        ({"q": np.ones((B, T, N, D + 1))}, "queries have 5 channels, of keys 4"),
        ({"v": np.ones((B, S + 1, K, D))}, "must agree in B, S and K"),
        ({"window": -1}, "at least 0, got -1"),
        ({"window": (1, 2, 3)}, "a pair of counts"),
        ({"q_lengths": np.ones(B)}, "q_lengths must be whole numbers"),
        ({"kv_lengths": np.ones(3, int)}, r"\(3,\) does not broadcast to \[B\]"),
        ({"window": np.inf}, "at least 0, got inf"),
        ({"window": True}, "at least 0, got True"),
        ({"window": np.array(True)}, "at least 0, got"),
        ({"window": "a"}, "at least 0, got 'a'"),
        ({"window": (np.nan, 1)}, "at least 0, got"),
        ({"logits_cap": 0.0}, "positive and finite, got 0"),
        ({"logits_cap": np.inf}, "positive and finite, got inf"),
        ({"scale": np.nan}, "scale must be a finite number, got nan"),
        ({"bias": np.ones((T, S), bool)}, "is boolean: is it a mask"),
        ({"v": np.ones((B, S, K, D), int)}, "values must be floating point, got int"),
        ({"q": np.ones((B, T, N, 0)), "k": np.ones((B, S, K, 0))}, "no channels"),
        ({"dropout_rate": 1.0}, r"in \[0, 1\), got 1"),
        ({"dropout_rate": 0.5}, "needs a random key"),
        ({"normalize": "max"}, "one of .*sparsemax.* got 'max'"),
        ({"implementation": "fast"}, "None or one of reference, .* got 'fast'"),
    ],
)
def test_says_what_does_not_fit(change, says):
    q, k, v = arrays()
    given = {"q": q, "k": k, "v": v} | change
    with pytest.raises(ValueError, match=says):
        dot_product.dot_product_attention(**given)


@pytest.mark.parametrize("name", ["reference", "blockwise"])
@pytest.mark.parametrize("far", [2**31 - 1, 2**31, 2**40])
def test_a_reach_beyond_all_places_is_no_limit(name, far):
    attend = functools.partial(
        dot_product.dot_product_attention, *arrays(), implementation=name
    )
    np.testing.assert_array_equal(attend(window=(1, far)), attend(window=(1, None)))
    np.testing.assert_array_equal(attend(window=(far, 0)), attend(window=(None, 0)))
