"""PixelAttention against PAN's and FFA-Net's formulas in float64."""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import numpy as np
import pytest

import attn
from attn.models import slots
from attn.models.base import Model
from attn.modules.pixel.pixel_attention import PixelAttention


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def oracle(params, x, variant):
    """The gate of every value, one position at a time."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    gate = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        z = x[place].astype(np.float64)
        if variant == "ffa":
            z = np.maximum(z @ p["squeeze"]["kernel"] + p["squeeze"]["bias"], 0)
        gate[place] = sigmoid(z @ p["excite"]["kernel"] + p["excite"]["bias"])
    return gate


@pytest.mark.parametrize(
    ("variant", "kind"), [("pan", "pixel_gate"), ("ffa", "spatial_map")]
)
def test_matches_the_paper(random_variables, variant, kind):
    module = PixelAttention(variant=variant)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 24)).astype(np.float32)
    variables = random_variables(module, x)

    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)

    gate = oracle(variables["params"], x, variant)
    np.testing.assert_allclose(y, x * gate, rtol=1e-5, atol=1e-6)
    assert maps.keys() == {kind}
    want = gate if variant == "pan" else gate[..., 0]
    np.testing.assert_allclose(maps[kind].values, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "channels", "count"),
    [("pan", 24, 600), ("pan", 64, 4_160), ("pan", 256, 65_792), ("ffa", 64, 529)],
)
def test_has_the_published_number_of_parameters(variant, channels, count):
    module = PixelAttention(variant=variant)
    init = functools.partial(module.init, train=False)
    x = np.zeros((1, 2, 3, channels), np.float32)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(shapes)) == count
    assert module.card.parameters(module, (2, 3, channels)) == count


class Place(Model):
    """A model that is one slot."""

    places: ClassVar[dict[str, int]] = {"end": 0}

    @nn.compact
    def __call__(self, x, *, train):
        return slots.attend(self, "end", x, train=train)


def test_a_list_of_channel_and_pixel_attention_is_the_pair_of_ffa_net(random_variables):
    channel = {"name": "squeeze_excite", "reduction": 8}
    pixel = {"name": "pixel_attention", "variant": "ffa"}
    module = Place(fill={"end": [channel, pixel]})
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 64)).astype(np.float32)
    variables = random_variables(module, x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    assert sum(a.size for a in jax.tree.leaves(p["end0"])) == 1_096  # CALayer
    assert sum(a.size for a in jax.tree.leaves(p["end1"])) == 529  # PALayer

    y = jax.jit(functools.partial(module.apply, train=False))(variables, x)

    first, mean = p["end0"], x.mean(axis=(1, 2), dtype=np.float64)
    hidden = mean @ first["squeeze"]["kernel"] + first["squeeze"]["bias"]
    logits = np.maximum(hidden, 0) @ first["excite"]["kernel"] + first["excite"]["bias"]
    gated = x * sigmoid(logits)[:, None, None]
    want = gated * oracle(p["end1"], gated, "ffa")
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
