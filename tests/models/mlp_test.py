"""MLP against NumPy in float64, its slot, its sizes, its errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models
from attn.models.scaling import Width

mlp = functools.partial(models.create, "mlp", num_classes=5)
IMAGES = np.random.default_rng(0).normal(size=(3, 7, 10, 2)).astype(np.float32)


def shapes(model, images=IMAGES):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, images)


def made(model, images=IMAGES):
    rng = np.random.default_rng(1)
    draw = lambda a: (rng.normal(size=a.shape) * 0.3).astype(np.float32)
    return jax.tree.map(draw, shapes(model, images))


def count(model, images=IMAGES):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, images)["params"]))


def forward(params, images, pool, ramp):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x = images.astype(np.float64)
    if ramp:
        rows, columns = np.arange(x.shape[1]), np.arange(x.shape[2])
        x = x * (1 + rows[:, None] + 10 * columns)[None, :, :, None]
    height, width = x.shape[1] // pool, x.shape[2] // pool
    cells = [
        x[:, pool * i : pool * (i + 1), pool * j : pool * (j + 1)].mean((1, 2))
        for i in range(height)
        for j in range(width)
    ]
    x = np.concatenate(cells, axis=1)
    for name in sorted(name for name in p if name.startswith("dense")):
        x = np.maximum(x @ p[name]["kernel"] + p[name]["bias"], 0)
    if "classifier" not in p:
        return x
    return x @ p["classifier"]["kernel"] + p["classifier"]["bias"]


@pytest.mark.parametrize(
    ("settings", "ramp"),
    [
        ({"widths": (6, 4)}, False),
        ({"widths": [6, 4], "pool": 3}, True),
        ({"widths": (9,), "num_classes": None}, False),
        ({"widths": ()}, True),
    ],
)
def test_equals_numpy_with_its_slot_before_the_pooling(settings, ramp):
    slots = {"input": "tests.models.probe:Ramp"} if ramp else None
    model = mlp(**settings, slots=slots)
    variables = made(model)
    got = jax.jit(functools.partial(model.apply, train=False))(variables, IMAGES)
    want = forward(variables["params"], IMAGES, model.pool, ramp)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "size", "want"),
    [  # the two ends of what the paper has, and its larger images pooled
        ({}, (28, 28, 1), 785 * 256 + 257 * 256 + 257 * 5),
        ({"widths": (128, 128)}, (28, 28, 1), 785 * 128 + 129 * 128 + 129 * 5),
        ({"pool": 2, "widths": (100, 70)}, (42, 60, 2), 1261 * 100 + 101 * 70 + 355),
    ],
)
def test_parameter_count(settings, size, want):
    assert count(mlp(**settings), np.zeros((1, *size))) == want


def test_two_transformers_in_its_slot_feed_it_twice_the_channels():
    slots = {
        "input": {"name": "spatial_transformer", "localisation": "dense", "count": 2}
    }
    model = mlp(slots=slots)
    one = (141 * 32 + 2 * 33 * 32) + 33 * 6
    assert count(model) == 2 * one + 281 * 256 + 257 * 256 + 257 * 5
    _, maps = jax.eval_shape(
        functools.partial(attn.capture, model), made(model), IMAGES
    )
    assert list(maps) == [f"input/transformer{i}/sampling_grid" for i in range(2)]


def test_computes_in_bfloat16_and_answers_in_float32():
    model = mlp(widths=(6, 4))
    variables = made(model)
    apply = jax.jit(
        functools.partial(model.clone(dtype=jnp.bfloat16).apply, train=True)
    )
    got = apply(variables, IMAGES)
    want = forward(variables["params"], IMAGES, 1, ramp=False)
    assert got.dtype == jnp.float32
    assert 1e-4 < np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_starts_he_normal():
    model = mlp(widths=(300, 200))
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(jax.random.key(0), IMAGES)["params"]
    for name, fan_in in {"dense0": 140, "dense1": 300}.items():
        assert abs(params[name]["kernel"].std() / np.sqrt(2 / fan_in) - 1) < 0.02
        assert not np.any(params[name]["bias"])


def test_width_settings_set_the_widths():
    model = mlp(widths=(6, 4))
    assert model.width_settings() == {"widths": Width((6, 4), 1)}
    assert mlp(widths=()).width_settings() == {}
    assert models.find("mlp").slots() == ["input"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"widths": (3, 0)}, r"widths of MLP must be at least 1, got \(3, 0\)"),
        ({"num_classes": 0}, "num_classes of MLP must be at least 1, got 0"),
        ({"slots": {"inputs": "cbam"}}, "unknown slot 'inputs'; did you mean 'input'"),
        ({"slots": {"conv1": "cbam"}}, "unknown slot 'conv1'"),
    ],
)
def test_says_what_would_fit(settings, says):
    with pytest.raises(ValueError, match=says):
        mlp(**settings)


def test_refuses_to_pool_all_away():
    with pytest.raises(ValueError, match="pool=8 is larger than its map of 7x10"):
        shapes(mlp(pool=8))
