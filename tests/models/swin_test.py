"""Swin: slots, windows, merges and errors; its logits are in interop/timm_test."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models
from attn.models import swin
from attn.models.layers.transformer import Block

READER = "tests.models.probe:Reader"
DOUBLE = "tests.models.probe:Double"
tiny = functools.partial(
    models.create,
    "swin",
    num_classes=5,
    patch_size=2,
    width=8,
    depths=(1, 2),
    num_heads=(2, 4),
    window=2,
)
# Grids of 5x6 and, merged, 3x3: windows of 2x2 divide neither.
IMAGES = np.random.default_rng(0).normal(size=(3, 10, 12, 3)).astype(np.float32)


def made(model, images=IMAGES):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, images)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


def run(model, variables, images=IMAGES):
    return jax.jit(functools.partial(model.apply, train=False))(variables, images)


def test_lists_the_slots_in_order():
    places = ["block.pre", "mixer", "block.post", "stage.end", "pool"]
    assert models.find("swin").slots() == places


def test_every_second_block_is_shifted_and_gets_what_its_stage_has():
    model = tiny(slots={"stage1/stage.end": "squeeze_excite"})
    capture = functools.partial(attn.capture, model)
    _, maps = jax.eval_shape(capture, made(model), IMAGES)
    assert {path: m.values.shape for path, m in maps.items()} == {
        "stage1/block0/mixer/token_matrix": (3, 2, 30, 30),
        "stage1/end/channel_gate": (3, 8),
        "stage2/block0/mixer/token_matrix": (3, 4, 9, 9),
        "stage2/block1/mixer/token_matrix": (3, 4, 9, 9),
    }
    _, maps = jax.jit(capture)(made(model), IMAGES)
    seen = {
        path: np.flatnonzero(maps[f"stage2/{path}/mixer/token_matrix"].values[0, 0, 4])
        for path in ("block0", "block1")
    }
    assert seen["block0"].tolist() == [0, 1, 3, 4]
    assert seen["block1"].tolist() == [4, 5, 7, 8]


def test_a_mixer_may_be_filled_everywhere_or_in_one_block():
    kernels = lambda slots: {
        path: set(block["mixer"])
        for path, block in made(tiny(slots=slots))["params"]["stage2"].items()
        if "mixer" in block
    }
    windows = {"bias_table", "query", "key", "value", "out"}
    heads = windows - {"bias_table"}
    assert kernels({}) == {"block0": windows, "block1": windows}
    assert kernels({"mixer": "multi_head"}) == {"block0": heads, "block1": heads}
    one = {"stage2/block1/mixer": "multi_head", "stage2/block0/mixer": "none"}
    assert kernels(one) == {"block1": heads}


def test_slots_are_in_their_places():
    variables = made(tiny())
    logits = lambda place: run(tiny(slots={place: READER}), variables)
    plain, post = run(tiny(), variables), logits("stage2/block0/block.post")
    assert np.abs(post - plain).max() > 0.01
    pre = logits("stage2/block1/block.pre")
    np.testing.assert_allclose(post, pre, rtol=1e-5, atol=1e-5)
    end, post = logits("stage1/stage.end"), logits("stage1/block.post")
    assert np.abs(end - plain).max() > 0.01
    np.testing.assert_allclose(post, end, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [READER, DOUBLE])
def test_a_token_attention_and_one_of_maps_may_pool(module):
    variables = made(tiny())
    bias = variables["params"]["classifier"]["bias"][None]
    doubled = run(tiny(slots={"pool": module}), variables)  # the mean, twice
    want = 2 * (run(tiny(), variables) - bias) + bias
    np.testing.assert_allclose(doubled, want, rtol=1e-4, atol=1e-4)


def test_merges_neighbours_in_the_order_of_the_released_code():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, 15, 2)), jnp.float32)
    merge = swin.Merge(jnp.float32)
    variables = merge.init(jax.random.key(0), x, (3, 5))
    kernel = np.asarray(variables["params"]["reduction"]["kernel"])
    got, merged = merge.apply(variables, x, (3, 5))
    assert merged == (2, 3)
    grid = np.zeros((4, 6, 2))
    grid[:3, :5] = np.asarray(x[0]).reshape(3, 5, 2)
    for row, column in np.ndindex(2, 3):
        four = [
            grid[2 * row + down, 2 * column + right]
            for right in (0, 1)
            for down in (0, 1)
        ]
        four = np.concatenate(four)
        four = (four - four.mean()) / np.sqrt(four.var() + 1e-5)
        want = four @ kernel
        np.testing.assert_allclose(got[0, 3 * row + column], want, rtol=1e-4, atol=1e-5)


def test_branches_are_left_out_more_often_deeper():
    model, rates = tiny(drop_path=0.6), []

    def see(run, args, kwargs, context):
        if isinstance(context.module, Block) and context.method_name == "__call__":
            rates.append(context.module.drop_path)
        return run(*args, **kwargs)

    with nn.intercept_methods(see):
        made(model)
    np.testing.assert_allclose(rates, [0, 0.3, 0.6])


def test_computes_in_bfloat16_and_answers_in_float32():
    model = tiny(dtype=jnp.bfloat16)
    apply = functools.partial(model.apply, train=False, capture_intermediates=True)
    y, state = jax.eval_shape(apply, made(model), IMAGES)
    stages = [state["intermediates"][f"stage{stage}"] for stage in (1, 2)]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(stages)} == {"bfloat16"}
    assert y.dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": (3, 4)}, "num_heads=3 does not divide width=8.*: 1, 2, 4"),
        ({"num_heads": (2, 5)}, "num_heads=5 does not divide width=16"),
        ({"depths": (1, 1, 1)}, r"entry a stage, got \(1, 1, 1\) and \(2, 4\)"),
        ({"window": 0}, "window of Swin must be at least 1, got 0"),
        ({"depths": (0, 1)}, r"depths of Swin must be at least 1, got \(0, 1\)"),
        ({"drop_path": 1.0}, r"drop_path of Swin must be in \[0, 1\), got 1.0"),
        ({"size": "giant"}, "must be one of 'tiny', 'small', 'base', 'large'"),
        ({"slots": {"stage3/mixer": READER}}, r"'stage3'.*\(valid: stage1, stage2\)"),
        ({"slots": {"stage1/pool": READER}}, "'pool' can be narrowed by at most 0"),
        ({"slots": {"mixer": "windw"}}, "did you mean 'window'"),
    ],
)
def test_says_what_would_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({}, (9, 12), "patch_size=2 does not divide the image of 9x12.*8x12 or 10x12"),
        (
            {"slots": {"mixer": {"name": "window", "window": 4}}},
            (10, 12),
            "window 4x4 is larger than its grid 3x3; windows up to 3x3 fit",
        ),
        # Made for images whose second stage has one window of 2x3.
        ({"window": 3}, (10, 12), r"window of 3x3 needs a bias table.*\(3, 5, 4\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(settings, shape, message):
    model = tiny(**settings)
    start = (8, 12) if "window" in settings else shape
    with pytest.raises(ValueError, match=message):
        variables = made(model, jnp.zeros((1, *start, 3)))
        images = jnp.zeros((1, *shape, 3))
        jax.eval_shape(functools.partial(model.apply, train=False), variables, images)


def test_one_set_of_variables_serves_other_images():
    variables = made(tiny())
    images = jnp.zeros((2, 16, 24, 3))
    apply = functools.partial(tiny().apply, train=False)
    assert jax.eval_shape(apply, variables, images).shape == (2, 5)
