"""VGG against NumPy with a map doubled in each slot, fixed statistics, its errors.

Its logits are compared with timm's in `tests/interop/timm_test.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models
from attn.models.scaling import Width
from attn.settings import Invalid

small = functools.partial(
    models.create,
    "vgg",
    num_classes=5,
    depth=11,
    widths=(2, 3, 4, 6, 5),
    dense=(7, 8),
    side=1,
)
IMAGES = np.random.default_rng(0).normal(size=(2, 37, 70, 3)).astype(np.float32)
DOUBLE = "tests.models.probe:Double"


def made(model, images=IMAGES):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, images)
    leaves, tree = jax.tree.flatten(shapes)
    draw = np.random.default_rng(1).uniform
    return jax.tree.unflatten(
        tree, [draw(-0.5, 0.9, leaf.shape).astype(np.float32) for leaf in leaves]
    )


def apply(model, variables, images=IMAGES):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


def convolved(x, params):
    """A 3x3 convolution padded by 1, in float64, as a sum over its nine pixels."""
    kernel = np.asarray(params["kernel"], np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    parts = (
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    return sum(parts) + params["bias"]


def pooled(x):
    """The largest of each 2x2, without a last odd row or column."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


@pytest.mark.parametrize("slot", [None, "input", "block.post", "stage.end", "head"])
def test_equals_numpy_with_a_doubled_map_in_each_slot(slot):
    model = small(slots={slot: DOUBLE} if slot else {})
    params = made(model)["params"]
    twice = lambda place, x: 2 * x if place == slot else x
    x = twice("input", IMAGES.astype(np.float64))
    for number, size in enumerate((1, 1, 2, 2, 2), 1):
        x = pooled(x) if number > 1 else x
        for index in range(size):
            layer = params[f"stage{number}"][f"block{index}"]["conv"]
            x = twice("block.post", np.maximum(convolved(x, layer), 0))
        x = twice("stage.end", x)
    x = pooled(twice("head", x))
    first, second = params["dense0"], params["dense1"]
    x = np.maximum(x @ first["kernel"][0, 0] + first["bias"], 0)
    x = np.maximum(x @ second["kernel"] + second["bias"], 0)
    head = params["classifier"]
    want = (x @ head["kernel"] + head["bias"]).mean(axis=(1, 2))
    found = apply(model, {"params": params})
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, want, rtol=1e-4)


def test_without_classes_the_last_map_comes_out():
    model = small(num_classes=None, norm=True)
    found = apply(model, made(model))
    assert found.shape == (2, 37 // model.stride(), 70 // model.stride(), 5)


def test_its_widths_and_its_linear_layers_are_scaled_to_a_budget():
    assert small().width_settings() == {
        "widths": Width((2, 3, 4, 6, 5), 1),
        "dense": Width((7, 8), 1),
    }
    assert "dense" not in small(num_classes=None).width_settings()


def test_a_filling_of_one_convolution_reaches_that_alone():
    places = {"block.post": "squeeze_excite", "stage3/block.post": "none"}
    places["stage4/block1/block.post"] = "pixel_attention"
    model = small(slots=places)
    params = made(model)["params"]
    gated = {
        (stage, block)
        for stage, blocks in params.items()
        for block, layers in blocks.items()
        if isinstance(layers, dict) and "post" in layers
    }
    plain = {(f"stage{k}", "block0") for k in (1, 2, 4, 5)}
    assert gated == plain | {("stage4", "block1"), ("stage5", "block1")}
    assert "squeeze" not in params["stage4"]["block1"]["post"]


def test_frozen_norm_keeps_its_statistics_and_has_no_parameters():
    model = small(norm=True, frozen_norm=True)
    variables = made(model)
    assert "norm" not in variables["params"]["stage1"]["block0"]
    train = functools.partial(
        model.apply,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
    )
    _, state = jax.jit(train)(variables, IMAGES)
    jax.tree.map(
        np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 12}, r"unknown depth of a VGG 12 \(valid: 11, 13, 16, 19\)"),
        ({"widths": (2, 3, 4, 6)}, r"must be 5 numbers, .* got \(2, 3, 4, 6\)"),
        ({"widths": (2, 3, 0, 6, 5)}, "widths"),
        ({"dense": (0,)}, "dense"),
        ({"dropout": 1.5}, "dropout"),
        ({"frozen_norm": True}, "frozen_norm=True is of a VGG that has norm=True"),
        (
            {"slots": {"block.residual": "cbam"}},
            "unknown slot 'block.residual'.*block.post",
        ),
        ({"slots": {"stage2/block1/block.post": "cbam"}}, "'block1'"),
    ],
)
def test_says_what_would_fit(settings, message):
    with pytest.raises(Invalid, match=message):
        small(**settings)


@pytest.mark.parametrize(
    ("settings", "least"),
    [({}, 32), ({"side": 2}, 64), ({"num_classes": None}, 16), ({"dense": ()}, 32)],
)
def test_an_image_that_is_too_small_is_refused(settings, least):
    model = small(**settings)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    jax.eval_shape(init, jnp.zeros((1, least, least + 1, 3)))
    with pytest.raises(Invalid, match=f"be {least} pixels.*{least}x{least - 1}"):
        jax.eval_shape(init, jnp.zeros((1, least, least - 1, 3)))
