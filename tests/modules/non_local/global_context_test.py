"""GlobalContext against equations 4 and 5 in float64, and the published counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models
from attn.models import cost
from attn.modules.non_local.global_context import GlobalContext


def oracle(params, x, pool, fuse, epsilon):
    """One example at a time, one position at a time: output and map [B, H, W]."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x = x.astype(np.float64)
    weights = np.zeros(x.shape[:3])
    y = np.zeros_like(x)
    for b in range(len(x)):
        for i, j in np.ndindex(x.shape[1:3]):
            attend = p.get("attend", {"kernel": np.zeros((x.shape[-1], 1))})
            weights[b, i, j] = np.exp(x[b, i, j] @ attend["kernel"][:, 0])
        weights[b] /= weights[b].sum()
        z = sum(weights[b, i, j] * x[b, i, j] for i, j in np.ndindex(x.shape[1:3]))
        t = z @ p["squeeze"]["kernel"] + p["squeeze"]["bias"]
        t = (t - t.mean()) / np.sqrt(t.var() + epsilon)
        t = np.maximum(t * p["norm"]["scale"] + p["norm"]["bias"], 0)
        t = t @ p["excite"]["kernel"] + p["excite"]["bias"]
        y[b] = x[b] + t if fuse == "add" else x[b] / (1 + np.exp(-t))
    return y, weights


@pytest.mark.parametrize("pool", ["attention", "avg"])
@pytest.mark.parametrize("fuse", ["add", "scale"])
def test_matches_the_paper(random_variables, pool, fuse):
    module = GlobalContext(reduction=3, pool=pool, fuse=fuse, epsilon=0.1)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 14)).astype(np.float32)
    variables = random_variables(module, x)
    params = variables["params"]
    assert params["squeeze"]["kernel"].shape == (14, 4)

    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)

    want, weights = oracle(params, x, pool, fuse, epsilon=0.1)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    assert ("spatial_map" in maps) == (pool == "attention")
    assert ("channel_gate" in maps) == (fuse == "scale")
    if pool == "attention":
        np.testing.assert_allclose(maps["spatial_map"].values, weights, rtol=1e-5)


def test_reads_the_mean_where_all_positions_are_attended_to_alike(random_variables):
    x = np.random.default_rng(2).normal(size=(2, 4, 3, 8)).astype(np.float32)
    module = GlobalContext(reduction=2)
    params = random_variables(module, x)["params"]
    still = jax.tree.map(jnp.zeros_like, params["attend"])
    apply = lambda module, params: module.apply({"params": params}, x, train=False)
    y = apply(module, {**params, "attend": still})
    del params["attend"]
    want = apply(GlobalContext(reduction=2, pool="avg"), params)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_starts_as_the_identity_where_it_adds():
    x = np.random.default_rng(3).normal(size=(1, 3, 4, 8)).astype(np.float32)
    y, _ = GlobalContext().init_with_output(jax.random.key(0), x, train=False)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("settings", "channels", "count"),
    [  # of the released code and of timm
        ({}, 64, 653),
        ({}, 256, 8_753),
        ({}, 512, 33_889),
        ({}, 2048, 528_769),
        ({"reduction": 8, "fuse": "scale"}, 64, 1_177),
        ({"reduction": 8}, 2048, 1_053_441),
    ],
)
def test_has_the_published_parameters(settings, channels, count):
    module = GlobalContext(**settings)
    assert module.card.parameters(module, (7, 7, channels)) == count


@pytest.mark.parametrize(("reduction", "count"), [(16, 28_078_773), (4, 35_557_941)])
def test_resnet_50_with_it_in_all_blocks_but_the_first_three(reduction, count):
    spec = {"name": "global_context", "reduction": reduction}
    slots = {f"stage{stage}/block.residual": spec for stage in (2, 3, 4)}
    model = models.create("resnet", depth=50, num_classes=1000, slots=slots)
    init = functools.partial(model.init, train=False)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    assert cost.parameters(jax.eval_shape(init, jax.random.key(0), x)) == count


def test_is_exact_where_few_channels_lie_close_together(random_variables):
    """A variance as the difference of two squares would lose most of its digits."""
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 16)).astype(np.float32)
    module = GlobalContext(reduction=4)
    params = jax.tree.map(np.array, random_variables(module, x)["params"])
    params["squeeze"]["bias"] += np.float32(10_000)
    params["norm"]["bias"] += np.float32(2)  # so that the ReLU lets all pass
    y = module.apply({"params": params}, x, train=False)
    want, _ = oracle(params, x, "attention", "add", epsilon=module.epsilon)
    np.testing.assert_allclose(y, want, atol=2e-2)
