"""Constants of norms, as their sources have them: literals, read from there."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import attn
from tests.modules.cases import ALL, CASES, SHAPES, initialise

# (kind, epsilon, what is kept of old statistics). torch's momentum is one minus it.
BATCH = ("BatchNorm", 1e-5, 0.9)  # torch's defaults
NORMS = {
    "cbam-official": {("BatchNorm", 1e-5, 0.99)},  # cbam.py: momentum=0.01
    "cbam-timm": {BATCH},  # cbam.py: ConvNormAct
    "cbam-conv1x1-parallel": {("BatchNorm", 1e-5, 0.99)},
    "non_local-paper": {BATCH},  # nonlocal_helper.py: cfg.MODEL.BN_MOMENTUM is .9
    "non_local-released": {BATCH},
    "non_local-gaussian-projected": {BATCH},
    "non_local-dot_product": {BATCH},
    "non_local-concatenation": {BATCH},
    "multi_head-vit_22b": {("LayerNorm", 1e-6, None)},  # flax's, as in big_vision
}


def norms(module, x):
    """The norms that a call meets."""
    met = set()

    def watch(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm | nn.LayerNorm):
            norm = context.module
            kept = getattr(norm, "momentum", None)
            met.add((type(norm).__name__, norm.epsilon, kept))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(functools.partial(initialise, module), x)
    return met


@pytest.mark.parametrize("case", ALL)
def test_norms_have_the_constants_of_their_sources(case):
    name, settings = ALL[case]
    module = attn.create(name, **settings)
    x = jnp.zeros(SHAPES[module.card.contract])
    assert norms(module, x) == NORMS.get(case, set())


def test_the_norm_of_sources_is_that_of_the_perceiver():
    module = attn.create("cross_attention", **CASES["cross_attention"], kv_norm=True)
    x = jnp.zeros(SHAPES["token"])
    assert norms(module, x) == {("LayerNorm", 1e-6, None)}
