"""Stacked hourglasses: against NumPy, their size by formula, images that fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import models

SMALL = {"num_joints": 3, "stacks": 2, "order": 2, "width": 8}
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 32, 3)).astype(np.float32)
hourglass = functools.partial(models.create, "hourglass")


def shapes(model, *size):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    init = functools.partial(model.init, jax.random.key(0), train=False)
    return jax.eval_shape(init, images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def drawn(model, *size):
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 4
        return rng.normal(size=leaf.shape, scale=1.4 * fan**-0.5).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes(model, *size))


class Oracle:
    """The layer list of the paper's figures and the released code."""

    def __init__(self, variables, order):
        self.p, self.s = variables["params"], variables["batch_stats"]
        self.order = order

    def at(self, tree, path):
        for name in path.split("/"):
            tree = tree[name]
        return {key: np.float64(value) for key, value in tree.items()}

    def conv(self, path, x, stride=1):
        layer = self.at(self.p, path)
        kernel = layer["kernel"]
        kernel = kernel if kernel.ndim == 4 else kernel[None, None]
        size = len(kernel)
        pad = size // 2
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        height, width = (n - size + 1 for n in x.shape[1:3])
        y = sum(
            x[:, i : i + height, j : j + width] @ kernel[i, j]
            for i in range(size)
            for j in range(size)
        )
        return y[:, ::stride, ::stride] + layer["bias"]

    def active(self, path, x):
        layer, seen = self.at(self.p, path), self.at(self.s, path)
        x = (x - seen["mean"]) / np.sqrt(seen["var"] + 1e-5)
        return np.maximum(x * layer["scale"] + layer["bias"], 0)

    def residual(self, path, x):
        y = x
        for number in (1, 2, 3):
            y = self.active(f"{path}/norm{number}", y)
            y = self.conv(f"{path}/conv{number}", y)
        if x.shape[-1] != y.shape[-1]:
            x = self.conv(f"{path}/shortcut_conv", x)
        return x + y

    def pool(self, x):
        batch, height, width, channels = x.shape
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    def hourglass(self, path, x, level=0):
        if level == self.order:
            return self.residual(f"{path}/middle0", x)
        low = self.residual(f"{path}/down{level}", self.pool(x))
        low = self.hourglass(path, low, level + 1)
        low = self.residual(f"{path}/up{level}", low)
        low = np.kron(low, np.ones((1, 2, 2, 1)))
        return self.residual(f"{path}/skip{level}", x) + low

    def __call__(self, x, stacks):
        x = self.active("stem_norm", self.conv("stem_conv", np.float64(x), 2))
        x = self.pool(self.residual("stem0", x))
        x = self.residual("stem2", self.residual("stem1", x))
        found = []
        for i in range(stacks):
            y = self.residual(f"stack{i}/last0", self.hourglass(f"stack{i}", x))
            y = self.active(f"stack{i}/norm", self.conv(f"stack{i}/conv", y))
            found.append(self.conv(f"heatmaps{i}", y))
            if i + 1 < stacks:
                x = x + self.conv(f"features{i}", y)
                x = x + self.conv(f"remap{i}", found[-1])
        return np.stack(found, axis=1)


def test_equals_its_layers_in_numpy():
    model = hourglass(**SMALL)
    variables = drawn(model, 16, 32)
    found = jax.jit(functools.partial(model.apply, train=False))(variables, IMAGES)
    want = Oracle(variables, 2)(IMAGES, 2)[:, -1]
    assert found.keys() == {"heatmaps"}
    assert found["heatmaps"].shape == (2, 4, 8, 3)
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(want).max()}
    np.testing.assert_allclose(found["heatmaps"], want, **close)


def test_every_stack_is_supervised_in_training():
    model = hourglass(**SMALL)
    run = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    found, _ = jax.jit(run)(drawn(model, 16, 32), IMAGES)
    assert found["stacks"].shape == (2, 2, 4, 8, 3)
    np.testing.assert_array_equal(found["stacks"][:, -1], found["heatmaps"])
    assert np.abs(found["stacks"][:, 0] - found["heatmaps"]).max() > 0.1


def conv_size(inputs, outputs, side=1):
    return (side * side * inputs + 1) * outputs


def residual_size(inputs, outputs):
    inner = outputs // 2
    total = 2 * inputs + 2 * inner + 2 * inner  # batch norms
    total += conv_size(inputs, inner) + conv_size(inner, inner, 3)
    total += conv_size(inner, outputs)
    return total + (conv_size(inputs, outputs) if inputs != outputs else 0)


def test_parameters_are_those_of_the_layer_list():
    """Eight stacks on 16 joints, layer by layer as in the authors' code for Torch."""
    stem = conv_size(3, 64, 7) + 2 * 64
    stem += residual_size(64, 128) + residual_size(128, 128) + residual_size(128, 256)
    stack = (3 * 4 + 1 + 1) * residual_size(256, 256)
    stack += conv_size(256, 256) + 2 * 256 + conv_size(256, 16)
    again = conv_size(256, 256) + conv_size(16, 256)
    found = {
        stacks: count(
            shapes(hourglass(num_joints=16, stacks=stacks), 64, 128)["params"]
        )
        for stacks in (1, 2)
    }
    assert found == {1: stem + stack, 2: stem + 2 * stack + again}
    assert stem + 8 * stack + 7 * again == 25_434_112


def test_attention_is_where_the_slot_says():
    gate = {"name": "squeeze_excite", "reduction": 2}
    fill = {"stack1/skip1/block.residual": gate, "stem0/block.residual": gate}
    params = shapes(hourglass(**SMALL, slots=fill), 16, 32)["params"]
    assert "residual" in params["stack1"]["skip1"]
    assert "residual" in params["stem0"]
    everywhere = {"block.residual": gate}
    more = shapes(hourglass(**SMALL, slots=everywhere), 16, 32)["params"]
    paths = [path for path, _ in jax.tree.leaves_with_path(more)]
    gated = {path[:-3] for path in paths if "residual" in str(path)}
    assert len(gated) == 3 + 2 * (3 * 2 + 2)


def test_the_layers_that_may_start_anew_are_those_that_know_the_joints():
    few, many = (
        shapes(hourglass(**{**SMALL, "num_joints": joints}), 16, 32)["params"]
        for joints in (3, 5)
    )
    unlike = {layer for layer in few if few[layer] != many[layer]}
    assert unlike == {"heatmaps0", "heatmaps1", "remap0"}
    assert unlike == set(hourglass(**SMALL).task_layers)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 6}, "multiple of 4, got 6"),
        ({"stacks": 0}, "'stacks' .* must be a positive int"),
        ({"slots": {"stack2/block.residual": "cbam"}}, "did you mean 'stack1'"),
    ],
)
def test_says_what_would_fit(changes, says):
    with pytest.raises(ValueError, match=says):
        hourglass(**(SMALL | changes))


def test_sides_that_it_cannot_halve_are_refused():
    with pytest.raises(ValueError, match=r"16 must divide .* 24 x 32; .* are 32 x 32"):
        shapes(hourglass(**SMALL), 24, 32)
