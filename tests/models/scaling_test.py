"""Widths: as they are they change nothing, larger they widen, and steps are needed."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from attn import models
from attn.models import scaling
from attn.models.scaling import Width

HEADS = {"name": "multi_head", "num_heads": 3}
CASES = {
    "resnet": ("resnet", {"depth": 8, "layout": "cifar", "width": 6}),
    "resnet in numbers": (
        "resnet",
        {"depth": 8, "layout": "cifar", "widths": [3, 4, 5, 7]},
    ),
    "resnext": (
        "resnet",
        {
            "depth": 11,
            "layout": "cifar",
            "block": "bottleneck",
            "width": 32,
            "cardinality": 4,
            "group_width": 8,
        },
    ),
    "resnet of heads": (
        "resnet",
        {
            "depth": 8,
            "layout": "cifar",
            "width": 12,
            "slots": {"stage2/block.conv2": HEADS, "head": "multi_head"},
        },
    ),
    "mlp": ("mlp", {"widths": (6, 5)}),
    "cnn": ("cnn", {"filters": (4, 3), "kernel_sizes": 3, "dense": (7,)}),
}
vit = lambda **more: ("vit", {"width": 24, "depth": 1, "num_heads": 3, **more})
CASES |= {
    "vit": vit(),
    "vit mlp": vit(mlp_dim=29, mlp_ratio=2.0),
    "vit sinusoidal_2d": vit(position="sinusoidal_2d"),
    "vit sinusoidal": vit(position={"name": "sinusoidal", "temperature": 10.0}),
    "vit rotary": vit(position="rotary"),
    "vit rotary_2d": vit(position="rotary_2d"),
    "vit other heads": vit(slots={"block0/mixer": {**HEADS, "num_heads": 4}}),
    "vit head_dim": vit(slots={"mixer": {"name": "linear", "head_dim": 8}}),
    "vit own heads": vit(slots={"mixer": {**HEADS, "head_dim": 5}}, position="none"),
    "vit own position": vit(
        slots={"mixer": {"name": "multi_head", "position": "sinusoidal_2d"}},
        position="none",
    ),
}
TEXT = {"width": 24, "depth": 1, "num_heads": 3, "mlp_dim": 29}
TEXT |= {"vocab_size": 11, "max_length": 8}
transformer = lambda **more: ("transformer", {**TEXT, **more})
CASES |= {
    "transformer": transformer(),
    "transformer keys": transformer(key_dim=6, position="rotary"),
    "transformer rotary": transformer(position="rotary"),
    "transformer learned": transformer(position="learned"),
    "bert": ("bert", TEXT),
    "bert sinusoidal": ("bert", {**TEXT, "mlp_dim": None, "position": "sinusoidal"}),
}
SMALL = {"depth": 8, "layout": "cifar", "width": 4}
TRAINED = {"backbone": SMALL, "frozen_norm": False, "encoder_depth": 1}
TRAINED |= {"width": 24, "num_heads": 3, "decoder_depth": 1, "mlp_dim": 99}
GATED = {"backbone/stage2/block.residual": {"name": "multi_head", "num_heads": 4}}
LSTM = {"backbone": SMALL, "vocab_size": 11, "width": 9, "embedding": 29}
VGG = {"depth": 11, "widths": (4, 4, 5, 6, 9)}
PLACED = {"backbone": {"name": "vgg", **VGG, "widths": (4, 4, 5, 6, 8)}}
CASES |= {
    "vgg": ("vgg", VGG | {"num_classes": None, "slots": {"head": HEADS}}),
    "detr": ("detr", TRAINED),
    "detr of heads": ("detr", TRAINED | {"slots": GATED}),
    "captioner": ("captioner", LSTM),
    "captioner placed": ("captioner", LSTM | PLACED | {"position": "sine"}),
    "pose_resnet": (
        "pose_resnet",
        {"backbone": SMALL, "width": 6, "num_joints": 3, "deconvolutions": 1},
    ),
}
STEPS = {
    "resnet": 1,
    "resnet in numbers": 1,
    "resnext": 8,
    "resnet of heads": 12,
    "vgg": 3,
    "vit": 3,
    "vit mlp": 3,
    "vit sinusoidal_2d": 12,
    "vit sinusoidal": 6,
    "vit rotary": 6,
    "vit rotary_2d": 12,
    "vit other heads": 12,
    "vit head_dim": 24,
    "vit own heads": 3,
    "vit own position": 12,
    "transformer": 6,
    "transformer rotary": 6,
    "transformer learned": 3,
    "bert": 3,
    "bert sinusoidal": 6,
}
each = pytest.mark.parametrize("name", list(CASES))


def made(name, **changes):
    model, settings = CASES[name]
    settings = scaling.scaled(settings, changes)
    if {"vocab_size", "num_joints"}.isdisjoint(settings):
        settings = {"num_classes": 5, **settings}
    if model == "vit":
        settings = {"size": "tiny", "patch_size": 4, **settings}
    return models.create(model, **settings)


def sizes(model):
    image = jax.ShapeDtypeStruct((1, 16, 24, 3), jnp.float32)
    words = jax.ShapeDtypeStruct((1, 6), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 6), bool)
    kinds = {"image": image, "source_mask": mask, "tokens_mask": mask}
    inputs = [kinds.get(field, words) for field in model.inputs]
    init = functools.partial(model.init, train=False)
    key = jax.eval_shape(jax.random.key, 0)
    return jax.tree.map(jnp.shape, jax.eval_shape(init, key, *inputs)["params"])


def scaled(width, change):
    if isinstance(width.value, int):
        return change(width.value, width.step)
    return tuple(change(value, width.step) for value in width.value)


@each
def test_the_values_that_it_has_make_the_same_network(name):
    model = made(name)
    widths = model.width_settings()
    again = made(name, **{key: width.value for key, width in widths.items()})
    assert sizes(again) == sizes(model)
    assert again.width_settings() == widths


@each
def test_each_width_setting_widens(name):
    model = made(name)
    shapes = lambda model: jax.tree.leaves(sizes(model), is_leaf=is_shape)
    count = lambda model: sum(map(math.prod, shapes(model)))
    for key, width in model.width_settings().items():
        wide = made(name, **{key: scaled(width, lambda value, _: 2 * value)})
        assert wide.width_settings()[key].value == scaled(
            width, lambda value, _: 2 * value
        )
        assert count(wide) > 1.2 * count(model), key


def is_shape(leaf):
    return isinstance(leaf, tuple)


@each
def test_any_multiple_of_the_step_makes_a_network(name):
    model = made(name)
    widths = model.width_settings()
    for change in (
        lambda value, step: step,
        lambda value, step: (value // step + 1) * step,
    ):
        changes = {key: scaled(width, change) for key, width in widths.items()}
        sizes(made(name, **changes))


@pytest.mark.parametrize("name", list(STEPS))
def test_the_step_is_what_groups_heads_and_positions_need(name):
    width = next(iter(made(name).width_settings().values()))
    assert width.step == STEPS[name]


@pytest.mark.parametrize("name", [n for n in STEPS if "vit" in n and STEPS[n] > 3])
def test_no_smaller_step_would_do(name):
    width = STEPS[name] + STEPS[name] // 2
    with pytest.raises(ValueError, match=f"{width}|multiple|divi"):
        sizes(made(name, width=width))


def test_a_backbone_is_scaled_with_its_model_unless_it_is_as_it_was_trained():
    name = "backbone.widths"
    assert made("detr").width_settings()[name] == Width((4, 4, 8, 16), 1)
    assert made("detr of heads").width_settings()[name] == Width((4, 4, 8, 16), 4)
    assert made("captioner").width_settings()[name] == Width((4, 4, 8, 16), 1)
    placed = made("captioner placed").width_settings()
    assert placed[name] == Width((4, 4, 5, 6, 8), 4)
    assert name not in made("detr", frozen_norm=True).width_settings()
    assert name not in made("captioner", frozen=True).width_settings()


def test_widths_of_a_resnet_are_its_stem_and_stages():
    model = made("resnet")
    assert model.width_settings() == {"widths": Width((6, 6, 12, 24), 1)}
    assert made("resnet", widths=(3, 4, 5, 7)).width_settings()["widths"].value == (
        3,
        4,
        5,
        7,
    )
    params = sizes(made("resnet", widths=(3, 4, 5, 7)))
    assert params["stem_conv"]["kernel"] == (3, 3, 3, 3)
    stage = lambda k: params[f"stage{k}"]["block0"]["conv2"]["kernel"]
    assert [stage(k) for k in (1, 2, 3)] == [(3, 3, n, n) for n in (4, 5, 7)]
    assert params["classifier"]["kernel"] == (7, 5)
    bottleneck = made("resnext", cardinality=1, group_width=64, widths=(3, 4, 5, 7))
    assert sizes(bottleneck)["classifier"]["kernel"] == (28, 5)


def test_the_mlp_of_a_vit_is_as_wide_as_it_is_told():
    assert made("vit").width_settings()["mlp_dim"] == Width(96, 1)
    block = sizes(made("vit", mlp_dim=29))["block0"]
    assert block["mlp_in"]["kernel"] == (24, 29)
    assert block["mlp_out"]["kernel"] == (29, 24)


def test_heads_that_read_the_grid_of_a_recurrent_attention_restrict_its_width():
    model = functools.partial(models.create, "recurrent_attention", num_classes=3)
    step = lambda **fill: model(**fill).width_settings()["width"].step
    assert (step(), step(slots={"grid": "multi_head"})) == (1, 4)


def test_heads_inside_a_block_of_groups_restrict_what_these_leave():
    def step(place):
        options = {"depth": 50, "cardinality": 1, "group_width": 32}
        model = models.create(
            "resnet", num_classes=3, slots={place: "multi_head"}, **options
        )
        return model.width_settings()["widths"].step

    assert (step("block.conv2"), step("block.residual")) == (8, 4)
