"""Every token attention drops into the slots of both models, and learns there.

All of them stand in one network, because compiling is what takes the time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models

FILLINGS = {
    "class_attention": {"name": "class_attention", "others": "zero"},
    "cross_attention": {"name": "cross_attention"},
    "cross_covariance": {"name": "cross_covariance"},
    "linear": {"name": "linear"},
    "linformer": {"name": "linformer", "rank": 3},
    "neighborhood": {"name": "neighborhood", "window": 3},
    "performer": {"name": "performer", "num_features": 8},
}
VIT = functools.partial(
    models.create, "vit", num_classes=3, patch_size=2, width=8, num_heads=2
)
RESNET = functools.partial(
    models.create, "resnet", depth=8, layout="cifar", num_classes=3
)
IMAGES = np.random.default_rng(0).normal(size=(2, 12, 16, 2)).astype(np.float32)
# Places of the ResNet, so that each attention meets a map of its own.
PLACES = (
    "stem",
    "stage1/block.residual",
    "stage1/stage.end",
    "stage2/block.residual",
    "stage2/stage.end",
    "stage3/stage.end",
    "stage3/block.residual",
)


def made(model):
    """Variables without compiling an initialisation: scales and variances near 1."""
    init = functools.partial(model.init, jax.random.key(0), train=False)
    shapes, rng = jax.eval_shape(init, IMAGES), np.random.default_rng(1)

    def leaf(path, a):
        if path[-1].key in ("var", "scale", "temperature"):
            return rng.uniform(0.8, 1.2, a.shape).astype(np.float32)
        width = np.prod(a.shape[:-1]) ** -0.5 if a.ndim > 1 else 0.1
        return rng.normal(scale=width, size=a.shape).astype(np.float32)

    return jax.tree.map_with_path(leaf, shapes)


def learns(model):
    """Takes a step against the gradient; returns the gradients by path."""
    variables = made(model)
    state = {name: v for name, v in variables.items() if name != "params"}

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        y = model.apply({"params": params, **state}, IMAGES, train=False)
        return jnp.mean(jax.nn.logsumexp(y, -1) - y[:, 1])

    before, grads = loss(variables["params"])
    size = sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)) ** 0.5
    descend = lambda p, g: p - 1e-3 * g / size
    after, _ = loss(jax.tree.map(descend, variables["params"], grads))
    assert np.isfinite(after)
    assert after < before
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.abs(gradient)
        for path, gradient in jax.tree.leaves_with_path(grads)
    }


def test_as_mixers_of_a_vit():
    slots = {f"block{i}/mixer": filling for i, filling in enumerate(FILLINGS.values())}
    grads = learns(VIT(depth=len(FILLINGS), slots=slots, pool="mean"))
    assert all(np.all(np.isfinite(g)) for g in grads.values())
    for index in range(len(FILLINGS)):
        assert grads[f"block{index}/mixer/value/kernel"].max() > 1e-6


def test_in_all_places_of_a_resnet():
    slots = dict(zip(PLACES, FILLINGS.values(), strict=True))
    grads = learns(RESNET(slots=slots))
    assert all(np.all(np.isfinite(g)) for g in grads.values())
    values = [g for path, g in grads.items() if path.endswith("value/kernel")]
    assert len(values) == len(FILLINGS)
    assert all(g.max() > 1e-6 for g in values)


@pytest.mark.parametrize("name", list(FILLINGS))
def test_at_the_end_of_a_stage_of_a_resnet(name):
    model = RESNET(slots={"stage3/stage.end": FILLINGS[name]})
    shapes = jax.eval_shape(
        functools.partial(model.init_with_output, train=False),
        jax.random.key(0),
        IMAGES,
    )
    assert shapes[0].shape == (2, 3)
    assert "value" in shapes[1]["params"]["stage3"]["end"]


@pytest.mark.parametrize("name", sorted(FILLINGS.keys() - {"neighborhood"}))
def test_beside_a_class_token(name):
    model = VIT(depth=1, slots={"mixer": FILLINGS[name]})
    run = functools.partial(model.init_with_output, train=False)
    y, _ = jax.eval_shape(run, jax.random.key(0), IMAGES)
    assert y.shape == (2, 3)


def test_a_class_token_lies_on_no_grid():
    model = VIT(depth=1, slots={"mixer": FILLINGS["neighborhood"]})
    with pytest.raises(ValueError, match=r"49 tokens; a class token .* pool='mean'"):
        model.init(jax.random.key(0), IMAGES, train=False)
