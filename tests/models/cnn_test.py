"""CNN against NumPy in float64, its slots, the sizes of the paper's, its errors."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models
from attn.models import cost
from attn.models.scaling import Width

cnn = functools.partial(models.create, "cnn", num_classes=5)
SVHN = {  # appendix A.5
    "num_classes": 11,
    "heads": 5,
    "filters": (48, 64, 128, 160, 192, 192, 192, 192),
    "kernel_sizes": 5,
    "padding": "SAME",
    "pools": (1, 3, 5, 7),
    "dense": (3072, 3072),
    "dropout": 0.5,
}
SMALL = {
    "filters": (3, 4, 2),
    "kernel_sizes": (3, 2, 1),
    "strides": (1, 2, 1),
    "pools": (1,),
    "dense": (6,),
}
IMAGES = np.random.default_rng(0).normal(size=(3, 11, 17, 2)).astype(np.float32)
RAMP = "tests.models.probe:Ramp"


def shapes(model, images=IMAGES):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, images)


def made(model, images=IMAGES):
    rng = np.random.default_rng(1)
    draw = lambda a: (rng.normal(size=a.shape) * 0.3).astype(np.float32)
    return jax.tree.map(draw, shapes(model, images))


def count(model, images=IMAGES):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, images)["params"]))


def convolve(x, layer, stride, same):
    """One map at a time, one place at a time, with ReLU."""
    side, _, _, filters = layer["kernel"].shape
    if same:  # of odd kernels and stride 1
        x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    height, width = ((n - side) // stride + 1 for n in x.shape[1:3])
    y = np.zeros((len(x), height, width, filters))
    for b, i, j in np.ndindex(*y.shape[:3]):
        window = x[b, i * stride : i * stride + side, j * stride : j * stride + side]
        y[b, i, j] = np.tensordot(window, layer["kernel"], axes=3) + layer["bias"]
    return np.maximum(y, 0)


def pooled(x, side, reduce, rounded=math.floor):
    height, width = rounded(x.shape[1] / side), rounded(x.shape[2] / side)
    y = np.zeros((len(x), height, width, x.shape[3]))
    for i, j in np.ndindex(height, width):
        window = x[:, side * i : side * (i + 1), side * j : side * (j + 1)]
        y[:, i, j] = reduce(window, axis=(1, 2))
    return y


def ramp(x):
    rows, columns = np.arange(x.shape[1]), np.arange(x.shape[2])
    return x * (1 + rows[:, None] + 10 * columns)[None, :, :, None]


def forward(model, params, images, slot):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x = images.astype(np.float64)
    x = ramp(x) if slot == "input" else x
    x = pooled(x, model.pool, np.mean)
    for k in range(1, len(model.filters) + 1):
        x = ramp(x) if slot == f"conv{k}" else x
        stride, same = model.strides[k - 1], model.padding == "SAME"
        x = convolve(x, p[f"convolution{k}"], stride, same)
        x = pooled(x, 2, np.max, math.ceil) if k in model.pools else x
    x = x.reshape(len(x), -1)
    for k in range(len(model.dense)):
        x = np.maximum(x @ p[f"dense{k}"]["kernel"] + p[f"dense{k}"]["bias"], 0)
    if model.num_classes is None:
        return x
    logits = x @ p["classifier"]["kernel"] + p["classifier"]["bias"]
    if model.heads is None:
        return logits
    parts = np.split(logits, model.heads, axis=1)
    return np.stack(parts, axis=1)


@pytest.mark.parametrize(
    ("settings", "slot"),
    [
        (SMALL, None),
        ({**SMALL, "pools": (1, 2), "dense": [6, 4]}, "input"),
        ({**SMALL, "pool": 2, "pools": (), "heads": 3}, "conv1"),
        ({"filters": (3, 4), "kernel_sizes": 3, "padding": "SAME"}, "conv2"),
        ({**SMALL, "num_classes": None}, "conv3"),
        ({**SMALL, "pools": (1, 2)}, None),
    ],
)
def test_equals_numpy_with_each_slot_in_its_place(settings, slot):
    model = cnn(**settings, slots={slot: RAMP} if slot else None)
    variables = made(model)
    got = jax.jit(functools.partial(model.apply, train=False))(variables, IMAGES)
    want = forward(model, variables["params"], IMAGES, slot)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def test_the_papers_network_for_digits():
    convolutions = (9 * 9 * 1 + 1) * 64 + (7 * 7 * 64 + 1) * 64
    classifier = (2 * 2 * 64 + 1) * 5  # 28 -> 20 -> 10 -> 4 -> 2
    assert count(cnn(), np.zeros((1, 28, 28, 1))) == convolutions + classifier
    pooled = cnn(filters=(32, 40), dense=(100,), pool=2)
    convolutions = 82 * 32 + (49 * 32 + 1) * 40
    # by 2: 60 -> 30 -> 22 -> 11 -> 5 -> 3, and 42 -> 21 -> 13 -> 7 -> 1
    for side, last in ((60, 3), (42, 1)):
        want = convolutions + (last**2 * 40 + 1) * 100 + 101 * 5
        assert count(pooled, np.zeros((1, side, side, 1))) == want


@pytest.mark.parametrize(("side", "last"), [(64, 4), (128, 8)])
def test_the_papers_network_for_house_numbers(side, last):
    total = 0
    for inputs, outputs in itertools.pairwise((3, *SVHN["filters"])):
        total += (25 * inputs + 1) * outputs
    total += (last**2 * 192 + 1) * 3072 + 3073 * 3072 + 3073 * 5 * 11
    model, images = cnn(**SVHN), np.zeros((2, side, side, 3), np.float32)
    assert count(model, images) == total
    logits = jax.eval_shape(
        functools.partial(model.apply, train=False), shapes(model, images), images
    )
    assert logits.shape == (2, 5, 11)


def test_a_transformer_before_each_of_the_first_four_convolutions():
    transformer = {
        "name": "spatial_transformer",
        "localisation": "dense",
        "widths": (32, 32),
    }
    slots = {f"conv{k}": transformer for k in range(1, 5)}
    images = np.zeros((1, 64, 64, 3), np.float32)
    added = 0  # 64x64x3, 32x32x48, 32x32x64, 16x16x128
    for features in (64 * 64 * 3, 32 * 32 * 48, 32 * 32 * 64, 16 * 16 * 128):
        added += (features + 1) * 32 + 33 * 32 + 33 * 6
    plain, model = cnn(**SVHN), cnn(**SVHN, slots=slots)
    assert count(model, images) - count(plain, images) == added


def test_multiply_adds():
    model = cnn(filters=(4, 5), kernel_sizes=3, pools=(2,), dense=(7,))
    images = jax.ShapeDtypeStruct((1, 10, 13, 2), jnp.float32)
    found = cost.macs(model.apply, shapes(model, images), images, train=False)
    want = 8 * 11 * 9 * 2 * 4 + 6 * 9 * 9 * 4 * 5 + 3 * 5 * 5 * 7 + 7 * 5
    assert found == want


def test_drops_out_everything_but_the_first_convolution():
    settings = {"filters": (3, 4), "kernel_sizes": 3, "pools": (2,), "dense": (6,)}
    model = cnn(**settings, dropout=0.5)
    variables = made(model)
    apply = functools.partial(model.apply, variables, IMAGES)
    without = jax.jit(functools.partial(cnn(**settings).apply, train=True))
    evaluated = jax.jit(functools.partial(apply, train=False))()
    np.testing.assert_allclose(evaluated, without(variables, IMAGES), rtol=1e-5)
    run = functools.partial(apply, train=True, capture_intermediates=True)
    logits, state = jax.jit(run)(rngs={"dropout": jax.random.key(1)})
    found = {
        name: np.mean(np.asarray(value["__call__"][0]) == 0)
        for name, value in state["intermediates"].items()
        if name.startswith("Dropout")
    }
    assert len(found) == 2  # the second convolution and the linear layer
    assert logits.shape == (3, 5)
    assert all(0.4 < zeros < 1 for zeros in found.values())


def test_width_settings_set_the_filters_and_units():
    model = cnn(**SMALL)
    assert model.width_settings() == {
        "filters": Width((3, 4, 2), 1),
        "dense": Width((6,), 1),
    }
    assert cnn().width_settings() == {"filters": Width((64, 64), 1)}


def test_lists_the_slots_of_the_default():
    assert models.find("cnn").slots() == ["input", "conv1", "conv2"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"filters": (4, 4, 4)}, r"kernel_sizes .* one number or 3.*got \(9, 7\)"),
        ({"strides": (1,)}, r"strides of CNN must be one number or 2.*got \(1,\)"),
        ({"pools": (0, 1)}, "numbers of its 2 convolutions, from 1, got 0"),
        ({"pools": (3,)}, "numbers of its 2 convolutions, from 1, got 3"),
        ({"filters": (4, 0)}, r"filters of CNN must be at least 1, got \(4, 0\)"),
        ({"kernel_sizes": 0}, r"kernel_sizes of CNN must be at least 1, got \(0, 0"),
        ({"dropout": 1.0}, r"dropout of CNN must be in \[0, 1\), got 1.0"),
        ({"heads": 0}, "'heads'.*must be a positive int or None, got 0"),
        ({"slots": {"conv3": "cbam"}}, r"'conv3'.*\(valid: input, conv1, conv2\)"),
    ],
)
def test_says_what_would_fit(settings, says):
    with pytest.raises(ValueError, match=says):
        cnn(**settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "2x5 is too small for convolution 2 of kernel_size=7"),
        ({"pool": 2}, "5x8 is too small for convolution 1 of kernel_size=9"),
        ({"pools": ()}, "3x9 is too small for convolution 2 of"),
    ],
)
def test_says_which_convolution_does_not_fit(settings, says):
    with pytest.raises(ValueError, match=says):
        shapes(cnn(**settings))
