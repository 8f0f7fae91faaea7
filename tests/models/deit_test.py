"""Distilled DeiT: its two heads, slots and errors; logits are in interop/timm_test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models

READER = "tests.models.probe:Reader"
DOUBLE = "tests.models.probe:Double"
tiny = functools.partial(
    models.create,
    "deit",
    num_classes=5,
    size="tiny",
    patch_size=4,
    width=12,
    depth=2,
)
IMAGES = np.random.default_rng(0).normal(size=(3, 8, 12, 2)).astype(np.float32)


def made(model):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, IMAGES)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


def run(model, variables, **more):
    apply = functools.partial(model.apply, **{"train": False, **more})
    return jax.jit(apply)(variables, IMAGES)


def test_the_heads_are_two_outputs_in_training_and_their_mean_in_evaluation():
    model = tiny(distilled_training=True)
    variables = made(model)
    apply = jax.jit(model.apply, static_argnames="train")
    heads = apply(variables, IMAGES, train=True)
    mean = (heads["logits"] + heads["distilled"]) / 2
    for got in (
        apply(variables, IMAGES, train=False),
        run(tiny(), variables),
        run(tiny(), variables, train=True),
    ):
        np.testing.assert_allclose(got, mean, rtol=1e-5, atol=1e-5)
    # Each has a classifier of its own, and a token.
    other = jax.tree.map(lambda a: a, variables)
    other["params"]["distillation_classifier"]["bias"] += 1.0
    moved = apply(other, IMAGES, train=True)
    np.testing.assert_array_equal(moved["logits"], heads["logits"])
    want = heads["distilled"] + 1
    np.testing.assert_allclose(moved["distilled"], want, rtol=1e-5, atol=1e-5)
    assert np.abs(heads["logits"] - heads["distilled"]).max() > 0.1


def test_attentions_see_both_tokens_and_maps_the_patches():
    slots = {"block1/block.post": "squeeze_excite", "pool": "multi_head"}
    model = tiny(slots=slots)
    capture = functools.partial(attn.capture, model)
    _, maps = jax.eval_shape(capture, made(model), IMAGES)
    assert {path: m.values.shape for path, m in maps.items()} == {
        "block0/mixer/token_matrix": (3, 3, 8, 8),
        "block1/mixer/token_matrix": (3, 3, 8, 8),
        "block1/post/channel_gate": (3, 12),
        "pool/token_matrix": (3, 3, 2, 8),
    }
    assert models.find("deit").slots() == ["block.pre", "mixer", "block.post", "pool"]


def test_positions_may_know_the_grid_behind_both_tokens():
    model = tiny(slots={"mixer": {"name": "multi_head", "position": "relative_bias"}})
    assert made(model)["params"]["block0"]["mixer"]["position"]


def test_blocks_are_those_of_vit():
    settings = {"num_classes": 5, "patch_size": 4, "width": 12, "depth": 1}
    vit = models.create("vit", **settings, num_heads=3)
    init = functools.partial(vit.init, jax.random.key(0), train=False)
    shapes = lambda tree: jax.tree.map(lambda a: a.shape, tree)
    theirs = jax.eval_shape(init, IMAGES)["params"]["block0"]
    assert shapes(made(tiny())["params"]["block0"]) == shapes(theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide width=12.*: 3, 4, 6"),
        ({"depth": 0}, "depth of DeiT must be at least 1, got 0"),
        ({"size": "large"}, "must be one of 'tiny', 'small', 'base'"),
        ({"dropout": -0.1}, r"dropout of DeiT must be in \[0, 1\), got -0.1"),
        ({"slots": {"block2/mixer": READER}}, r"'block2'.*\(valid: block0, block1\)"),
        ({"slots": {"pool": DOUBLE}}, "'pool'.*class and the distillation token"),
        (
            {"slots": {"mixer": DOUBLE}},
            "nothing .* reaches the class and the",
        ),
        (
            {"slots": {"mixer": "none"}},
            "nothing .* reaches the class and the",
        ),
    ],
)
def test_says_what_would_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_an_image_of_another_size_is_refused():
    model = tiny()
    apply = functools.partial(model.apply, train=False)
    with pytest.raises(ValueError, match="for 8 tokens, but the image has 6"):
        jax.eval_shape(apply, made(model), jnp.zeros((1, 8, 8, 2)))
