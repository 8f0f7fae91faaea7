"""MixedHighOrder against its polynomials, a position at a time, in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.models import cost
from attn.modules.order.mixed_high_order import MixedHighOrder


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gates(params, x, order, inner):
    kernel = np.asarray(params["factors"]["kernel"], np.float64)
    maps = [kernel[:, k : k + inner] for k in range(0, kernel.shape[1], inner)]
    assert len(maps) == order * (order + 1) // 2
    found = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        left = iter(maps)
        for degree in range(1, order + 1):
            z = np.ones(inner)
            for _ in range(degree):
                z *= x[place].astype(np.float64) @ next(left)
            excite = np.asarray(params[f"excite{degree}"]["kernel"], np.float64)
            found[place] += sigmoid(np.maximum(z, 0) @ excite) / order
    return found


@pytest.mark.parametrize(
    ("settings", "inner"),
    [({"order": 1}, 6), ({"order": 3}, 6), ({"order": 4, "reduction": 24}, 2)],
)
def test_matches_the_paper(random_variables, settings, inner):
    module = MixedHighOrder(**settings)
    x = 2 * np.random.default_rng(1).normal(size=(2, 3, 5, 24)).astype(np.float32)
    variables = random_variables(module, x)
    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    want = gates(variables["params"], x, module.order, inner)
    got = maps["pixel_gate"].values
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, x * want, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize(
    ("channels", "counts"),
    [
        (64, (2_048, 5_120, 9_216, 14_336)),
        (256, (32_768, 81_920, 147_456, 229_376)),
    ],
)
def test_has_the_published_number_of_parameters(channels, counts):
    x = jax.ShapeDtypeStruct((1, 2, 3, channels), np.float32)
    for order, count in enumerate(counts, 1):
        module = MixedHighOrder(order=order)
        init = functools.partial(module.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), x)
        assert sum(a.size for a in jax.tree.leaves(variables)) == count
        assert cost.macs(module.apply, variables, x, train=False) == 6 * count
