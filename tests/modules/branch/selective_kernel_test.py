"""SelectiveKernel against equations 1 to 6 in float64, and the published count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models
from attn.models import cost
from attn.modules.branch.selective_kernel import SelectiveKernel


def convolved(x, kernel, dilation, groups):
    """One position and one channel at a time: x [H, W, C], kernel [k, k, C / G, C]."""
    height, width, channels = x.shape
    reach, inside = kernel.shape[0] // 2, channels // groups
    y = np.zeros((height, width, channels))
    for i, j, c in np.ndindex(y.shape):
        first = c // inside * inside
        for a, b in np.ndindex(kernel.shape[:2]):
            u, v = i + (a - reach) * dilation, j + (b - reach) * dilation
            if 0 <= u < height and 0 <= v < width:
                y[i, j, c] += x[u, v, first : first + inside] @ kernel[a, b, :, c]
    return y


def oracle(variables, x, branches, dilated, groups):
    """Output, and the weights of the branches [B, M, C]."""
    v = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    p, stats = v["params"], v["batch_stats"]

    def norm(name, y):
        y = (y - stats[name]["mean"]) / np.sqrt(stats[name]["var"] + 1e-5)
        return np.maximum(y * p[name]["scale"] + p[name]["bias"], 0)

    out, found = [], []
    for one in x.astype(np.float64):
        maps = [
            norm(
                f"norm{m}",
                convolved(one, p[f"conv{m}"]["kernel"], m if dilated else 1, groups),
            )
            for m in range(1, branches + 1)
        ]
        z = norm("norm", sum(maps).mean((0, 1)) @ p["squeeze"]["kernel"])
        logits = (z @ p["excite"]["kernel"]).reshape(branches, -1)
        a = np.exp(logits) / np.exp(logits).sum(0)
        out.append(sum(w * y for w, y in zip(a, maps, strict=True)))
        found.append(a)
    return np.array(out), np.array(found)


@pytest.mark.parametrize(
    ("kernels", "branches", "groups"), [("dilated", 2, 3), ("full", 3, 4)]
)
def test_matches_the_paper(random_variables, kernels, branches, groups):
    module = SelectiveKernel(
        branches=branches, kernels=kernels, groups=groups, reduction=2, least=5
    )
    x = np.random.default_rng(1).normal(size=(2, 4, 5, 12)).astype(np.float32)
    variables = random_variables(module, x)
    assert variables["params"]["squeeze"]["kernel"].shape == (12, 6)

    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)

    want, weights = oracle(variables, x, branches, kernels == "dilated", groups)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    assert len(maps) == branches
    for m, found in enumerate(maps.values()):
        np.testing.assert_allclose(found.values, weights[:, m], rtol=1e-5)


def test_groups_are_as_many_as_divide_the_channels():
    x = jnp.zeros((1, 4, 4, 12))
    init = functools.partial(SelectiveKernel(groups=32).init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), x)["params"]
    assert params["conv1"]["kernel"].shape == (3, 3, 3, 12)


def test_resnext_50_with_it_is_sknet_50():
    """But for the batch norm behind the slot, which its branches make superfluous."""
    model = models.create(
        "resnet",
        depth=50,
        cardinality=32,
        group_width=4,
        num_classes=1000,
        slots={"block.conv2": "selective_kernel"},
    )
    init = functools.partial(model.init, train=False)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    found = cost.parameters(jax.eval_shape(init, jax.random.key(0), x))
    norms = 2 * (3 * 128 + 4 * 256 + 6 * 512 + 3 * 1024)
    assert found - norms == 27_479_784
