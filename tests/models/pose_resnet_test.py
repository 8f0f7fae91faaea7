"""The simple baseline: its layers in NumPy, its published size, sizes that fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models
from tests.ops.transposed_test import scattered

BACKBONE = {"depth": 8, "layout": "cifar", "width": 4}
SMALL = {"num_joints": 5, "backbone": BACKBONE, "deconvolutions": 2, "width": 6}
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
pose_resnet = functools.partial(models.create, "pose_resnet")


def shapes(model, *size):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def drawn(model, *size):
    """Random variables, of which each layer keeps the size of what it gets."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        return rng.normal(size=leaf.shape, scale=1.4 * fan**-0.5).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes(model, *size))


def test_equals_its_layers_in_numpy():
    model = pose_resnet(**SMALL)
    variables = drawn(model, 8, 12)
    p, stats = variables["params"], variables["batch_stats"]

    found = jax.jit(functools.partial(model.apply, train=False))(variables, IMAGES)

    own = {key: tree["backbone"] for key, tree in variables.items()}
    resnet = models.create("resnet", num_classes=None, **BACKBONE)
    x = jax.jit(functools.partial(resnet.apply, train=False))(own, IMAGES)
    assert x.shape == (2, 2, 3, 16)
    for name in ("upsample0", "upsample1"):
        norm, seen = p[name]["norm"], stats[name]["norm"]
        x = scattered(np.asarray(x), p[name]["conv"]["kernel"])
        x = (x - seen["mean"]) / np.sqrt(np.float64(seen["var"]) + 1e-5)
        x = np.maximum(x * norm["scale"] + norm["bias"], 0)
    want = x @ np.float64(p["heatmaps"]["kernel"][0, 0]) + p["heatmaps"]["bias"]
    assert found.shape == (2, 8, 12, 5)
    assert found.dtype == jnp.float32
    assert np.abs(want).max() > 0.5
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_a_resnet_50_has_the_published_size():
    """34.0M with 17 joints; heatmaps are a quarter of the image."""
    model = pose_resnet(num_joints=17)
    images = jax.ShapeDtypeStruct((1, 64, 32, 3), jnp.float32)
    init = functools.partial(model.init_with_output, jax.random.key(0), train=False)
    found, variables = jax.eval_shape(init, images)
    resnet = 25_557_032 - (2048 + 1) * 1000  # torchvision's, without its classifier
    doubled = 16 * 256 * (2048 + 256 + 256) + 3 * 2 * 256
    want = resnet + doubled + (256 + 1) * 17
    assert count(variables["params"]) == want == 33_999_697
    assert found.shape == (1, 16, 8, 17)


def test_attention_is_in_every_slot():
    gate = {"name": "squeeze_excite", "reduction": 2}
    fill = {"block.residual": gate, "upsample1/upsample.end": gate}
    params = shapes(pose_resnet(**SMALL, slots=fill), 8, 12)["params"]
    plain = shapes(pose_resnet(**SMALL), 8, 12)["params"]
    assert "residual" in params["backbone"]["stage2"]["block0"]
    assert params["upsample1"].keys() - plain["upsample1"].keys() == {"end"}
    assert params["upsample0"].keys() == plain["upsample0"].keys()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone": "resnet"}, "must be a mapping"),
        ({"backbone": {"depth": 9, "layout": "cifar"}}, "got 9"),
        ({"backbone": {"num_classes": 3}}, "backbone has no 'num_classes'"),
        ({"backbone": {"pooling": "covariance"}}, "backbone has no 'pooling'"),
        ({"deconvolutions": 0}, "'deconvolutions' .* must be a positive int"),
        ({"slots": {"upsample0/block.residual": "cbam"}}, "only backbone has"),
        ({"slots": {"backbone/upsample.end": "cbam"}}, "only upsample has"),
        ({"slots": {"upsample2/upsample.end": "cbam"}}, "did you mean 'upsample1'"),
    ],
)
def test_says_what_would_fit(changes, says):
    with pytest.raises(ValueError, match=says):
        pose_resnet(**(SMALL | changes))


def test_images_whose_map_would_be_rounded_up_are_refused():
    with pytest.raises(ValueError, match=r"stride 32.* got 64 x 48; .* are 64 x 64"):
        shapes(pose_resnet(num_joints=3, backbone={"depth": 18}), 64, 48)
    with pytest.raises(ValueError, match="stride 4"):
        shapes(pose_resnet(**SMALL), 8, 10)
