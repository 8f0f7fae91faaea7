"""Models that start with a ResNet or VGG of torchvision or timm as their backbone."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from attn import interop, models, settings
from attn.interop import timm

RESNET = {"depth": 18, "widths": (6, 4, 6, 8, 10)}
IMAGE = np.zeros((1, 32, 64, 3), np.float32)
WORDS = np.zeros((1, 4), np.int32)
HOSTS = {
    "pose_resnet": ({"num_joints": 3, "width": 6}, [IMAGE]),
    "captioner": (
        {"vocab_size": 7, "width": 6, "embedding": 5, "frozen": True},
        [IMAGE, WORDS],
    ),
}


def shapes_of(model, *inputs):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, *inputs)


VGG = {"depth": 11, "widths": (2, 3, 4, 6, 5)}


@functools.cache
def resnet():
    """A ResNet by itself, and a state dict of it with timm's names."""
    model, state = alone("resnet", **RESNET)
    return model, state | {"bn1.num_batches_tracked": np.array(1)}


def alone(name, **given):
    """A network by itself, and a state dict of it with timm's names."""
    model = models.create(name, num_classes=5, **given)
    flat = traverse_util.flatten_dict(shapes_of(model, IMAGE))
    draw = np.random.default_rng(0).normal
    sources = timm.sources(model, flat).values()
    state = {one.name: np.float32(draw(size=one.shapes[0])) for one in sources}
    return model, state


def start(name, state, **changes):
    given, inputs = HOSTS[name]
    model = models.create(name, **{"backbone": RESNET, **given, **changes})
    return interop.fit(state, model, shapes_of(model, *inputs))


@pytest.mark.parametrize("name", HOSTS)
def test_the_backbone_is_the_resnet_and_all_else_is_new(name):
    model, state = resnet()
    assert {"layer2.0.downsample.0.weight", "fc.weight"} <= state.keys()
    whole = traverse_util.flatten_dict(interop.from_timm(state, model, (32, 64, 3)))
    want = {path[1:]: value for path, value in whole.items() if path[1] != "classifier"}
    fit = start(name, state)
    found = fit.variables()
    assert {path[2:] for path in found} == want.keys()
    for path, value in found.items():
        assert path[1] == "backbone"
        np.testing.assert_array_equal(value, want[path[2:]], err_msg=str(path))
    assert fit.note().endswith("left out: fc")


def test_a_resnet_of_other_sizes_is_one_sentence():
    _, state = resnet()
    with pytest.raises(settings.Invalid, match=r"it lacks layer1\.0\.bn3"):
        start("pose_resnet", state, backbone={**RESNET, "depth": 26})
    with pytest.raises(settings.Invalid, match=r"has shape .* this model, of shape"):
        start("pose_resnet", state, backbone={**RESNET, "widths": (6, 4, 6, 8, 11)})


def test_other_weights_need_rules():
    with pytest.raises(settings.Invalid, match=r"PoseResNet has no rules for weights"):
        start("pose_resnet", {"other.weight": np.zeros(3)})


def test_a_vgg_of_torchvision_is_the_backbone_of_a_captioner():
    model, state = alone("vgg", dense=(7, 6), side=1, **VGG)
    whole = traverse_util.flatten_dict(interop.from_timm(state, model, (32, 64, 3)))
    linear = {"pre_logits.fc1": "0", "pre_logits.fc2": "3", "head.fc": "6"}
    for layer, place in linear.items():
        for leaf in ("weight", "bias"):
            value = state.pop(f"{layer}.{leaf}")
            flat = value.reshape(len(value), -1) if leaf == "weight" else value
            state[f"classifier.{place}.{leaf}"] = flat
    fit = start("captioner", state, backbone={"name": "vgg", **VGG})
    found = fit.variables()
    assert len(found) == 2 * 8  # kernels and biases of all convolutions
    for (kind, _, *path), value in found.items():
        np.testing.assert_array_equal(value, whole[kind, *path], err_msg=str(path))
    assert "left out: head.fc, pre_logits.fc1, pre_logits.fc2" in fit.note()
