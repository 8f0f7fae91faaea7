"""Derivatives of every mode on the default path, against the reference's.

The reference is a plain program, which JAX differentiates by itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops
from attn.ops.dot_product import blocks

B, T, S, N, K, D, DV = 2, 11, 19, 4, 2, 6, 5


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "table", lambda *case: blocks.Limits(8, 8))


def inputs(seed):
    """Queries, keys, values, a bias, and slopes by distance, which are sinks too."""
    rng = np.random.default_rng(seed)
    shapes = (B, T, N, D), (B, S, K, D), (B, S, K, DV), (N, 1, S), (N,)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)


def attention(implementation):
    def attend(q, k, v, bias, slopes):
        return ops.dot_product_attention(
            *(q, k, v),
            bias=bias,
            window=(9, 2),
            logits_cap=2.0,
            sinks=slopes,
            score_mod=lambda x, b, n, t, s: x - 0.1 * slopes[n] * jnp.abs(t - s),
            implementation=implementation,
        )

    return attend


def loss(attend):
    return lambda *x: jnp.sum(jnp.sin(attend(*x)))


MODES = {
    "jvp": lambda f, x, dx: jax.jvp(f, x, dx),
    "linearize, as a map and transposed": lambda f, x, dx: (
        jax.linearize(f, *x)[1](*dx),
        jax.linear_transpose(jax.linearize(f, *x)[1], *x)(f(*dx)),
    ),
    "forward over reverse": lambda f, x, dx: jax.jvp(
        jax.grad(loss(f), (0, 3, 4)), x, dx
    ),
    "forward over forward": lambda f, x, dx: jax.jvp(
        lambda *x: jax.jvp(f, x, dx)[1], x, dx
    ),
    "a jacobian": lambda f, x, dx: jax.jacfwd(f, 4)(*x),
    "a hessian": lambda f, x, dx: jax.hessian(loss(f), 4)(*x),
    "reverse through vmap": lambda f, x, dx: jax.grad(
        lambda q, k: jnp.sum(jnp.sin(jax.vmap(lambda q: f(q, k, *x[2:]))(q))), (0, 1)
    )(jnp.stack([x[0], dx[0]]), x[1]),
    "reverse through scan and remat": lambda f, x, dx: jax.grad(
        lambda k, slopes: jax.lax.scan(
            jax.checkpoint(
                lambda c, r: (c + loss(f)(*x[:1], k, *x[2:4], r * slopes), 0)
            ),
            0.0,
            jnp.arange(1.0, 3.0),
        )[0],
        (0, 1),
    )(x[1], x[4]),
}


@pytest.mark.parametrize("mode", list(MODES))
def test_is_that_of_the_reference(mode):
    arguments = inputs(0), inputs(1)

    def run(name):
        return jax.jit(lambda x, dx: MODES[mode](attention(name), x, dx))(*arguments)

    got, want = run(None), run("reference")
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
