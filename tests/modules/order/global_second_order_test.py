"""GlobalSecondOrder against its released code, row by row, in float64."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.models import cost
from attn.modules.order.global_second_order import GlobalSecondOrder
from tests.ops.pool_test import cell


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def norm(variables, name, z):
    """The norm of evaluation, channels last."""
    params, state = variables["params"][name], variables["batch_stats"][name]
    z = (z - state["mean"]) / np.sqrt(state["var"] + 1e-5)
    return z * params["scale"] + params["bias"]


def linear(variables, name, z):
    p = variables["params"][name]
    return z @ p["kernel"] + p["bias"]


def rows_of(variables, branch, covariance):
    """Four numbers of each row, which has a norm and kernels of its own."""
    found = []
    for i, row in enumerate(covariance):
        name = f"{branch}_row_norm"
        own = {
            kind: {name: {key: a[i] for key, a in variables[kind][name].items()}}
            for kind in ("params", "batch_stats")
        }
        kernel = variables["params"][f"{branch}_row_kernel"][:, i]
        bias = variables["params"][f"{branch}_row_bias"][i]
        found.append(norm(own, name, row) @ kernel + bias)
    return np.concatenate(found)


def channel_gate(variables, x, module):
    """Of one map [H, W, C], after its ReLU: [C]."""
    points = x[:: module.stride, :: module.stride].reshape(-1, x.shape[-1])
    z = linear(variables, "channel_reduce", points)
    z = np.maximum(norm(variables, "channel_reduce_norm", z), 0)
    rows = rows_of(variables, "channel", np.cov(z, rowvar=False, bias=True))
    return sigmoid(linear(variables, "channel_excite", rows))


def spatial_gate(variables, x, module):
    """Of one map [H, W, C], after its ReLU: [H, W]."""
    height, width, side = *x.shape[:2], module.side
    z = linear(variables, "spatial_reduce", x)
    z = norm(variables, "spatial_reduce_norm", z)
    cells = [
        z[cell(i, side, height), cell(j, side, width)].mean(axis=(0, 1))
        for i, j in np.ndindex(side, side)
    ]
    rows = np.maximum(rows_of(variables, "spatial", np.cov(cells, bias=True)), 0)
    gate = sigmoid(linear(variables, "spatial_excite", rows)).reshape(side, side)
    return np.array(
        [
            [
                gate[cell(i, height, side), cell(j, width, side)].mean()
                for j in range(width)
            ]
            for i in range(height)
        ]
    )


def made(random_variables, **settings):
    module = GlobalSecondOrder(channels=5, side=3, **settings)
    x = 2 * np.random.default_rng(1).normal(size=(2, 7, 4, 6)).astype(np.float32)
    return module, random_variables(module, x), x


@pytest.mark.parametrize(
    "settings", [{"stride": 2}, {"along": "spatial"}, {"along": "both"}]
)
def test_matches_the_released_code(random_variables, settings):
    module, variables, x = made(random_variables, **settings)
    y = jax.jit(functools.partial(module.apply, train=False))(variables, x)
    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    for one, image in zip(np.asarray(y), x, strict=True):
        seen, gate = np.maximum(image.astype(np.float64), 0), 0
        if module.along != "spatial":
            gate = gate + channel_gate(exact, seen, module)
        if module.along != "channel":
            gate = gate + spatial_gate(exact, seen, module)[..., None]
        np.testing.assert_allclose(one, image * gate, rtol=1e-5, atol=1e-5)


def test_the_gates_are_recorded(random_variables):
    module, variables, x = made(random_variables, along="both")
    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    total = maps["channel_gate"].values[:, None, None]
    total = total + maps["spatial_map"].values[..., None]
    np.testing.assert_allclose(x * total, y, rtol=1e-5, atol=1e-6)


def test_training_normalises_each_row_of_the_batch(random_variables):
    module, variables, x = made(random_variables)
    run = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    _, changed = jax.jit(run)(variables, x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    z = linear(p, "channel_reduce", np.maximum(x, 0).astype(np.float64))
    z = (z - z.mean(axis=(0, 1, 2))) / np.sqrt(z.var(axis=(0, 1, 2)) + 1e-5)
    affine = p["params"]["channel_reduce_norm"]
    z = np.maximum(z * affine["scale"] + affine["bias"], 0).reshape(2, -1, 5)
    rows = np.stack([np.cov(one, rowvar=False, bias=True) for one in z])
    old = p["batch_stats"]["channel_row_norm"]["mean"]
    want = 0.9 * old + 0.1 * rows.mean(axis=(0, 2))
    got = changed["batch_stats"]["channel_row_norm"]["mean"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


# C d + d + 2d + 2d + (4 d d + 4 d) + (4 d C + C), d = 128
@pytest.mark.parametrize("channels", [64, 512, 2048])
def test_has_the_published_number_of_parameters(channels):
    module = GlobalSecondOrder()
    x = jax.ShapeDtypeStruct((1, 6, 5, channels), np.float32)
    init = functools.partial(module.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)
    d = 128
    count = channels * d + 5 * d + (4 * d * d + 4 * d) + (4 * d * channels + channels)
    found = sum(a.size for a in jax.tree.leaves(variables["params"]))
    assert found == count
    macs = cost.macs(module.apply, variables, x, train=False)
    assert macs == 30 * channels * d + 30 * d * d + 4 * d * d + 4 * d * channels
