"""Constants of norms and of initial parameters: literals, read from their sources."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from tests.modules.cases import ALL, CASES, SHAPES, initialise

# (kind, epsilon, what is kept of old statistics). torch's momentum is one minus it.
BATCH = ("BatchNorm", 1e-5, 0.9)  # torch's defaults
NORMS = {
    "cbam-official": {("BatchNorm", 1e-5, 0.99)},  # cbam.py: momentum=0.01
    "cbam-timm": {BATCH},  # cbam.py: ConvNormAct
    "cbam-conv1x1-parallel": {("BatchNorm", 1e-5, 0.99)},
    "global_context-paper": {("LayerNorm", 1e-5, None)},  # context_block.py: torch's
    "global_context-released_scale": {("LayerNorm", 1e-5, None)},
    "global_context-timm": {("LayerNorm", 1e-6, None)},  # norm.py: LayerNorm2d
    "global_context-timm_scale": {("LayerNorm", 1e-6, None)},
    "global_second_order-default": {BATCH},  # resnet.py: torch's
    "non_local-paper": {BATCH},  # nonlocal_helper.py: cfg.MODEL.BN_MOMENTUM is .9
    "non_local-released": {BATCH},
    "non_local-gaussian-projected": {BATCH},
    "non_local-dot_product": {BATCH},
    "non_local-concatenation": {BATCH},
    "polarized-parallel": {("LayerNorm", 1e-5, None)},  # PSA.py: torch's
    "polarized-sequential": {("LayerNorm", 1e-5, None)},
    "polarized-released_sequential": {("LayerNorm", 1e-5, None)},
    "second_order_non_local-default": {BATCH},
    "selective_kernel-paper": {BATCH},
    "selective_kernel-full_kernels": {BATCH},
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


# Of parameters that do not start as those of linear layers: a deviation, and what none
# is beyond. A normal of 0.02 cut off at two deviations has 0.8796 of it.
CUT = (0.02 * 0.8796, 0.04)
STARTS = [
    ("window", {}, "bias_table", CUT),
    ("shifted_window", {}, "bias_table", CUT),
    ("neighborhood", {"window": 7}, "relative_bias", CUT),
    ("multi_head", {"position": "learned"}, "position/position", CUT),
    ("multi_head", {"position": "learned_2d"}, "position/table", CUT),
    ("multi_head", {"position": "relative_bias"}, "position/table", CUT),
    ("multi_head", {"position": "log_relative"}, "position/hidden_layer/kernel", CUT),
    ("multi_head", {"position": "log_relative"}, "position/head_layer/kernel", CUT),
    ("multi_head", {"position": "decomposed"}, "position/columns", (16**-0.5, 2)),
    ("additive_soft", {}, "score", (256**-0.5, 1)),
    ("non_local", {"pairwise": "concatenation"}, "w_f", (256**-0.5, 1)),
]


@pytest.mark.parametrize(("name", "settings", "path", "start"), STARTS)
def test_parameters_start_from_normals_of_these_deviations(name, settings, path, start):
    family = attn.card(name).family
    heads = {"num_heads": 16} if family == "token" else {}
    options = {"grid": (7, 7)} if family == "token" else {}
    module = attn.create(name, **heads, **settings)
    x = jnp.zeros((1, 7, 7, 256) if family == "non_local" else (1, 49, 256))

    @jax.jit  # compiles only what is returned
    def init():
        params = module.init(jax.random.key(0), x, train=False, **options)["params"]
        return functools.reduce(dict.__getitem__, path.split("/"), params)

    value, (deviation, most) = np.asarray(init()), start
    error = 3.5 * deviation / (2 * value.size) ** 0.5
    assert np.std(value) == pytest.approx(deviation, abs=error)
    assert np.abs(value).max() <= most
