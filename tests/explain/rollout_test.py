"""Attention rollout against products of matrices in NumPy, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import ops
from attn.explain import gradient_rollout, rollout
from attn.ops import dot_product
from tests.explain import networks

TOKENS = ("vit", "deit", "cait", "swin", "xcit")


def matrices(model, variables, images):
    """What is recorded, mean over heads, float64, by the path of the module."""
    _, maps = jax.jit(lambda v, x: attn.capture(model, v, x))(variables, images)
    return {
        name.rpartition("/")[0]: np.asarray(found.values, np.float64).mean(axis=1)
        for name, found in maps.items()
        if found.kind == "token_matrix"
    }


def shares(cells, grid, size):
    """Cells [B, h w] over the image, divided by their sums."""
    cells = cells.reshape(-1, *grid)
    down, right = size[0] // grid[0], size[1] // grid[1]
    whole = np.repeat(np.repeat(cells, down, axis=1), right, axis=2)
    return whole / whole.sum(axis=(1, 2), keepdims=True)


def mixed(matrix):
    """A layer with its residual connection, as the paper on rollout has it."""
    return (matrix + np.eye(matrix.shape[-1])) / 2


def merged(grid):
    """The matrix that averages neighbours of 2x2, fewer at an odd edge."""
    half = [-(-side // 2) for side in grid]
    mean = np.zeros((half[0] * half[1], grid[0] * grid[1]))
    for row, column in np.ndindex(*grid):
        mean[row // 2 * half[1] + column // 2, row * grid[1] + column] = 1
    return mean / mean.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", TOKENS)
def test_maps_are_shares_of_the_image(name):
    size = {"xcit": (16, 24), "swin": (12, 20)}.get(name, networks.SIZE)
    model, variables = networks.network(name, size)
    images = networks.images(size)
    for explain in (rollout, gradient_rollout):
        maps = networks.compiled(explain, model, variables, images)
        assert maps.shape == (2, *size)
        assert maps.min() >= 0
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
        assert np.abs(maps[0] - maps[1]).max() > 1e-5  # of this image, not of any


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_of_vit_it_is_the_product_of_all_layers(pool):
    model, variables = networks.network("vit", pool=pool)
    images = networks.images()
    layers = matrices(model, variables, images)
    whole = np.eye(6 + (pool == "class"))
    for index in range(3):
        whole = mixed(layers[f"block{index}/mixer"]) @ whole
    np.testing.assert_allclose(whole.sum(axis=-1), 1, rtol=1e-6)
    row = whole[:, 0, 1:] if pool == "class" else whole.mean(axis=1)
    wanted = shares(row, (2, 3), networks.SIZE)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


def test_of_deit_it_is_the_mean_of_its_two_tokens():
    model, variables = networks.network("deit")
    images = networks.images()
    layers = matrices(model, variables, images)
    whole = mixed(layers["block1/mixer"]) @ mixed(layers["block0/mixer"])
    wanted = shares(whole[:, :2, 2:].mean(axis=1), (2, 3), networks.SIZE)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


@pytest.mark.parametrize(("name", "size"), [("cait", (8, 12)), ("xcit", (16, 24))])
def test_class_layers_change_the_class_token_alone(name, size):
    model, variables = networks.network(name, size)
    images = networks.images(size)
    layers = matrices(model, variables, images)
    patches = np.eye(6)
    for index in range(2):
        if name == "cait":
            patches = mixed(layers[f"block{index}/mixer"]) @ patches
    whole = np.zeros((2, 7, 7))
    whole[:, 0, 0], whole[:, 1:, 1:] = 1, patches
    for index in range(2):
        layer = np.tile(np.eye(7), (2, 1, 1))
        layer[:, :1] = (layer[:, :1] + layers[f"class{index}/mixer"]) / 2
        whole = layer @ whole
    wanted = shares(whole[:, 0, 1:], (2, 3), size)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


def test_of_swin_it_goes_through_windows_shifts_and_merges():
    size = (10, 14)  # grids of 5x7 and 3x4
    model, variables = networks.network("swin", size)
    images = networks.images(size)
    layers = matrices(model, variables, images)
    whole = np.eye(35)
    for path in ("stage1/block0/mixer", "stage1/block1/mixer"):
        whole = mixed(layers[path]) @ whole
    whole = merged((5, 7)) @ whole
    for path in ("stage2/block0/mixer", "stage2/block1/mixer"):
        whole = mixed(layers[path]) @ whole
    np.testing.assert_allclose(whole.sum(axis=-1), 1, rtol=1e-6)
    wanted = shares(whole.mean(axis=1), (5, 7), size)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


def test_a_window_of_the_whole_grid_makes_swin_a_plain_rollout():
    size = (6, 10)
    settings = {"window": 5, "depths": (2,), "num_heads": (2,)}
    model, variables = networks.network("swin", size, **settings)
    images = networks.images(size)
    layers = matrices(model, variables, images)
    first, second = (layers[f"stage1/block{index}/mixer"] for index in (0, 1))
    assert (first > 0).all()
    assert (second > 0).all()
    wanted = shares((mixed(second) @ mixed(first)).mean(axis=1), (3, 5), size)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


def test_one_layer_is_the_row_of_its_attention():
    model, variables = networks.network("vit", depth=1)
    images = networks.images()
    row = matrices(model, variables, images)["block0/mixer"][:, 0, 1:]
    wanted = shares(row, (2, 3), networks.SIZE)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_even_attention_everywhere_is_an_even_map(name):
    size = (8, 16)  # which windows divide at both stages
    model, variables = networks.network(name, size)
    silent = lambda path, a: (
        0 * a
        if {"query", "bias_table"} & {entry.key for entry in path}
        else jnp.asarray(a)
    )
    variables = jax.tree.map_with_path(silent, variables)
    found = networks.compiled(rollout, model, variables, networks.images(size))
    np.testing.assert_allclose(found, 1 / 128, rtol=1e-4)


def test_a_slot_without_a_residual_replaces_tokens():
    fill = {"block0/block.pre": "multi_head", "block1/mixer": "none"}
    model, variables = networks.network("vit", depth=2, slots=fill)
    images = networks.images()
    layers = matrices(model, variables, images)
    whole = mixed(layers["block0/mixer"]) @ layers["block0/pre"]
    wanted = shares(whole[:, 0, 1:], (2, 3), networks.SIZE)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_a_pooling_attention_is_the_last_row(pool):
    slots = {"pool": "cross_attention"}
    model, variables = networks.network("vit", depth=1, pool=pool, slots=slots)
    images = networks.images()
    layers = matrices(model, variables, images)
    row = (layers["pool"] @ mixed(layers["block0/mixer"]))[:, 0]
    wanted = shares(row[:, pool == "class" :], (2, 3), networks.SIZE)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


def test_a_non_local_block_moves_patches_and_class_tokens_stay():
    slots = {"block0/block.pre": {"name": "non_local", "subsample": "projected"}}
    size = (16, 24)
    model, variables = networks.network("vit", size, depth=1, slots=slots)
    images = networks.images(size)
    layers = matrices(model, variables, images)
    coarse = layers["block0/pre"].reshape(2, 24, 2, 3)
    fine = np.repeat(np.repeat(coarse, 2, axis=2), 2, axis=3).reshape(2, 24, 24) / 4
    layer = np.tile(np.eye(25), (2, 1, 1))
    layer[:, 1:, 1:] = mixed(fine)
    whole = mixed(layers["block0/mixer"]) @ layer
    wanted = shares(whole[:, 0, 1:], (4, 6), size)
    np.testing.assert_allclose(
        networks.compiled(rollout, model, variables, images), wanted, 1e-4
    )


@pytest.mark.parametrize("name", ["non_local", "second_order_non_local"])
def test_a_block_that_adds_what_it_reads_keeps_half_of_each_token(name):
    """With their usual start both are the identity, and read all the same."""
    slots = {"mixer": "none", "block0/block.post": name}
    model, variables = networks.network("vit", depth=1, pool="mean", slots=slots)
    images = networks.images()
    layer = mixed(matrices(model, variables, images)["block0/post"])
    wanted = shares(layer.mean(axis=1), (2, 3), networks.SIZE)
    found = networks.compiled(rollout, model, variables, images)
    np.testing.assert_allclose(found, wanted, 1e-4)


def test_tokens_that_read_nothing_stay_as_they_are():
    for others in ("keep", "zero"):
        slots = {"mixer": {"name": "class_attention", "others": others}}
        model, variables = networks.network("vit", depth=2, slots=slots)
        images = networks.images()
        layers = matrices(model, variables, images)
        whole = np.eye(7)
        for index in range(2):
            layer = np.tile(np.eye(7), (2, 1, 1))
            layer[:, 0] = mixed(layers[f"block{index}/mixer"])[:, 0]
            whole = layer @ whole
        wanted = shares(whole[:, 0, 1:], (2, 3), networks.SIZE)
        found = networks.compiled(rollout, model, variables, images)
        np.testing.assert_allclose(found, wanted, 1e-4)


def test_several_attentions_that_read_the_same_are_refused():
    slots = {"pool": ["multi_head", "multi_head"]}
    model, variables = networks.network("vit", depth=1, slots=slots)
    with pytest.raises(ValueError, match="does not follow a list of attention modules"):
        networks.compiled(rollout, model, variables, networks.images())


def test_a_list_of_attentions_is_their_product():
    slots = {"mixer": ["multi_head", "talking_heads"]}
    model, variables = networks.network("vit", depth=1, slots=slots)
    images = networks.images()
    layers = matrices(model, variables, images)
    whole = mixed(layers["block0/mixer1"] @ layers["block0/mixer0"])
    wanted = shares(whole[:, 0, 1:], (2, 3), networks.SIZE)
    found = networks.compiled(rollout, model, variables, images)
    np.testing.assert_allclose(found, wanted, 1e-4)


@pytest.mark.parametrize("explain", [rollout, gradient_rollout])
@pytest.mark.parametrize("mixer", ["linear", "linformer", "outlook", "talking_heads"])
def test_any_mixer_with_a_matrix_is_followed(mixer, explain):
    # an outlook moves places alone, and no class token
    options = {"slots": {"mixer": mixer}, "pool": "mean"}
    model, variables = networks.network("vit", depth=2, **options)
    maps = networks.compiled(explain, model, variables, networks.images())
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert maps.std() > 1e-4


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cnn", {}, "knows CaiT, DeiT, Swin, ViT, XCiT, not CNN"),
        ("vit", {"pool": "mean", "slots": {"mixer": "none"}}, "moves anything"),
    ],
)
def test_models_without_a_way_are_refused(name, settings, message):
    model, variables = networks.network(name, **settings)
    with pytest.raises(ValueError, match=message):
        networks.compiled(rollout, model, variables, networks.images())


class Weights:
    """Attention with its weights laid open, each with a perturbation of zeros."""

    def __init__(self, perturbations=None):
        self.given, self.seen = perturbations, []

    def __call__(self, query, key, value, *, bias=None, mask=None, **options):
        options.pop("implementation", None)
        weights = dot_product.attention_weights(
            query, key, bias=bias, mask=mask, **options
        )
        if self.given is not None:
            weights = weights + self.given[len(self.seen)]
        self.seen.append(weights)
        return jnp.einsum("bnts,bsnd->btnd", weights, value)


def weighted(monkeypatch, model, variables, images, target):
    """relu(dy/dP * P), mean over heads, in the order of the layers, from jax.grad."""

    def score(perturbations):
        opened = Weights(perturbations)
        with monkeypatch.context() as patch:
            patch.setattr(dot_product, "dot_product_attention", opened)
            patch.setattr(ops, "dot_product_attention", opened)
            logits = model.apply(variables, images, train=False)
        picked = jnp.take_along_axis(logits, target[:, None], axis=1)
        return picked.sum(), opened.seen

    shapes = jax.eval_shape(lambda: score(None)[1])
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    slopes, weights = jax.jit(jax.grad(score, has_aux=True))(zeros)
    return [
        np.maximum(np.asarray(p, np.float64) * np.asarray(slope), 0).mean(axis=1)
        for p, slope in zip(weights, slopes, strict=True)
    ]


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_gradients_of_vit_are_those_of_its_weights(monkeypatch, pool):
    model, variables = networks.network("vit", pool=pool)
    images, target = networks.images(), jnp.asarray([4, 1])
    layers = weighted(monkeypatch, model, variables, images, target)
    assert len(layers) == 3
    whole = np.eye(6 + (pool == "class"))
    for layer in layers:
        whole = whole + layer @ whole
    whole = whole - np.eye(len(whole[0]))
    row = whole[:, 0, 1:] if pool == "class" else whole.mean(axis=1)
    wanted = shares(row, (2, 3), networks.SIZE)
    found = networks.compiled(gradient_rollout, model, variables, images, target)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


def test_gradients_of_xcit_are_those_of_its_class_layers(monkeypatch):
    size = (16, 24)
    model, variables = networks.network("xcit", size)
    images, target = networks.images(size), jnp.asarray([4, 1])
    whole = np.eye(7)
    for layer in weighted(monkeypatch, model, variables, images, target):
        rows = np.zeros((2, 7, 7))
        rows[:, :1] = layer
        whole = whole + rows @ whole
    wanted = shares(whole[:, 0, 1:], (2, 3), size)
    found = networks.compiled(gradient_rollout, model, variables, images, target)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


def test_gradients_of_swin_are_those_of_its_weights(monkeypatch):
    size = (6, 10)
    settings = {"window": 5, "depths": (2,), "num_heads": (2,)}
    model, variables = networks.network("swin", size, **settings)
    images, target = networks.images(size), jnp.asarray([4, 1])
    whole = np.eye(15)
    for layer in weighted(monkeypatch, model, variables, images, target):
        whole = whole + layer @ whole
    row = (whole - np.eye(15)).mean(axis=1)
    found = networks.compiled(gradient_rollout, model, variables, images, target)
    wanted = shares(row, (3, 5), size)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)


def test_the_target_is_the_prediction_unless_it_is_given():
    model, variables = networks.network("vit")
    images = networks.images()
    predicted = model.apply(variables, images, train=False).argmax(axis=-1)
    maps = [
        np.asarray(
            networks.compiled(gradient_rollout, model, variables, images, target)
        )
        for target in (None, predicted, (predicted + 1) % networks.CLASSES)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 1e-4


def test_an_attention_whose_gradient_is_not_known_is_refused():
    slots = {"block0/block.pre": "non_local"}
    model, variables = networks.network("vit", slots=slots)
    with pytest.raises(ValueError, match="how NonLocal reads is not known"):
        networks.compiled(gradient_rollout, model, variables, networks.images())
