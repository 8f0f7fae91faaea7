"""No dead setting: two values of a field that differ give two behaviours that differ.

A behaviour is what a module with the field is and does on one input: its variables, its
outputs in evaluation and in training, its gradients and its new statistics, or a
refusal, and for some fields how it starts. The random numbers of parameters are a
function of their path and shape.
"""

import dataclasses
import functools
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import settings
from attn.modules import MODULES
from tests.modules.cases import CASES, GRID, SHAPES, on_grid

BF16 = jnp.bfloat16
# Of each field another value than that of the case; where other settings are needed for
# it to matter, a pair of them and the value.
HEADS = {
    "dtype": BF16,
    "param_dtype": BF16,
    "num_heads": 2,
    "head_dim": 8,
    "qkv_bias": False,
    "out_bias": False,
    "kernel_init": ["normal", "xavier"],
}
DROPOUT = {"attention_dropout": 0.5, "output_dropout": 0.5}
TYPES = {"dtype": BF16, "param_dtype": BF16}
OTHER = {
    "additive_soft": TYPES | {"hidden": 7, "bias": True},
    "cbam": TYPES
    | {
        "variant": "timm",
        "reduction": 8,
        "channel_pool": ["avg", "max"],
        "spatial": ["conv1x1", "none"],
        "order": ["spatial_channel", "parallel"],
        "kernel_size": 5,
        "axis_name": "data",
    },
    "class_attention": HEADS | {"others": "zero"},
    "cross_attention": HEADS | {"kv_channels": 5, "kv_norm": True},
    "cross_covariance": HEADS,
    "efficient_channel": TYPES | {"kernel_size": 5, "gamma": 1.0, "b": 5.0},
    "gated_soft": TYPES | {"hidden": 7, "bias": False, "gate_bias": 2.0},
    "glimpse_sensor": {"size": 4, "scales": ({"size": 4}, 2), "dtype": BF16},
    "global_context": TYPES
    | {"reduction": 8, "pool": "avg", "fuse": "scale", "epsilon": 0.1},
    "global_second_order": TYPES
    | {
        "along": ["channel", "spatial"],
        "channels": 5,
        "side": 2,
        "stride": 2,
        "axis_name": "data",
    },
    "hard_attention": TYPES
    | {
        "hidden": 7,
        "bias": True,
        "estimator": "gumbel",
        "temperature": ({"estimator": "gumbel"}, 0.3),
        "expectation": 1.0,
        "evaluation": "argmax",
    },
    "linear": HEADS,
    "linformer": HEADS | {"rank": 6, "share": ["none", "key_value"], "max_length": 20},
    "mixed_high_order": TYPES | {"order": 2, "reduction": 4},
    "multi_head": HEADS
    | DROPOUT
    | {
        "key_dim": 3,
        "num_kv_heads": 2,
        "qk_norm": True,
        "gate": ["elementwise", "headwise"],
        "position": ["alibi", "learned", "rotary", "sinusoidal"],
        "prefix": ({"position": "learned_2d", "grid": (3, 4)}, 1),
        "normalize": ["sigmoid", "sparsemax", "entmax15"],
    },
    "neighborhood": HEADS
    | {
        "window": (3, 1),
        "dilation": ({"window": (1, 3), "grid": (2, 6)}, (1, 2)),
        "stride": 3,
        "causal": [True, (False, True)],
        "relative_bias": False,
    },
    "non_local": TYPES
    | {
        "pairwise": ["gaussian", "dot_product", "concatenation"],
        "reduction": 4,
        "subsample": ["projected", "input"],
        "scale": True,
        "norm": "none",
        "axis_name": "data",
    },
    "outlook": TYPES
    | {
        "kernel_size": 1,
        "stride": 1,
        "num_heads": 2,
        "head_dim": 8,
        "qkv_bias": True,
    },
    "performer": HEADS
    | {"num_features": 12, "kernel": "relu", "orthogonal": False, "seed": 1},
    "pixel_attention": TYPES | {"variant": "ffa", "reduction": ({"variant": "ffa"}, 8)},
    "polarized": TYPES | {"order": "sequential", "variant": "released"},
    "second_order_channel": TYPES
    | {"reduction": 8, "iterations": 2, "norm": "frobenius"},
    "second_order_non_local": TYPES | {"reduction": 4, "axis_name": "data"},
    "selective_kernel": TYPES
    | {
        "branches": 3,
        "kernels": "full",
        "groups": 2,
        "reduction": 2,
        "least": 5,
        "axis_name": "data",
    },
    "shifted_window": HEADS
    | DROPOUT
    | {
        "window": (3, 4),
        "relative_bias": False,
        "padding": ({"window": (2, 3), "shift": 0}, "attended"),
        "shift": 0,
    },
    "simam": {"dtype": BF16, "epsilon": 1.0},
    "spatial_transformer": TYPES
    | {
        "transform": ["projective", "thin_plate"],
        "scale": ({"transform": "attention"}, 0.5),
        "count": 2,
        "localisation": "dense",
        "widths": (4, 5, 7),
        "downsample": 2,
        "kernel_size": 2,
        "kernel_padding": "SAME",
        "output_size": (4, 5),
        "control_points": ({"transform": "thin_plate"}, 3),
        "align_corners": True,
        "padding": ({"transform": "attention", "scale": 3.0}, "border"),
    },
    "squeeze_excite": TYPES
    | {
        "reduction": 8,
        "divisor": 8,
        "bias": False,
        "squeeze": ["max", "none"],
        "excitation": ["tanh", "relu"],
    },
    "talking_heads": HEADS | DROPOUT | {"mix_bias": False},
    "window": HEADS
    | DROPOUT
    | {
        "window": (3, 4),
        "relative_bias": False,
        "padding": ({"window": (2, 3)}, "attended"),
    },
}
# Fields that choose a program, not its numbers; its own test shows that it does.
SAME_NUMBERS = {("multi_head", "implementation"): "reference"}


def fields(name):
    return [
        field.name
        for field in dataclasses.fields(MODULES[name])
        if field.name not in ("parent", "name")
    ]


def values(name):
    """(field, settings, value) of every value that OTHER names."""
    for field, value in OTHER[name].items():
        given = {}
        if isinstance(value, tuple) and isinstance(value[0], dict):
            given, value = value
        for one in value if isinstance(value, list) else [value]:
            yield field, given, one


@functools.cache
def numbers(path, shape, dtype):
    """Random numbers that a path and a shape have in common."""
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    width = 0.5 * np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.2
    x = width * rng.normal(size=shape)
    return jnp.asarray(1 + np.abs(x) if path.endswith("['var']") else x, dtype)


class Behaviour:
    """What a module with these settings is and does, computed when it is asked for."""

    def __init__(self, name, settings):
        settings = dict(settings)
        options = {"grid": settings.pop("grid")} if "grid" in settings else {}
        self.module = attn.create(name, **{**CASES[name], **settings})
        self.options = on_grid(self.module, GRID) | options
        shape = (2, *SHAPES[self.module.card.contract][1:])
        x = np.random.default_rng(3).normal(size=shape)
        if prefix := getattr(self.module, "prefix", 0):
            x = np.pad(x, ((0, 0), (prefix, 0), (0, 0)))
        self.x = jnp.asarray(x, jnp.float32)

    @functools.cached_property
    def variables(self):
        init = functools.partial(self.module.init, train=False, **self.options)
        try:
            shapes = jax.eval_shape(init, jax.random.key(0), self.x)
        except ValueError:
            return "refused"
        return jax.tree.map_with_path(
            lambda path, a: numbers(jax.tree_util.keystr(path), a.shape, a.dtype),
            shapes,
        )

    @functools.cached_property
    def start(self):
        """The program of an initialisation, as text."""
        init = functools.partial(self.module.init, train=False, **self.options)
        text = str(jax.make_jaxpr(init)(jax.random.key(0), self.x))
        return re.sub(r"0x[0-9a-f]+", "", text)

    @functools.cached_property
    def evaluated(self):
        return self.run(self.variables, train=False)

    @functools.cached_property
    def trained(self):
        """The output in training, and the new statistics."""
        try:
            return self.run(self.variables, train=True)
        except NameError:
            return "an axis that is not there"

    @functools.cached_property
    def slopes(self):
        def loss(params):
            y, _ = self.run({**self.variables, "params": params}, train=True)
            return jnp.sum(jnp.sin(y.astype(jnp.float32)))

        return jax.grad(loss)(self.variables.get("params", {}))

    def run(self, variables, train):
        return self.module.apply(
            variables,
            self.x,
            train=train,
            rngs={name: jax.random.key(0) for name in ("dropout", "sample")},
            mutable=["batch_stats"],
            **self.options,
        )


def differ(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return one is not other
    if jax.tree.structure(one) != jax.tree.structure(other):
        return True
    return any(
        a.shape != b.shape or a.dtype != b.dtype or not np.allclose(a, b, 1e-6, 1e-6)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


# Fields that decide how parameters start, and no more.
STARTING = ("kernel_init", "gate_bias")
STAGES = ("variables", "evaluated", "trained", "slopes")


@pytest.mark.parametrize("name", list(MODULES))
def test_every_field_has_another_value_here(name):
    listed = OTHER[name].keys() | {field for own, field in SAME_NUMBERS if own == name}
    assert listed == set(fields(name))


@pytest.mark.parametrize("name", list(MODULES))
def test_no_setting_is_dead(name):
    plain = functools.cache(lambda given: Behaviour(name, dict(given)))
    for field, given, value in values(name):
        one = plain(tuple(given.items()))
        other = Behaviour(name, {**given, field: value})
        assert one.variables != "refused", f"{field} needs a case that runs"
        if field in STARTING:
            alive = one.start != other.start
        else:
            alive = any(differ(getattr(one, at), getattr(other, at)) for at in STAGES)
        assert alive, f"{field}={value!r} changes nothing"


@pytest.mark.parametrize(("name", "field"), SAME_NUMBERS)
def test_another_program_has_the_same_numbers(name, field):
    value = SAME_NUMBERS[name, field]
    modules = [attn.create(name), attn.create(name, **{field: value})]
    x = jnp.zeros((2, *SHAPES[modules[0].card.contract][1:]))
    init = functools.partial(modules[0].init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)
    one, other = (
        str(jax.make_jaxpr(functools.partial(module.apply, train=False))(variables, x))
        for module in modules
    )
    assert one != other


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("multi_head", {"implementation": "foo"}, "unknown implementation 'foo'"),
        ("multi_head", {"prefix": -1}, "'prefix' .* at least 0, got -1"),
        (
            "multi_head",
            {"position": {"name": "conditional", "kernel_size": 0}},
            "got 0",
        ),
        ("multi_head", {"position": {"name": "sinusoidal", "temperature": 0}}, "got 0"),
        ("multi_head", {"position": {"name": "rotary", "temperature": -2}}, "got -2"),
        ("multi_head", {"position": {"name": "log_relative", "hidden": 0}}, "got 0"),
        ("spatial_transformer", {"widths": (4, 0)}, r"got \(4, 0\)"),
        ("spatial_transformer", {"output_size": (0, 3)}, r"got \(0, 3\)"),
        ("spatial_transformer", {"downsample": 0}, "got 0"),
        ("spatial_transformer", {"kernel_size": 0}, "got 0"),
        ("spatial_transformer", {"control_points": 0}, "got 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name, given, says):
    with pytest.raises(settings.Invalid, match=says):
        attn.modules.create(name, **given)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        (
            "multi_head",
            {"position": "rotary", "head_dim": 1},
            "such as 2, got 1",
        ),
        (
            "multi_head",
            {"position": "rotary_2d", "head_dim": 2},
            "4 divides, such as 4, got 2",
        ),
        ("neighborhood", {"window": 5}, "larger than its grid of 4 x 3"),
        ("neighborhood", {"window": 2, "stride": 3}, "stride of 3 is longer than"),
    ],
)
def test_what_does_not_fit_the_tokens_is_a_mistake_of_the_config(name, given, says):
    module = attn.modules.create(name, **given)
    x = jnp.ones((2, 12, 16))
    with pytest.raises(settings.Invalid, match=says):
        module.init(jax.random.key(0), x, grid=(4, 3), train=False)
