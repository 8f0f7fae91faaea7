"""Distilled DeiT: its two heads, slots and errors; logits are in interop_test."""

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


def made(host):
    init = functools.partial(host.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, IMAGES)
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


def run(host, variables, **more):
    apply = functools.partial(host.apply, train=False, **more)
    return jax.jit(apply)(variables, IMAGES)


def test_the_logits_are_the_mean_of_two_heads_of_which_each_has_its_token():
    host = tiny()
    variables = made(host)
    ours, teachers = run(host, variables, method="heads")
    np.testing.assert_allclose(run(host, variables), (ours + teachers) / 2, rtol=1e-5)
    other = jax.tree.map(lambda a: a, variables)
    other["params"]["distillation_classifier"]["bias"] += 1.0
    same, moved = run(host, other, method="heads")
    np.testing.assert_array_equal(same, ours)
    np.testing.assert_allclose(moved, teachers + 1, rtol=1e-5, atol=1e-5)


def test_attentions_see_both_tokens_and_maps_the_patches():
    slots = {"block1/block.post": "squeeze_excite", "pool": "multi_head"}
    host = tiny(slots=slots)
    capture = functools.partial(attn.capture, host)
    _, maps = jax.eval_shape(capture, made(host), IMAGES)
    assert {path: m.values.shape for path, m in maps.items()} == {
        "block0/mixer/token_matrix": (3, 3, 8, 8),
        "block1/mixer/token_matrix": (3, 3, 8, 8),
        "block1/post/channel_gate": (3, 12),
        "pool/token_matrix": (3, 3, 2, 8),
    }
    assert models.find("deit").slots() == ["block.pre", "mixer", "block.post", "pool"]


def test_positions_may_know_the_grid_behind_both_tokens():
    host = tiny(slots={"mixer": {"name": "multi_head", "position": "relative_bias"}})
    assert made(host)["params"]["block0"]["mixer"]["position"]


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
        ({"depth": 0}, "depth of a DeiT must be at least 1, got 0"),
        ({"size": "large"}, "must be one of 'tiny', 'small', 'base'"),
        ({"dropout": -0.1}, r"dropout of a DeiT must be in \[0, 1\), got -0.1"),
        ({"slots": {"block2/mixer": READER}}, r"'block2'.*\(valid: block0, block1\)"),
        ({"slots": {"pool": DOUBLE}}, "'pool'.*class and the distillation token"),
        ({"slots": {"mixer": DOUBLE}}, "its two tokens never see the image"),
        ({"slots": {"mixer": "none"}}, "its two tokens never see the image"),
    ],
)
def test_says_what_would_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_an_image_of_another_size_is_refused():
    host = tiny()
    apply = functools.partial(host.apply, train=False)
    with pytest.raises(ValueError, match="for 8 tokens, but the image has 6"):
        jax.eval_shape(apply, made(host), jnp.zeros((1, 8, 8, 2)))
