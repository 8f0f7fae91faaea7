"""A logit beside those of the sources, of which nothing is read.

Those of `SMALL` are `blockwise`: in blocks so small that these sizes have many, and in
one, `whole`.
"""

import functools

import jax
import numpy as np
import pytest

from attn.ops import dot_product
from attn.ops.dot_product import blockwise
from attn.ops.dot_product.blocks import Plan

B, T, S, N, K, D, DV = 2, 13, 21, 4, 2, 6, 5
SMALL = {
    "loop": Plan(8, 8, loop=True, wide=True),
    "examples": Plan(8, 16, True, True, 1),
    "at_once": Plan(8, 8, loop=False, wide=False),
    "whole": Plan(T, S, loop=False, wide=True),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for name, plan in SMALL.items():
        function = functools.partial(blockwise.attend, plan=plan)
        monkeypatch.setitem(dot_product.IMPLEMENTATIONS, name, function)


def inputs():
    rng = np.random.default_rng(0)
    shapes = (B, T, N, D), (B, S, K, D), (B, S, K, DV), (N,), (B, T, N, DV)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def both(implementation, **options):
    """What is read, and its gradients by q, k, v and the sinks."""
    *arrays, dy = inputs()

    @jax.jit
    def run(*arrays):
        def attend(q, k, v, sinks):
            return dot_product.dot_product_attention(
                q, k, v, sinks=sinks, implementation=implementation, **options
            )

        y, back = jax.vjp(attend, *arrays)
        return y, *back(dy)

    return run(*arrays)


def oracle(mask):
    """Softmax with one more summand below, and the gradients, in float64 NumPy."""
    q, k, v, sinks, dy = (x.astype(np.float64) for x in inputs())
    y, dq, dk, dv, dsinks = (np.zeros(x.shape) for x in (dy, q, k, v, sinks))
    for b, n in np.ndindex(B, N):
        m = n // (N // K)
        e = np.exp(D**-0.5 * q[b, :, n] @ k[b, :, m].T) * mask[b]
        below = np.exp(sinks[n]) + e.sum(1, keepdims=True)
        p, rest = e / below, np.exp(sinks[n]) / below
        y[b, :, n] = p @ v[b, :, m]
        dp = dy[b, :, n] @ v[b, :, m].T
        delta = (p * dp).sum(1, keepdims=True)
        ds = D**-0.5 * p * (dp - delta)
        dq[b, :, n] = ds @ k[b, :, m]
        dk[b, :, m] += ds.T @ q[b, :, n]
        dv[b, :, m] += p.T @ dy[b, :, n]
        dsinks[n] += -(rest * delta).sum()
    return y, dq, dk, dv, dsinks


@pytest.mark.parametrize("implementation", [*SMALL, "reference"])
def test_is_the_formula(implementation):
    mask = np.random.default_rng(1).random((B, T, S)) < 0.6
    mask[0, 3] = False  # a target that sees the sink alone reads and learns nothing
    got = both(implementation, mask=mask[:, None], kv_lengths=np.array([9, 21]))
    mask[0, :, 9:] = False
    for a, b in zip(got, oracle(mask), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["loop", "whole"])
def test_dropout_and_cap_leave_the_sink_alone(name):
    options = {"dropout_rate": 0.3, "dropout_rng": jax.random.key(0), "logits_cap": 0.5}
    got, want = (both(which, **options) for which in (name, "reference"))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_is_a_source_without_key_and_value():
    """By the reference, for a normalization that has no closed formula."""
    q, k, v, sinks, _ = inputs()
    attend = functools.partial(
        dot_product.dot_product_attention, normalize="entmax15", return_weights=True
    )
    y, weights = jax.jit(attend)(q, k, v, sinks=sinks)
    one = ((0, 0), (0, 1), (0, 0), (0, 0))
    bias = np.zeros((N, T, S + 1), np.float32)
    bias[..., -1] = sinks[:, None]
    want, whole = jax.jit(attend)(q, np.pad(k, one), np.pad(v, one), bias=bias)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights, whole[..., :S], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sinks": np.ones(K)}, r"each of 4 heads of queries, \[N\], got \(2,\)"),
        ({"sinks": np.ones(N), "normalize": "sigmoid"}, "change nothing where"),
    ],
)
def test_says_what_does_not_fit(options, says):
    q, k, v, *_ = inputs()
    with pytest.raises(ValueError, match=says):
        dot_product.dot_product_attention(q, k, v, **options)


@pytest.mark.parametrize("name", ["xla", "cudnn", "pallas_tpu", "tokamax"])
def test_who_cannot_says_who_can(name):
    says = f"{name} cannot take sinks; blockwise and reference can"
    with pytest.raises(NotImplementedError, match=says):
        both(name)
