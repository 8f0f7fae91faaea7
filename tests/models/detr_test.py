"""DETR: exact counts of the paper's networks, padding, positions and slots."""

import functools
import math

import flax
import jax
import jax.numpy as jnp
import pytest

from attn import models

FROZEN = ("backbone/stem_conv/", "backbone/stage1/")
SMALL = {
    "num_classes": 5,
    "backbone": {"depth": 8, "layout": "cifar", "stem_stride": 2, "width": 4},
    "frozen_norm": False,
    "width": 12,
    "num_heads": 3,
    "encoder_depth": 2,
    "decoder_depth": 2,
    "mlp_dim": 14,
    "num_queries": 4,
}


def shapes(model, height=64, width=96):
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    return flax.traverse_util.flatten_dict(variables["params"], sep="/")


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({}, 41_302_368),
        ({"dilated": True, "masked": False}, 41_302_368),
        ({"encoder_depth": 0}, 33_411_936),
        ({"encoder_depth": 3}, 37_357_152),
        ({"encoder_depth": 12}, 49_192_800),
        ({"backbone": {"depth": 101}}, 60_242_272),
        ({"mlp_dim": 0}, 28_691_808),
        # 50 rows and 50 columns of 128 numbers
        ({"position": "learned"}, 41_302_368 + 12_800),
        ({"position": "none", "position_at": "input"}, 41_302_368),
    ],
)
def test_parameters_are_those_of_the_paper(settings, trained):
    params = shapes(models.create("detr", num_classes=91, **settings))
    count = lambda keep: sum(
        math.prod(array.shape) for name, array in params.items() if keep(name)
    )
    assert count(lambda name: name.startswith(FROZEN)) == 222_400
    assert count(lambda name: not name.startswith(FROZEN)) == trained
