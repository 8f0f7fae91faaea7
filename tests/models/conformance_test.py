"""Properties of every model in the table: no dead setting, no leaf that stands still.

A model that is added needs an entry in CASES and in CHANGES.
"""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attn import models, settings

TOKENS = {"width": 12, "depth": 2, "num_heads": 3, "patch_size": 4}
TOWER = {"name": "cnn", "filters": [4], "kernel_sizes": 3, "pools": [1]}
LOCALISER = {"name": "resnet", "depth": 8, "layout": "cifar", "width": 4}
BACKBONE = {"depth": 8, "layout": "cifar", "width": 4}
POSE = {"backbone": BACKBONE, "deconvolutions": 1, "width": 6}
# Settings of a tiny model, and the shape of its images where it takes some.
CASES = {
    "alpha_pose": (
        {
            "pose": {"name": "pose_resnet", **POSE},
            "localiser": {"name": "mlp", "widths": (5,)},
            "downsample": 2,
            "widths": (7, 9),
        },
        (16, 20, 3),
    ),
    "bert": (
        {
            "width": 12,
            "depth": 2,
            "num_heads": 3,
            "mlp_dim": 14,
            "num_classes": None,
            # Queries and keys of BERT's start are too small for six steps of so few.
            "fill": {"mixer": {"name": "multi_head", "kernel_init": "xavier"}},
        },
        None,
    ),
    "cait": ({**TOKENS, "layer_scale": 0.5}, (8, 12, 3)),
    "captioner": (
        {
            "backbone": {"depth": 8, "layout": "cifar", "width": 4},
            "width": 9,
            "embedding": 7,
        },
        (8, 12, 3),
    ),
    "cnn": (
        {"filters": (3, 4), "kernel_sizes": (3, 2), "pools": (1,), "dense": (6,)},
        (9, 11, 3),
    ),
    "deit": (TOKENS, (8, 12, 3)),
    "detr": (
        {
            "masked": True,
            "backbone": {"depth": 8, "layout": "cifar", "width": 4},
            "frozen_norm": False,
            "width": 12,
            "num_heads": 3,
            "encoder_depth": 1,
            "decoder_depth": 2,
            "mlp_dim": 14,
            "num_queries": 3,
            # Of queries that start as zeros the first layer learns no attention.
            "position_at": "input",
        },
        (8, 12, 3),
    ),
    "edsr": ({"scale": 2, "width": 6, "depth": 2}, (6, 8, 2)),
    "ffa": ({"width": 32, "groups": 2, "depth": 1}, (6, 7, 3)),
    "hourglass": ({"stacks": 2, "order": 1, "width": 8}, (8, 16, 3)),
    "mlp": ({"widths": (7, 6)}, (6, 7, 3)),
    "pan": ({"scale": 2, "width": 8, "enlarged_width": 5, "depth": 2}, (6, 8, 2)),
    "part_stn": (
        {
            "crop": 6,
            "tower": TOWER,
            "localiser": LOCALISER,
            "downsample": 2,
            "widths": (7, 9),
        },
        (16, 20, 3),
    ),
    "pose_resnet": (POSE, (8, 12, 3)),
    "recurrent_attention": (
        {
            "glimpses": 3,
            "size": 3,
            "scales": 2,
            "samples": 3,
            "patch_width": 6,
            "place_width": 5,
            "width": 7,
        },
        (7, 9, 3),
    ),
    "resnet": (
        {"depth": 11, "layout": "cifar", "block": "bottleneck", "width": 4},
        (8, 10, 3),
    ),
    "san": ({"scale": 2, "width": 8, "groups": 2, "depth": 1}, (6, 8, 2)),
    "swin": (
        {
            "patch_size": 2,
            "width": 8,
            "depths": (1, 2),
            "num_heads": (2, 4),
            "window": 2,
        },
        (8, 12, 3),
    ),
    "transformer": (
        {"size": "small", "width": 12, "depth": 2, "num_heads": 3, "mlp_dim": 14},
        None,
    ),
    "vgg": (
        {"depth": 11, "widths": (4, 5, 6, 8, 7), "dense": (9,), "side": 1},
        (32, 64, 3),
    ),
    "vit": ({**TOKENS, "size": "tiny"}, (8, 12, 3)),
    "xcit": (
        {
            "patch_size": 8,
            "width": 16,
            "depth": 2,
            "num_heads": 2,
            "layer_scale": 0.5,
        },
        (16, 24, 3),
    ),
}
FACTS = {"num_classes": 5, "vocab_size": 11, "max_length": 7, "num_joints": 5}
words = lambda rng, count, length: rng.integers(0, 11, (count, length))
# Fields of text, one of which has padding.
TEXT = {
    "source": functools.partial(words, length=6),
    "source_mask": lambda rng, count: np.arange(6) < rng.integers(3, 7, (count, 1)),
    "target_in": functools.partial(words, length=5),
    "tokens": functools.partial(words, length=6),
    "tokens_mask": lambda rng, count: np.arange(6) < rng.integers(3, 7, (count, 1)),
    "segments": lambda rng, count: rng.integers(0, 2, (count, 6)),
    "first": functools.partial(words, length=6),
    "first_mask": lambda rng, count: np.arange(6) < rng.integers(3, 7, (count, 1)),
    "second": functools.partial(words, length=6),
    "second_mask": lambda rng, count: np.arange(6) < rng.integers(3, 7, (count, 1)),
    "places": lambda rng, count: rng.integers(0, 3, (count, 2)),
}
# What replaces a setting: a value, or two lots of settings where that is not enough.
TRANSFORMER = {
    "width": 24,
    "depth": 1,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "dropout": 0.25,
    "fill": {"block.post": "squeeze_excite"},
}
LATE_CLASS = {**TRANSFORMER, "layer_scale": 0.25, "class_layers": 1, "drop_path": 0.25}
sizes = lambda one, other, **same: ({"size": one, **same}, {"size": other, **same})
LEARNED = {"position": "learned"}
ANY = {"num_classes": 4, "vocab_size": 12, "num_joints": 4}
ANY |= {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
TEXT_DECODER = {"decoder": "transformer", "width": 8, "num_heads": 4, "depth": 1}
written = lambda **one: (TEXT_DECODER, TEXT_DECODER | one)
ONE_BLOCK = {"width": None, "num_heads": None, "depth": 1}
CHANGES = {
    "alpha_pose": {
        "pose": {"name": "pose_resnet", **POSE, "width": 7},
        "localiser": {"name": "mlp", "widths": (6,)},
        "downsample": 1,
        "widths": (7, 8),
        "fill": {"input": "squeeze_excite"},
    },
    "bert": {
        "max_length": 8,
        "heads": ("masked",),
        "size": sizes("tiny", "mini", **ONE_BLOCK),
        "width": 24,
        "depth": 1,
        "num_heads": 2,
        "mlp_dim": None,
        "segments": 3,
        "position": "none",
        "pool": "mean",
        "compare": (
            {"num_classes": 5, "segments": 0, "compare": "plain"},
            {"num_classes": 5, "segments": 0, "compare": "nli"},
        ),
        "causal": ({"pool": "mean"}, {"pool": "mean", "causal": True}),
        "norm_first": True,
        "activation": "relu",
        "dropout": 0.25,
        "attention_dropout": 0.25,
        "fill": {"mixer": "linear"},
    },
    "cait": {
        **LATE_CLASS,
        "size": sizes("xxs24", "xs24", **ONE_BLOCK),
        "patch_size": 2,
    },
    "captioner": {
        "decoder": ({"width": 16}, {"width": 16, "decoder": "transformer"}),
        "width": 10,
        "embedding": 8,
        "dropout": 0.25,
        "pool": (
            {"fill": {"decoder.cross": "none"}},
            {"fill": {"decoder.cross": "none"}, "pool": "first"},
        ),
        "baseline": True,
        "depth": written(depth=2),
        "num_heads": written(num_heads=2),
        "mlp_dim": written(mlp_dim=20),
        "backbone": {"depth": 8, "layout": "cifar", "width": 5},
        "frozen": True,
        "position": "sine",
        "fill": {"decoder.cross": "gated_soft"},
    },
    "cnn": {
        "filters": (3, 5),
        "kernel_sizes": 2,
        "strides": 2,
        "padding": "SAME",
        "pools": (2,),
        "dense": (),
        "dropout": 0.25,
        "heads": 2,
        "pool": 2,
        "fill": {"conv2": "squeeze_excite"},
    },
    "deit": {
        **TRANSFORMER,
        "size": sizes("tiny", "small", **ONE_BLOCK),
        "patch_size": 2,
        "drop_path": 0.25,
        "distilled_training": True,
    },
    "detr": {
        "masked": False,
        "backbone": {"depth": 8, "layout": "cifar", "width": 5},
        "dilated": True,
        "frozen_norm": True,
        "width": 24,
        "num_heads": 2,
        "encoder_depth": 2,
        "decoder_depth": 1,
        "mlp_dim": 0,
        "num_queries": 4,
        "dropout": 0.25,
        "position": "learned",
        "position_at": "attention",
        "encoder_position": "none",
        "encoder_position_at": "attention",
        "auxiliary": False,
        "fill": {"decoder.cross": "linear"},
    },
    "edsr": {
        "scale": 3,
        "width": 8,
        "depth": 1,
        "residual_scale": 0.5,
        "skip": "bicubic",
        "units": 255.0,
        "fill": {"block.residual": "squeeze_excite"},
    },
    "ffa": {
        "width": 48,
        "groups": 3,
        "depth": 2,
        "skip": "image",
        "fill": {"block.residual": "squeeze_excite"},
    },
    "hourglass": {
        "stacks": 3,
        "order": 2,
        "width": 12,
        "fill": {"block.residual": "squeeze_excite"},
    },
    "mlp": {"widths": (7,), "pool": 2, "fill": {"input": "squeeze_excite"}},
    "pan": {
        "scale": 3,
        "width": 10,
        "enlarged_width": 6,
        "depth": 1,
        "gated": False,
        "fill": {"enlarge.gate": "squeeze_excite"},
    },
    "part_stn": {
        "parts": 3,
        "crop": 7,
        "scale": 0.25,
        "tower": {**TOWER, "filters": [5]},
        "localiser": {**LOCALISER, "width": 5},
        "downsample": 1,
        "widths": (7, 8),
        "dropout": 0.25,
        "fill": {"input": "squeeze_excite"},
    },
    "pose_resnet": {
        "backbone": {**BACKBONE, "width": 5},
        "deconvolutions": 2,
        "width": 7,
        "fill": {"upsample.end": "squeeze_excite"},
    },
    "recurrent_attention": {
        "glimpses": 2,
        "size": 2,
        "scales": 1,
        "locations": "random",
        "deviation": 0.3,
        "samples": 2,
        "eval_samples": ({}, {"eval_samples": 2}),
        "patch_width": 5,
        "place_width": 6,
        "width": 8,
        "grid_size": (
            {"fill": {"grid": "additive_soft"}},
            {"fill": {"grid": "additive_soft"}, "grid_size": 2},
        ),
        "fill": {"grid": "additive_soft"},
    },
    "resnet": {
        "depth": 20,
        "layout": ({"depth": 50}, {"depth": 50, "layout": "imagenet"}),
        "block": ({"depth": 20, "block": "basic"}, {"depth": 20}),
        "width": 5,
        "widths": (4, 4, 8, 12),
        "cardinality": 2,
        "group_width": 32,
        "stem": "deep",
        "stem_stride": 2,
        "shortcut": "average",
        "stride_at": "conv1",
        "zero_init_residual": True,
        "dilated": True,
        "frozen_norm": True,
        "last_stride": 1,
        "pooling": "covariance",
        "pooled_channels": (
            {"pooling": "covariance"},
            {"pooling": "covariance", "pooled_channels": 5},
        ),
        "iterations": (
            {"pooling": "covariance"},
            {"pooling": "covariance", "iterations": 3},
        ),
        "fill": {"block.residual": "squeeze_excite"},
    },
    "san": {
        "scale": 3,
        "width": 16,
        "groups": 1,
        "depth": 2,
        "units": 255.0,
        "fill": {"group.end": "squeeze_excite"},
    },
    "swin": {
        "size": sizes("tiny", "base", width=None),
        "patch_size": 4,
        "window": 1,
        "width": 16,
        "depths": (1, 1),
        "num_heads": (4, 4),
        "mlp_ratio": 2.0,
        "dropout": 0.25,
        "drop_path": 0.25,
        "fill": {"block.post": "squeeze_excite"},
    },
    "transformer": {
        "max_length": (
            {"position": "learned"},
            {"position": "learned", "max_length": 8},
        ),
        "size": sizes("small", "base", width=None, depth=1),
        "width": 24,
        "depth": 1,
        "num_heads": 2,
        "mlp_dim": 20,
        "dropout": 0.25,
        "key_dim": 2,
        "position": "none",
        "norm_first": True,
        "bias": True,
        "attention_dropout": 0.25,
        "activation": "gelu",
        "epsilon": 0.1,
        "output_bias": True,
        "fill": {"decoder.self": "linear"},
    },
    "vgg": {
        "depth": 13,
        "widths": (4, 5, 6, 8, 6),
        "norm": True,
        "frozen_norm": ({"norm": True}, {"norm": True, "frozen_norm": True}),
        "dense": (),
        "side": 2,
        "dropout": 0.25,
        "fill": {"block.post": "squeeze_excite"},
    },
    "vit": {
        **TRANSFORMER,
        "size": sizes("tiny", "small", **ONE_BLOCK),
        "patch_size": 2,
        "mlp_dim": 20,
        "position": "none",
        "pool": "mean",
    },
    "xcit": {
        **LATE_CLASS,
        "size": sizes("nano_12", "tiny_12", **ONE_BLOCK),
        "num_heads": 4,
        "patch_size": 16,
        "norm_all": False,
        "local": False,
    },
}
# Slots where an attention has batch statistics, or else axis_name means nothing.
BATCH, SYNCED = (
    {"block.post": "cbam"},
    {"block.post": "tests.models.probe:Synchronised"},
)
NORMED = {
    "bert": SYNCED,
    "cait": BATCH,
    "captioner": {"block.post": "cbam"},
    "cnn": {"conv2": "cbam"},
    "deit": BATCH,
    "edsr": {"body.end": "cbam"},
    "ffa": {"fused": "cbam"},
    "mlp": {"input": "cbam"},
    "pan": {"block.residual": "cbam"},
    "recurrent_attention": {"input": "cbam"},
    "san": {"group.end": "cbam"},
    "swin": BATCH,
    "transformer": SYNCED,
    "vgg": BATCH,
    "vit": BATCH,
}
# Gradients of a mean over the pixels of an output are small.
RATES = {"edsr": 1.0, "pan": 2.0, "pose_resnet": 0.1, "san": 0.3}
FIELDS = [
    (name, field.name)
    for name in CASES
    for field in dataclasses.fields(models.find(name))
    if field.name not in ("parent", "name")
]
each = pytest.mark.parametrize("name", list(CASES))


def given(name):
    """The facts of the data that a model has a field for, and its case."""
    fields = {field.name for field in dataclasses.fields(models.find(name))}
    facts = {fact: value for fact, value in FACTS.items() if fact in fields}
    return {**facts, **CASES[name][0]}


@functools.cache
def tiny(name):
    return models.create(name, **given(name))


def padded(rng, count, shape):
    """Where images of at least half that height and width are."""
    rows, columns = (
        np.arange(side) < rng.integers(side // 2, side + 1, (count, 1))
        for side in shape[:2]
    )
    return rows[:, :, None] & columns[:, None]


def inputs_of(name, count=6, seed=0, model=None):
    rng = np.random.default_rng(seed)
    draw = lambda rng, count: rng.normal(size=(count, *CASES[name][1]))
    shown = lambda rng, count: padded(rng, count, CASES[name][1])
    draws = {"image": draw, "image_mask": shown, **TEXT}
    arrays = [draws[field](rng, count) for field in (model or tiny(name)).inputs]
    kinds = {"f": np.float32, "i": np.int32}
    return [array.astype(kinds.get(array.dtype.kind, bool)) for array in arrays]


def behaviour(name, changes):
    """The program of a training step's forward pass from an initialisation, as text.

    A refusal is a behaviour, too.
    """
    changes = {**given(name), **changes}

    def forward(key, inputs):
        variables = model.init(key, *inputs, train=False)
        rngs = dict.fromkeys(model.streams, key)
        return model.apply(
            variables, *inputs, train=True, rngs=rngs, mutable=["batch_stats"]
        )

    try:
        model = models.find(name)(**changes)
        traced = jax.make_jaxpr(forward, axis_env=[("data", 2)])
        text = str(traced(jax.random.key(0), inputs_of(name, 2, model=model)))
    except settings.Invalid as error:
        return str(error)
    return re.sub(r"0x[0-9a-f]+", "", text)


@functools.cache
def usual(name):
    return behaviour(name, {})


def test_every_model_has_a_case():
    assert list(CASES) == models.names() == list(CHANGES)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_no_setting_is_dead(name, field):
    """Another value makes another program, or is refused."""
    if field == "axis_name":
        slots = NORMED.get(name, {})
        one, other = {"fill": slots}, {"fill": slots, "axis_name": "data"}
    else:
        change = {**ANY, **CHANGES[name]}[field]
        pair = isinstance(change, tuple) and change and isinstance(change[0], dict)
        one, other = change if pair else ({}, {field: change})
    before = behaviour(name, one) if one else usual(name)
    assert behaviour(name, other) != before


@functools.cache
def trained(name):
    """A few steps on one batch: the state before and after, gradients, losses."""
    model, inputs = tiny(name), inputs_of(name)
    optimizer = optax.sgd(RATES.get(name, 0.02), momentum=0.9)

    @jax.jit
    def step(variables, momentum):
        def loss(params):
            outputs, state = model.apply(
                {**variables, "params": params},
                *inputs,
                train=True,
                rngs=dict.fromkeys(model.streams, jax.random.key(1)),
                mutable=["batch_stats"],
            )
            return sum(map(surprise, jax.tree.leaves(outputs))), state

        grad = jax.value_and_grad(loss, has_aux=True)
        (value, state), grads = grad(variables["params"])
        updates, momentum = optimizer.update(grads, momentum)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **state}, momentum, value

    init = jax.jit(functools.partial(model.init, train=False))
    before = variables = init(jax.random.key(0), *inputs)
    momentum, losses = optimizer.init(variables["params"]), []
    for _ in range(6):
        variables, momentum, value = step(variables, momentum)
        losses.append(float(value))
    return before, variables, losses


def surprise(logits):
    """The mean cross-entropy of one class after the other."""
    *places, classes = logits.shape
    labels = jnp.arange(math.prod(places)).reshape(places) % classes
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# Softmax does not change where a constant is added to all logits of a target, nor does
# the loss here where one is added to an output.
STILL = ("key/bias", "phi/bias", "mix_logits/bias", "baseline/bias")
# Constants that batch normalisation takes away again; biases of heatmaps are none.
BEFORE_NORM = ("conv", "conv1", "conv2", "conv3", "features0", "remap0")
CENTRED = {"hourglass": tuple(f"{name}/bias" for name in BEFORE_NORM)}


@each
def test_every_leaf_moves_in_training(name):
    before, after, _ = trained(name)
    same = [
        path
        for path, leaf in flat(before).items()
        if np.max(np.abs(flat(after)[path] - leaf)) < 1e-6
        and not path.endswith((*STILL, *CENTRED.get(name, ())))
    ]
    assert flat(before).keys() == flat(after).keys()
    assert not same


def flat(variables):
    leaves = jax.tree.leaves_with_path(variables)
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {name(path): np.asarray(leaf) for path, leaf in leaves}


@each
def test_a_few_steps_lower_the_loss(name):
    _, _, losses = trained(name)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0] - 0.01


@each
def test_an_example_does_not_depend_on_its_batch(name):
    _, variables, _ = trained(name)
    inputs, strange = inputs_of(name), inputs_of(name, seed=1)
    rngs = dict.fromkeys(tiny(name).streams, jax.random.key(0))
    apply = jax.jit(functools.partial(tiny(name).apply, train=False, rngs=rngs))
    pairs = zip(inputs, strange, strict=True)
    mixed = [np.concatenate([x[:1], other[1:]]) for x, other in pairs]
    outputs, others = (flat(apply(variables, *arrays)) for arrays in (inputs, mixed))
    for path, logits in outputs.items():
        other = others[path]
        assert logits.dtype == jnp.float32
        assert len(logits) == 6
        np.testing.assert_allclose(other[0], logits[0], rtol=1e-5, atol=1e-6)
        if path != "log_prob":  # a function of the noise alone
            assert np.abs(other[1:] - logits[1:]).max() > 1e-3
