"""CBAM against equations 1 to 3 in float64, and the published counts."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.mixed.cbam import CBAM, hidden_channels


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def convolve(planes, kernel):
    """[H, W, P] with a [k, k, P, 1] kernel, zeros outside: [H, W]."""
    reach = len(kernel) // 2
    height, width, _ = planes.shape
    out = np.zeros((height, width))
    for y, x, i, j in np.ndindex(height, width, *kernel.shape[:2]):
        row, column = y + i - reach, x + j - reach
        if 0 <= row < height and 0 <= column < width:
            out[y, x] += planes[row, column] @ kernel[i, j, :, 0]
    return out


class Oracle:
    """One map [H, W, C] at a time, with the statistics of evaluation."""

    def __init__(self, variables, settings):
        v = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
        self.p, self.stats = v["params"], v.get("batch_stats")
        self.settings = {
            "variant": "official",
            "channel_pool": "avg_max",
            "spatial": "avg_max",
            "order": "channel_spatial",
        } | settings

    def channel(self, x):
        def mlp(z):
            squeeze, excite = self.p["squeeze"], self.p["excite"]
            hidden = z @ squeeze["kernel"] + squeeze.get("bias", 0)
            return np.maximum(hidden, 0) @ excite["kernel"] + excite.get("bias", 0)

        if self.settings["channel_pool"] == "none":
            return np.ones(x.shape[-1])
        pools = {"avg": x.mean((0, 1)), "max": x.max((0, 1))}
        chosen = self.settings["channel_pool"].split("_")
        return sigmoid(sum(mlp(pools[name]) for name in chosen))

    def logits(self, x):
        if self.settings["spatial"] == "conv1x1":
            planes = x @ self.p["descriptor"]["kernel"]
        else:
            planes = np.stack([x.max(-1), x.mean(-1)], -1)
            if self.settings["variant"] == "timm":
                planes = planes[..., ::-1]
        return convolve(planes, self.p["spatial"]["kernel"])

    def spatial(self, x):
        if self.settings["spatial"] == "none":
            return np.ones((*x.shape[:2], 1))
        norm, stats = self.p["norm"], self.stats["norm"]
        z = (self.logits(x) - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
        return sigmoid(z * norm["scale"] + norm["bias"])[..., None]

    def __call__(self, x):
        x = x.astype(np.float64)
        match self.settings["order"]:
            case "channel_spatial":
                x = x * self.channel(x)
                return x * self.spatial(x)
            case "spatial_channel":
                x = x * self.spatial(x)
                return x * self.channel(x)
            case "parallel":
                return x * self.channel(x) * self.spatial(x)


def example(seed=1, channels=24):
    shape = (2, 4, 9, channels)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"variant": "timm"},
        {"channel_pool": "avg", "spatial": "none"},
        {"channel_pool": "max", "kernel_size": 3},
        {"channel_pool": "none", "order": "spatial_channel"},
        {"spatial": "conv1x1", "kernel_size": 3},
        {"order": "spatial_channel"},
        {"order": "parallel", "reduction": 4},
    ],
    ids=str,
)
def test_matches_the_paper(random_variables, settings):
    module, x = CBAM(**settings), example()
    variables = random_variables(module, x)

    y = jax.jit(functools.partial(module.apply, train=False))(variables, x)

    want = np.stack([Oracle(variables, settings)(a) for a in x])
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_records_both_gates(random_variables):
    module, x = CBAM(), example()
    variables = random_variables(module, x)
    oracle = Oracle(variables, {})

    _, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)

    channel = np.stack([oracle.channel(a.astype(np.float64)) for a in x])
    gated = x * channel[:, None, None, :]
    spatial = np.stack([oracle.spatial(a)[..., 0] for a in gated])
    np.testing.assert_allclose(maps["channel_gate"].values, channel, rtol=1e-5)
    np.testing.assert_allclose(maps["spatial_map"].values, spatial, rtol=1e-5)


@pytest.mark.parametrize(("variant", "kept"), [("official", 0.99), ("timm", 0.9)])
def test_training_keeps_statistics_as_torch_does(random_variables, variant, kept):
    module, x = CBAM(variant=variant), example()
    variables = random_variables(module, x)
    oracle = Oracle(variables, {"variant": variant})

    train = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    _, state = jax.jit(train)(variables, x)

    gated = [a * oracle.channel(a.astype(np.float64)) for a in x]
    logits = np.stack([oracle.logits(a) for a in gated])
    for name, now in (("mean", logits.mean()), ("var", logits.var())):
        before = variables["batch_stats"]["norm"][name]
        want = kept * before + (1 - kept) * now
        got = state["batch_stats"]["norm"][name]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, {64: 680, 256: 8_564, 512: 33_412, 2048: 526_564}),
        ({"variant": "timm"}, {64: 612, 256: 8_292, 512: 32_868, 2048: 524_388}),
        # Without the spatial gate and with one pool it is squeeze-and-excitation.
        ({"channel_pool": "avg", "spatial": "none"}, {64: 580, 256: 8_464}),
        ({"spatial": "conv1x1"}, {64: 580 + 64 + 49 + 2}),
        ({"channel_pool": "none"}, {64: 2 * 49 + 2}),
    ],
    ids=str,
)
def test_has_the_published_number_of_parameters(settings, counts):
    for channels, want in counts.items():
        module = CBAM(**settings)
        init = functools.partial(module.init, train=False)
        x = np.zeros((1, 2, 3, channels), np.float32)
        params = jax.eval_shape(init, jax.random.key(0), x)["params"]
        assert sum(a.size for a in jax.tree.leaves(params)) == want
        assert module.card.parameters(module, (2, 3, channels)) == want


def test_a_gate_of_nothing_is_refused():
    with pytest.raises(attn.settings.Invalid, match="gates nothing"):
        CBAM(channel_pool="none", spatial="none")


@pytest.mark.parametrize(
    ("channels", "official", "timm"), [(8, 1, 1), (24, 1, 2), (40, 2, 3), (64, 4, 4)]
)
def test_timm_rounds_the_hidden_width_to_the_nearest(channels, official, timm):
    assert hidden_channels(channels, 16, "official") == official
    assert hidden_channels(channels, 16, "timm") == timm
