"""SpatialTransformer against the paper's equations in float64 NumPy loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.modules.capture import capture
from attn.modules.spatial.spatial_transformer import SpatialTransformer, identity_theta

TRANSFORMS = {"affine": 6, "attention": 3, "projective": 8, "thin_plate": 32}
SMALL = {"widths": (4, 5, 6), "downsample": 1, "kernel_size": 3}  # for 8 x 8 and more
SHAPE = (2, 9, 12, 3)

each = pytest.mark.parametrize("transform", TRANSFORMS)


def shapes(module, shape):
    init = functools.partial(module.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros(shape))["params"]


def draw(module, shape, seed=0):
    """Random parameters, theta among them, about the identity, and a random input."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda a: (rng.normal(size=a.shape) / np.sqrt(a.size / a.shape[-1])).astype(
            np.float32
        ),
        shapes(module, shape),
    )
    x = rng.normal(size=shape).astype(np.float32)
    identity = identity_theta(module.transform, module.control_points)
    identity = identity[module.scale is not None :]  # a fixed scale is not regressed
    kernel = params["theta"]["kernel"] * 0.3
    bias = (identity + 0.1 * params["theta"]["bias"]).astype(np.float32)
    return {**params, "theta": {"kernel": kernel, "bias": bias}}, x


def run(module, params, x):
    apply = lambda params, x: capture(module, {"params": params}, x)
    y, maps = jax.jit(apply)(params, x)
    return y, maps["sampling_grid"].values


def convolve(x, layer):
    """Unpadded convolution of one map and ReLU, one output at a time."""
    side, _, _, filters = layer["kernel"].shape
    y = np.zeros((x.shape[0] - side + 1, x.shape[1] - side + 1, filters))
    for row, column, i in np.ndindex(*y.shape):
        window = x[row : row + side, column : column + side]
        y[row, column, i] = np.sum(window * layer["kernel"][..., i])
    return np.maximum(y + layer["bias"], 0)


def pool(x, side, reduce):
    y = np.zeros((x.shape[0] // side, x.shape[1] // side, x.shape[2]))
    for row, column in np.ndindex(*y.shape[:2]):
        window = x[row * side : (row + 1) * side, column * side : (column + 1) * side]
        y[row, column] = reduce(window, axis=(0, 1))
    return y


def regress(params, x, downsample, pad=0):
    """theta of each example, [B, D]."""
    found = []
    room = [(pad, pad), (pad, pad), (0, 0)]
    for features in x:
        if "conv0" in params:
            features = pool(features, downsample, np.mean)
            features = convolve(np.pad(features, room), params["conv0"])
            features = pool(features, 2, np.max)
            features = convolve(np.pad(features, room), params["conv1"])
        features = features.reshape(-1)
        for layer in (params[name] for name in sorted(params) if "dense" in name):
            features = np.maximum(features @ layer["kernel"] + layer["bias"], 0)
        found.append(features @ params["theta"]["kernel"] + params["theta"]["bias"])
    return np.array(found)


def warp(x, matrices, size, align_corners=False):
    """Equations 1 and 5: [B, 3, 3] says where in x each place of the output looks."""
    batch, height, width, channels = x.shape
    y, grid = np.zeros((batch, *size, channels)), np.zeros((batch, *size, 2))
    for b, row, column in np.ndindex(batch, *size):
        if align_corners:
            target = [2 * column / (size[1] - 1) - 1, 2 * row / (size[0] - 1) - 1, 1]
        else:
            target = [(2 * column + 1) / size[1] - 1, (2 * row + 1) / size[0] - 1, 1]
        source = matrices[b] @ target
        grid[b, row, column] = source[:2] / source[2]
        at_x, at_y = grid[b, row, column]
        if align_corners:
            at_x, at_y = (at_x + 1) * (width - 1) / 2, (at_y + 1) * (height - 1) / 2
        else:
            at_x, at_y = ((at_x + 1) * width - 1) / 2, ((at_y + 1) * height - 1) / 2
        for n, m in np.ndindex(height, width):
            near = max(0, 1 - abs(at_x - m)) * max(0, 1 - abs(at_y - n))
            y[b, row, column] += x[b, n, m] * near
    return y, grid


def matrices(transform, theta, scale=None):
    """The numbers of a module as 3 x 3 matrices; not for thin_plate."""
    if scale is not None:
        theta = np.insert(theta, 0, scale, axis=1)
    one, zero = np.ones(len(theta)), np.zeros(len(theta))
    rows = {
        "affine": lambda a, b, c, d, e, f: [a, b, c, d, e, f, zero, zero, one],
        "attention": lambda s, x, y: [s, zero, x, zero, s, y, zero, zero, one],
        "projective": lambda *numbers: [*numbers, one],
    }[transform](*theta.T)
    return np.stack(rows, axis=-1).reshape(-1, 3, 3)


@each
def test_a_new_module_returns_its_input(transform):
    widths = SMALL if transform == "affine" else {"localisation": "dense"}
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    modules = [
        SpatialTransformer(transform=transform, align_corners=corners, **widths)
        for corners in (True, False)
    ]

    @jax.jit
    def outputs(key):
        variables = modules[0].init(key, x, train=False)
        return [module.apply(variables, x, train=False) for module in modules]

    for y in outputs(jax.random.key(0)):
        np.testing.assert_allclose(y, x, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"transform": "affine", **SMALL}, SHAPE),
        ({"transform": "projective", "output_size": (5, 4), **SMALL}, SHAPE),
        ({"transform": "attention", "localisation": "dense"}, (2, 4, 5, 3)),
        ({"align_corners": True, **SMALL, "downsample": 2}, (1, 17, 20, 2)),
        (
            {
                "transform": "attention",
                "scale": 0.4,
                **SMALL,
                "kernel_padding": "SAME",
                "output_size": (3, 5),
            },
            (2, 6, 9, 2),
        ),
    ],
)
def test_matches_the_paper(settings, shape):
    module = SpatialTransformer(**settings)
    params, x = draw(module, shape)

    y, grid = run(module, params, x)

    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    pad = module.kernel_size // 2 * (module.kernel_padding == "SAME")
    theta = regress(wide, x.astype(np.float64), module.downsample, pad)
    assert len(theta) == 1 or np.abs(theta[0] - theta[1]).max() > 0.01  # x matters
    size = module.output_size or shape[1:3]
    warped = matrices(module.transform, theta, module.scale)
    want_y, want_grid = warp(x, warped, size, module.align_corners)
    if module.align_corners:  # what is recorded has its -1 and 1 at the outer edges
        sides = np.array(shape[2:0:-1])
        want_grid = ((want_grid + 1) * (sides - 1) / 2 + 0.5) / sides * 2 - 1
    np.testing.assert_allclose(grid, want_grid, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y, want_y, rtol=1e-4, atol=1e-4)


def warped_by(transform, theta, x, **settings):
    """`x` warped by `theta` whatever it holds, which only the last bias decides."""
    module = SpatialTransformer(transform=transform, localisation="dense", **settings)
    params = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes(module, x.shape))
    params["theta"]["bias"] = np.asarray(theta, np.float32).reshape(-1)
    return run(module, params, x)


@each
def test_every_transform_holds_the_affine_ones(transform):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 7, 2)).astype(np.float32)
    theta = np.array([[1.3, 0.4, 0.2], [-0.5, 0.8, -0.3]])
    if transform == "attention":
        theta = np.array([[0.7, 0, 0.2], [0, 0.7, -0.3]])
    side = np.linspace(-1, 1, 3)
    control = [theta @ (x, y, 1) for y in side for x in side]
    numbers = {
        "affine": theta,
        "attention": [0.7, 0.2, -0.3],
        "projective": [*theta.reshape(-1), 0, 0],
        "thin_plate": np.array(control),
    }[transform]

    y, grid = warped_by(transform, numbers, x, output_size=(4, 6), control_points=3)

    whole = np.tile(np.concatenate([theta, [[0, 0, 1]]]), (2, 1, 1))
    want_y, want_grid = warp(x, whole, (4, 6))
    np.testing.assert_allclose(grid, want_grid, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, want_y, rtol=1e-4, atol=1e-4)


def test_a_known_move_by_one_pixel():
    x = np.arange(1.0, 13, dtype=np.float32).reshape(1, 3, 4, 1)
    right = [1, 0, 2 / 4, 0, 1, 0]  # each place reads the one to its right
    for padding, beyond in {"zeros": 0, "border": x[:, :, 3]}.items():
        y, _ = warped_by("affine", right, x, padding=padding)
        np.testing.assert_allclose(y[:, :, :3], x[:, :, 1:], atol=1e-5)
        np.testing.assert_allclose(y[:, :, 3] - beyond, 0, atol=1e-5)


def test_several_are_joined_over_channels_and_recorded_one_by_one():
    shape, settings = (2, 9, 12, 2), {"output_size": (5, 7), **SMALL}
    module = SpatialTransformer(count=3, **settings)
    one = SpatialTransformer(**settings)
    drawn = [draw(one, shape, seed) for seed in range(3)]
    x = drawn[0][1]
    params = {f"transformer{i}": drawn[i][0] for i in range(3)}
    sizes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert sizes(params) == sizes(shapes(module, shape))

    apply = lambda params: capture(module, {"params": params}, x)
    y, maps = jax.jit(apply)(params)

    assert y.shape == (2, 5, 7, 6)
    assert list(maps) == [f"transformer{i}/sampling_grid" for i in range(3)]
    for i, (own, _) in enumerate(drawn):
        want, grid = run(one, own, x)
        np.testing.assert_allclose(y[..., 2 * i : 2 * i + 2], want, atol=1e-5)
        got = maps[f"transformer{i}/sampling_grid"].values
        np.testing.assert_allclose(got, grid, atol=1e-6)


def test_a_fixed_scale_starts_at_the_middle_of_the_map():
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 1)).astype(np.float32)
    settings = {"transform": "attention", "scale": 0.5, "output_size": (3, 4)}
    module = SpatialTransformer(localisation="dense", widths=(), **settings)
    run = lambda: module.init_with_output(jax.random.key(0), x, train=False)
    y, variables = jax.jit(run)()
    assert variables["params"]["theta"]["bias"].shape == (2,)
    # half of 8 columns is read in 4, half of 6 rows in 3, from row 1.5
    want = (x[:, 1:4, 2:6] + x[:, 2:5, 2:6]) / 2
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


@each
def test_every_parameter_gets_a_gradient(transform):
    conv = transform in ("affine", "thin_plate")
    settings = SMALL if conv else {"localisation": "dense", "widths": (6, 7)}
    module = SpatialTransformer(transform=transform, **settings)
    params, x = draw(module, SHAPE)
    weight = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    apply = functools.partial(module.apply, train=True)
    loss = lambda params: jnp.sum(apply({"params": params}, x) * weight)

    grads = jax.jit(jax.grad(loss))(params)

    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), path
        assert np.max(np.abs(grad)) > 1e-4, path


@pytest.mark.parametrize(
    ("settings", "shape", "want"),
    [  # counted by hand
        ({}, (28, 28, 1), 520 + 10020 + 420 + 126),
        ({"localisation": "dense"}, (28, 28, 1), 785 * 32 + 2 * 33 * 32 + 33 * 6),
        (
            {"transform": "thin_plate"},
            (42, 30, 2),
            1020 + 10020 + 21 * 32 + (4 * 20 + 1) * 20,
        ),
        ({"transform": "attention", **SMALL}, (9, 12, 3), 112 + 185 + 16 * 6 + 21),
        (
            {"transform": "projective", "localisation": "dense", "widths": ()},
            (3, 4, 2),
            25 * 8,
        ),
        ({"count": 2, "localisation": "dense"}, (4, 5, 2), 2 * (41 * 32 + 2112 + 198)),
        (
            {"transform": "attention", "scale": 0.5, **SMALL},
            (9, 12, 3),
            112 + 185 + 16 * 6 + 14,
        ),
        (  # that of the paper's SVHN
            {"widths": (32, 32, 32), "downsample": 1, "kernel_padding": "SAME"},
            (64, 64, 3),
            76 * 32 + 801 * 32 + (32 * 32 * 32 + 1) * 32 + 33 * 6,
        ),
    ],
)
def test_parameter_count(settings, shape, want):
    module = SpatialTransformer(**settings)
    sizes = [leaf.size for leaf in jax.tree.leaves(shapes(module, (1, *shape)))]
    assert sum(sizes) == want
    assert module.card.parameters(module, shape) == want


def test_bfloat16_maps_are_warped_in_float32():
    settings = {"transform": "thin_plate", **SMALL}
    params, x = draw(SpatialTransformer(**settings), SHAPE)
    x = x.astype(jnp.bfloat16)
    want, want_grid = run(SpatialTransformer(**settings), params, x.astype(np.float32))

    y, grid = run(SpatialTransformer(**settings), params, x)

    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(grid, want_grid)
    np.testing.assert_allclose(y.astype(np.float32), want, rtol=0.01, atol=0.01)
    y, _ = run(SpatialTransformer(dtype=jnp.bfloat16, **settings), params, want)
    assert y.dtype == jnp.bfloat16


def test_extreme_inputs_stay_finite():
    module = SpatialTransformer(transform="projective", **SMALL)
    params, x = draw(module, SHAPE)
    apply = functools.partial(module.apply, train=True)
    loss = lambda params, x: jnp.sum(apply({"params": params}, x) ** 2)
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    for scale in (0, 1e6):
        found = run(params, x * np.float32(scale))
        assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(found))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs a map of at least 28 x 28, got 27 x 30"),
        ({"downsample": 8, "kernel_size": 3}, "at least 64 x 64, got 27 x 30"),
        ({"downsample": 0}, "downsample and kernel_size must be at least 1, got 0"),
        (
            {"downsample": 16, "kernel_padding": "SAME"},
            "at least 32 x 32, got 27 x 30",
        ),
        ({"widths": (20,)}, r"at least one convolution .* got \(20,\)"),
        (
            {"transform": "thin_plate", "localisation": "dense", "control_points": 1},
            "control_points must be at least 2, got 1",
        ),
    ],
)
def test_says_what_does_not_fit(settings, says):
    module = SpatialTransformer(**settings)
    with pytest.raises(ValueError, match=says):
        shapes(module, (1, 27, 30, 1))


def test_the_smallest_map_it_names_works():
    x = (1, 28, 28, 1)
    assert shapes(SpatialTransformer(), x)["dense0"]["kernel"].shape == (20, 20)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": 0.5}, "scale=0.5 needs the transform 'attention', got 'affine'"),
        ({"scale": 0.0, "transform": "attention"}, "scale must be above 0, got 0.0"),
        ({"count": 0}, "'count' .* must be a positive int, got 0"),
    ],
)
def test_says_at_once_what_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        attn.create("spatial_transformer", **settings)
