"""The doubly stochastic penalty against its sum, place by place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops

B, T, S = 2, 5, 3


def inputs():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(S), size=(B, T)).astype(np.float32)
    return weights, np.arange(T) < np.array([[3], [5]])


@pytest.mark.parametrize("total", [1.0, 1.5])
def test_is_the_sum_of_the_paper_over_real_targets(total):
    weights, mask = inputs()
    want = np.zeros(B)
    for b in range(B):
        for s in range(S):
            read = sum(float(weights[b, t, s]) for t in range(T) if mask[b, t])
            want[b] += (total - read) ** 2
    weights[~mask] = np.nan
    run = jax.jit(lambda *a: ops.doubly_stochastic_penalty(*a, total=total))
    np.testing.assert_allclose(run(weights, mask), want, rtol=1e-5)
    slope = jax.grad(lambda w: jnp.sum(run(w, mask)))(jnp.asarray(weights))
    assert not np.any(slope[~mask]) and np.all(np.isfinite(slope))


def test_is_nothing_where_each_target_reads_a_source_of_its_own():
    weights = np.eye(S, dtype=np.float32)[None, [2, 0, 1]]
    np.testing.assert_array_equal(ops.doubly_stochastic_penalty(weights), [0])


def test_a_mask_of_another_shape_is_refused():
    weights, mask = inputs()
    with pytest.raises(ValueError, match=r"\[B, T\] = \(2, 5\), got \(5, 2\)"):
        ops.doubly_stochastic_penalty(weights, mask.T)
