"""Constants of models as literal numbers, each from the paper or the released code."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models
from attn.models.layers.transformer import Block
from tests.models.conformance_test import CASES, inputs_of

TRANSFORMERS = ["cait", "deit", "swin", "vit", "xcit"]


def met(name, kind, **changes):
    """All submodules of one kind that a tiny model calls, in this order."""
    settings = {"num_classes": 5, **CASES[name][0], **changes}
    model, found = models.create(name, **settings), []

    def see(run, args, kwargs, context):
        if isinstance(context.module, kind) and context.method_name == "__call__":
            found.append(context.module)
        return run(*args, **kwargs)

    init = functools.partial(model.init, train=False)
    with nn.intercept_methods(see):
        jax.eval_shape(init, jax.random.key(0), *inputs_of(name))
    return found


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_layer_norms_have_the_epsilon_of_the_release(name):
    # timm: LayerNorm(eps=1e-6), and torch's own 1e-5 in Swin.
    epsilon = {"swin": 1e-5}.get(name, 1e-6)
    assert {norm.epsilon for norm in met(name, nn.LayerNorm)} == {epsilon}


@pytest.mark.parametrize("name", ["resnet", "xcit", "part_stn"])
def test_batch_norms_are_those_of_torch(name):
    norms = met(name, nn.BatchNorm)
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}


@pytest.mark.parametrize("name", ["deit", "swin"])
def test_drop_path_grows_from_none_at_the_first_block_to_all_at_the_last(name):
    depth = {"deit": {"depth": 3}, "swin": {}}[name]  # swin has 1 + 2 blocks
    rates = [block.drop_path for block in met(name, Block, drop_path=0.2, **depth)]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("name", "branches", "expected"),
    [
        # After the embedding; in a block after the mixer and both layers of the MLP,
        # beside the stochastic depth of two branches (three in XCiT); in a class layer
        # after the attention and both layers of the MLP.
        ("vit", {}, {0.25: 1 + 2 * 3, 0.0: 2 * 2}),
        ("deit", {"drop_path": 0.5}, {0.25: 1 + 2 * 3, 0.0: 2, 0.5: 2}),
        ("swin", {"depths": (1, 1), "drop_path": 0.5}, {0.25: 7, 0.0: 2, 0.5: 2}),
        ("cait", {"drop_path": 0.5}, {0.25: 1 + 2 * 3 + 2 * 3, 0.5: 2 * 2}),
        ("xcit", {"drop_path": 0.5}, {0.25: 1 + 2 * 3 + 2 * 3, 0.5: 2 * 3}),
    ],
)
def test_dropout_is_passed_on_to_every_place(name, branches, expected):
    # That inside attention modules is theirs.
    drops = met(name, nn.Dropout, dropout=0.25, **branches)
    drops = [drop for drop in drops if drop.path[-2:-1] != ("mixer",)]
    rates = [drop.rate for drop in drops]
    assert {rate: rates.count(rate) for rate in set(rates)} == expected


@pytest.mark.parametrize(
    ("name", "table"),
    [
        # CaiT's released models (timm's init_values); XCiT's (eta).
        (
            "cait",
            {
                "xxs24": 1e-5,
                "xxs36": 1e-5,
                "xs24": 1e-5,
                "s24": 1e-5,
                "s36": 1e-6,
                "m36": 1e-6,
                "m48": 1e-6,
            },
        ),
        (
            "xcit",
            {
                "nano_12": 1.0,
                "tiny_12": 1.0,
                "tiny_24": 1e-5,
                "small_12": 1.0,
                "small_24": 1e-5,
                "medium_24": 1e-5,
                "large_24": 1e-5,
            },
        ),
    ],
)
def test_layer_scale_starts_from_the_number_of_each_size(name, table):
    presets = models.find(name).presets
    assert {size: preset.layer_scale for size, preset in presets.items()} == table


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_start_as_a_truncated_normal_of_two_hundredths(name):
    wide = {"xcit": {"width": 128}, "swin": {"width": 64}}.get(name, {"width": 96})
    settings = {"num_classes": 50, **CASES[name][0], **wide}
    model = models.create(name, **settings)
    paths = {"block0/mlp_in/kernel", "block0/mlp_out/kernel", "classifier/kernel"}
    if name == "swin":
        paths = {f"stage1/{path}" for path in paths} | {"merge1/reduction/kernel"}
        paths = {path.replace("stage1/class", "class") for path in paths}
    if name in ("vit", "deit", "cait"):
        paths |= {"embed/kernel", "position"}

    def init(images):  # only what is returned is compiled
        params = model.init(jax.random.key(0), images, train=False)["params"]
        leaf = lambda path: functools.reduce(dict.__getitem__, path.split("/"), params)
        return {path: leaf(path) for path in paths}

    # Cut off at two deviations, a normal of deviation 1 has one of 0.8796.
    for path, value in jax.jit(init)(jnp.asarray(inputs_of(name, 1)[0])).items():
        count = math.sqrt(value.size)
        assert abs(np.std(value) - 0.02 * 0.8796) < 0.06 / count, path
        assert np.abs(value).max() <= 0.04
