"""Measures of a model are those of its maps."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import explain
from tests.explain import networks

SIZE = networks.SIZE
OF_OBJECTS = {
    f"{of}_{name}" for of in ("attention", "saliency") for name in ("inside", "hits")
} | {"object_area"}
OF_ATTENTION = {
    f"attention_{n}" for n in ("inside", "hits", "entropy", "deletion", "insertion")
}


def objects():
    return jnp.asarray(np.random.default_rng(3).uniform(size=(2, *SIZE)) < 0.3)


def test_every_measure_is_that_of_the_mean_map():
    model, variables = networks.network("vit", depth=2, pool="mean")
    images, where = networks.images(), objects()
    found = networks.compiled(explain.measure, model, variables, images, where, steps=5)
    assert found.keys() == explain.MEASURES.keys()
    maps = networks.compiled(explain.attention_maps, model, variables, images)
    mean = (maps["block0/mixer"] + maps["block1/mixer"]) / 2
    saliency = networks.compiled(explain.saliency, model, variables, images)
    score = explain.confidence(model, variables, images)
    area = lambda curve: explain.area(jax.jit(curve)(images, mean))
    _, recorded = jax.jit(lambda x: attn.capture(model, variables, x))(images)
    far = [explain.mean_distance(m.values, (2, 3)) for m in recorded.values()]
    wanted = {
        "attention_inside": 100 * explain.share_inside(mean, where),
        "attention_hits": 100 * explain.pointing_game(mean, where),
        "saliency_inside": 100 * explain.share_inside(saliency, where),
        "saliency_hits": 100 * explain.pointing_game(saliency, where),
        "object_area": 100 * np.asarray(where, np.float64).mean(axis=(1, 2)),
        "attention_entropy": explain.entropy(mean),
        "attention_distance": 4 * (far[0] + far[1]).mean(axis=1) / 2,
        "attention_deletion": area(functools.partial(explain.deletion, score, steps=5)),
        "attention_insertion": area(
            functools.partial(explain.insertion, score, steps=5)
        ),
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, err_msg=name)


def test_each_attention_is_measured_in_the_order_of_calls():
    slots = {"input": "pixel_attention", "conv1": "cbam", "conv2": "squeeze_excite"}
    model, variables = networks.network("cnn", slots=slots)
    images, where = networks.images(), objects()
    paths = explain.attention_paths(model, variables, images)
    assert paths == ["input", "conv1", "conv2"]
    _, each = networks.compiled(explain.measure_each, model, variables, images, where)
    maps = networks.compiled(explain.attention_maps, model, variables, images)
    assert each.keys() == maps.keys() == set(paths)
    for path, found in each.items():
        inside = 100 * explain.share_inside(maps[path], where)
        np.testing.assert_allclose(found["attention_inside"], inside, rtol=1e-3)
        even = explain.entropy(maps[path])
        np.testing.assert_allclose(found["attention_entropy"], even, rtol=1e-3)


def test_curves_may_be_run_on_some_images():
    slots = {"conv1": "pixel_attention"}
    model, variables = networks.network("cnn", slots=slots)
    args = (model, variables, networks.images(), None, jnp.asarray([1, 3]))
    whole, _ = networks.compiled(explain.measure_each, *args)
    some, _ = networks.compiled(explain.measure_each, *args, most=1)
    for name in ("attention_deletion", "attention_insertion"):
        np.testing.assert_allclose(some[name][0], whole[name][0], rtol=1e-4)
        assert np.isnan(some[name][1])
    np.testing.assert_allclose(some["attention_entropy"], whole["attention_entropy"])


def test_a_plain_network_has_saliency_alone():
    model, variables = networks.network("cnn")
    args = (model, variables, networks.images(), objects())
    assert networks.compiled(explain.measure, *args).keys() == OF_OBJECTS - OF_ATTENTION
    assert networks.compiled(explain.measure, *args[:3]) == {}


def test_gates_of_channels_have_what_other_attentions_have():
    slots = {"conv1": "squeeze_excite"}
    model, variables = networks.network("cnn", slots=slots)
    args = (model, variables, networks.images(), objects())
    found = networks.compiled(explain.measure, *args)
    assert found.keys() == OF_OBJECTS | OF_ATTENTION


def test_a_model_without_logits_has_what_its_maps_tell():
    class Gated(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            gate = attn.modules.find("pixel_attention")(name="gate")
            return gate(x, train=train)

    model, images = Gated(), networks.images()
    variables = networks.disturbed(model, images)
    found = networks.compiled(explain.measure, model, variables, images)
    assert found.keys() == {"attention_entropy"}


@pytest.mark.parametrize("name", explain.MEASURES)
def test_measures_say_how_they_are_shown(name):
    entry = explain.MEASURES[name]
    assert entry.label
    assert entry.better in ("lower", "higher", "")
    assert (entry.unit == "%") == (name in OF_OBJECTS)


def test_a_target_that_does_not_fit_is_refused():
    model, variables = networks.network("cnn")
    with pytest.raises(ValueError, match="do not fit logits"):
        explain.measure(
            model, variables, networks.images(), objects(), target=jnp.zeros(3, int)
        )
