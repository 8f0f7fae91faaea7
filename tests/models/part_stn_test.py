"""Part-based transformers: places in NumPy, towers and localiser alone, errors."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn import models
from attn.models.part_stn import tiles

TOWER = {"name": "cnn", "filters": [4], "kernel_sizes": 3, "pools": [1]}
MLP = {"name": "mlp", "widths": [3]}
LOCALISER = {"name": "resnet", "depth": 8, "layout": "cifar", "width": 4}
SMALL = {
    "num_classes": 5,
    "crop": 6,
    "tower": TOWER,
    "localiser": LOCALISER,
    "downsample": 2,
    "widths": (7, 9),
}
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 20, 2)).astype(np.float32)
part_stn = functools.partial(models.create, "part_stn")


def shapes(model, images=IMAGES):
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, images)


def made(model):
    """Random variables, with places about those where it starts."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "var":
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        return rng.normal(size=leaf.shape, scale=1.4 * fan**-0.5).astype(np.float32)

    variables = jax.tree.map_with_path(draw, shapes(model))
    theta = variables["params"]["localiser_theta"]
    start = tiles(model.parts, model.scale).reshape(-1).astype(np.float32)
    theta["kernel"] *= 0.1
    theta["bias"] = start + 0.2 * theta["bias"]
    return variables


def read(image, place, side, scale):
    """Equations 1 and 5 of the paper, pixel by pixel: [H, W, C] -> [side, side, C]."""
    height, width, channels = image.shape
    y = np.zeros((side, side, channels))
    for row, column in np.ndindex(side, side):
        at_x = scale * ((2 * column + 1) / side - 1) + place[0]
        at_y = scale * ((2 * row + 1) / side - 1) + place[1]
        m, n = ((at_x + 1) * width - 1) / 2, ((at_y + 1) * height - 1) / 2
        for i, j in np.ndindex(height, width):
            near = max(0, 1 - abs(n - i)) * max(0, 1 - abs(m - j))
            y[row, column] += near * image[i, j]
    return y


def alone(spec, name, variables, images):
    """A network of the model, applied by itself."""
    own = {key: tree[name] for key, tree in variables.items() if name in tree}
    model = models.create(**spec, num_classes=None)
    return jax.jit(functools.partial(model.apply, train=False))(own, images)


def dense(x, layer):
    return x @ np.asarray(layer["kernel"], np.float64) + layer["bias"]


def test_equals_its_networks_on_crops_read_by_the_papers_equations():
    model = part_stn(**SMALL, parts=3, scale=0.4)
    variables = made(model)
    p = variables["params"]

    y, maps = jax.jit(functools.partial(attn.capture, model))(variables, IMAGES)

    small = IMAGES.reshape(3, 8, 2, 10, 2, 2).mean((2, 4))
    seen = alone(LOCALISER, "localiser", variables, small)
    assert seen.shape == (3, 2, 3, 16)  # its last map, not averaged
    hidden = np.maximum(dense(np.float64(seen), p["localiser_conv"]), 0)
    hidden = np.maximum(dense(hidden.reshape(3, -1), p["localiser_dense"]), 0)
    places = dense(hidden, p["localiser_theta"]).reshape(3, 3, 2)
    assert np.abs(places[0] - places[1]).max() > 0.01  # the image matters
    assert np.abs(places).max() < 1.5
    features = []
    for part in range(3):
        crops = [
            read(x, place[part], 6, 0.4)
            for x, place in zip(IMAGES, places, strict=True)
        ]
        crops = np.stack(crops).astype(np.float32)
        features.append(alone(TOWER, f"tower{part}", variables, crops))
    want = dense(np.float64(np.concatenate(features, 1)), p["classifier"])
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
    assert {path: m.values.shape for path, m in maps.items()} == {
        f"part{part}/sampling_grid": (3, 6, 6, 2) for part in range(3)
    }
    middle = maps["part1/sampling_grid"].values.mean((1, 2))
    np.testing.assert_allclose(middle, places[:, 1], rtol=1e-4, atol=1e-5)


def test_a_new_one_tiles_the_image():
    fast = {"crop": 8, "tower": MLP, "localiser": MLP}
    model, images = part_stn(**(SMALL | fast), parts=4), IMAGES[:, :, :16]

    @jax.jit
    def run():
        variables = model.init(jax.random.key(0), images, train=False)
        return attn.capture(model, variables, images)[1]

    maps = run()
    corners = [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)]
    for part, (x, y) in enumerate(corners):
        grid = maps[f"part{part}/sampling_grid"].values
        inner = (np.arange(8) * 2 + 1) / 16 - 0.5
        np.testing.assert_allclose(grid[1, :, 3, 1], y + inner, atol=1e-6)
        np.testing.assert_allclose(grid[1, 3, :, 0], x + inner, atol=1e-6)


@pytest.mark.parametrize(
    ("count", "scale", "want"),
    [
        (1, 0.5, [(0, 0)]),
        (2, 0.5, [(-0.5, 0), (0.5, 0)]),
        (3, 0.25, [(-0.75, 0), (0, 0), (0.75, 0)]),
        (5, 0.5, [(-0.5, -0.5), (0, -0.5), (0.5, -0.5), (-0.5, 0.5), (0, 0.5)]),
    ],
)
def test_tiles(count, scale, want):
    np.testing.assert_allclose(tiles(count, scale), want)


def test_a_resnet_is_averaged_over_places_and_each_tower_has_its_own():
    model = part_stn(**(SMALL | {"tower": LOCALISER}), parts=2)
    params = shapes(model)["params"]
    assert params["classifier"]["kernel"].shape == (2 * 16, 5)
    assert "classifier" not in params["tower0"]
    assert jax.tree.structure(params["tower0"]) == jax.tree.structure(params["tower1"])
    assert params["localiser_conv"]["kernel"].shape == (16, 7)
    assert params["localiser_dense"]["kernel"].shape == (2 * 3 * 7, 9)
    assert params["localiser_theta"]["kernel"].shape == (9, 4)


def test_towers_have_slots():
    tower = {**TOWER, "slots": {"conv1": "pixel_attention"}}
    params = shapes(part_stn(**(SMALL | {"tower": tower})))["params"]
    assert params["tower1"]["conv1"]["excite"]["kernel"].shape == (2, 2)
    assert "conv1" not in shapes(part_stn(**SMALL))["params"]["tower1"]


def test_the_places_learn_from_the_classifier():
    model = part_stn(**(SMALL | {"localiser": MLP}))
    variables = made(model)
    loss = lambda variables: (model.apply(variables, IMAGES, train=True) ** 2).sum()
    grads = jax.jit(jax.grad(loss))(variables)
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), path
        if "theta" in jax.tree_util.keystr(path):
            assert np.abs(grad).max() > 1e-3, path


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tower": "resnet"}, "'tower' .* must be a mapping, got 'resnet'"),
        ({"tower": {"name": "resnt"}}, "tower: unknown model 'resnt'; did you mean"),
        ({"tower": {**LOCALISER, "depth": 9}}, "tower: a CIFAR ResNet .* got 9"),
        ({"localiser": {**TOWER, "num_classes": 3}}, "localiser is without classifier"),
        ({"tower": {"name": "vit"}}, "tower: setting 'num_classes'.*got None"),
        ({"scale": 0.0}, "scale must be above 0, got 0.0"),
        ({"dropout": 1.0}, "dropout of PartSTN must be"),
        ({"slots": {"inputs": "cbam"}}, "did you mean 'input'"),
    ],
)
def test_says_what_would_fit(settings, says):
    with pytest.raises(ValueError, match=says):
        part_stn(**(SMALL | settings))
