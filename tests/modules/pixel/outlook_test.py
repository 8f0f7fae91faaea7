"""Outlook against VOLO's equations in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.models import cost
from attn.modules.pixel.outlook import Outlook
from attn.settings import Invalid
from tests.ops.outlook_test import centres, loop


def oracle(params, x, module):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    step = module.stride
    value = np.einsum("bhwc,cnd->bhwnd", x, p["value"]["kernel"])
    value += p["value"].get("bias", 0)
    means = [
        x[:, r : r + step, s : s + step].mean(axis=(1, 2), dtype=np.float64)
        for r, s in centres(x.shape[1:3], step)
    ]
    logits = np.einsum("pbc,cnij->bpnij", means, p["attend"]["kernel"])
    logits = (logits + p["attend"]["bias"]) / np.sqrt(value.shape[-1])
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    weights = weights[:, None]  # all centres in one row
    y = loop(weights, value, step, module.kernel_size)
    return np.einsum("bhwnd,ndc->bhwc", y, p["out"]["kernel"]) + p["out"]["bias"]


@pytest.mark.parametrize(
    "settings",
    [
        {"num_heads": 3},
        {"head_dim": 6, "stride": 3, "kernel_size": 5, "qkv_bias": True},
    ],
)
def test_matches_the_paper(random_variables, settings):
    module = Outlook(**settings)
    x = 2 * np.random.default_rng(1).normal(size=(2, 7, 5, 12)).astype(np.float32)
    variables = random_variables(module, x)
    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    want = oracle(variables["params"], x, module)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    assert maps["token_matrix"].grid == (7, 5)


def test_equal_weights_smooth_the_map():
    module = Outlook(num_heads=1, stride=1)
    x = np.ones((1, 5, 6, 2), np.float32)
    params = {
        "value": {"kernel": np.eye(2)[:, None]},
        "attend": {"kernel": np.zeros((2, 1, 9, 9)), "bias": np.zeros((1, 9, 9))},
        "out": {"kernel": np.eye(2)[None], "bias": np.zeros(2)},
    }
    apply = jax.jit(functools.partial(module.apply, train=False))
    y = np.asarray(apply({"params": params}, x))
    np.testing.assert_allclose(y[:, 2, 2:4], 9, rtol=1e-6)  # of nine windows
    # four windows over a corner see 4, 6, 6 and 9 places of nine
    np.testing.assert_allclose(y[:, 0, 0], 25 / 9, rtol=1e-6)


def test_has_as_many_parameters_as_in_volo_d1_and_the_multiply_adds_of_its_card():
    module = Outlook(num_heads=6)
    x = jax.ShapeDtypeStruct((1, 28, 28, 192), np.float32)
    init = functools.partial(module.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)
    count = 2 * 192**2 + 192 + 6 * 81 * 193
    assert sum(a.size for a in jax.tree.leaves(variables)) == count
    places = 28 * 28
    linear = 2 * places * 192**2 + places // 4 * 192 * 6 * 81
    products = places // 4 * 192 * 81
    assert cost.macs(module.apply, variables, x, train=False) == linear + products


def test_windows_have_a_centre():
    with pytest.raises(Invalid, match="must be odd, got 4"):
        Outlook(kernel_size=4)
