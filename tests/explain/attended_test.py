"""Where the attentions of a model look, and where plain ones do."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import explain, models
from tests.explain import networks


def test_every_attention_of_a_model_has_a_map():
    size = (12, 16)
    slots = {
        "input": {"name": "spatial_transformer", "localisation": "dense"},
        "conv1": "cbam",
        "conv2": "pixel_attention",
    }
    model, variables = networks.network("cnn", size, slots=slots)
    images = networks.images(size)
    maps = networks.compiled(explain.attention_maps, model, variables, images)
    assert maps.keys() == {"input", "conv1", "conv2"}
    for found in maps.values():
        assert found.shape == (2, *size)
        np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)
    _, recorded = attn.capture(model, variables, images)
    gate = np.asarray(recorded["conv1/spatial_map"].values, np.float64)
    wanted = gate / gate.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(maps["conv1"], wanted, rtol=1e-4)
    mean = explain.mean_map(maps)
    np.testing.assert_allclose(
        mean, sum(np.asarray(m) for m in maps.values()) / 3, 1e-5
    )


def test_gates_of_channels_have_the_activation_of_the_class():
    """Where logits are linear in the mean of the map, alpha are the weights."""

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            gate = attn.modules.find("squeeze_excite")(reduction=1, name="gate")
            y = gate(x, train=train)
            return nn.Dense(4, name="classifier")(y.mean(axis=(1, 2)))

    model, images = Linear(), networks.images((4, 6), channels=3)
    variables = networks.disturbed(model, images)
    _, recorded = attn.capture(model, variables, images)
    gate = np.asarray(recorded["gate/channel_gate"].values, np.float64)
    target = np.asarray([2, 0])
    weights = np.asarray(variables["params"]["classifier"]["kernel"])[:, target].T
    seen = np.asarray(images, np.float64) * gate[:, None, None]
    wanted = np.maximum((seen * weights[:, None, None]).sum(axis=-1), 0)
    wanted /= wanted.sum(axis=(1, 2), keepdims=True)
    found = networks.compiled(
        explain.attention_maps, model, variables, images, jnp.asarray(target)
    )
    np.testing.assert_allclose(found["gate"], wanted, rtol=1e-4, atol=1e-6)


def test_class_activation_weighs_by_the_mean_gradient():
    rng = np.random.default_rng(0)
    features, slope = rng.normal(size=(2, 2, 4, 6, 5))
    wanted = np.maximum((features * slope.mean(axis=(1, 2))[:, None, None]).sum(-1), 0)
    wanted /= wanted.sum(axis=(1, 2), keepdims=True)
    found = explain.class_activation(jnp.asarray(features), jnp.asarray(slope), (4, 6))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_model_that_draws_in_evaluation_is_explained():
    class Noisy(nn.Module):
        streams = ("sample",)

        @nn.compact
        def __call__(self, x, *, train):
            x = x + jax.random.normal(self.make_rng("sample"), x.shape)
            return jnp.square(x).mean(axis=(1, 2))

    images = networks.images()
    first, second = (
        networks.compiled(explain.saliency, Noisy(), {}, images) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert explain.measure(Noisy(), {}, images) == {}


def test_matrices_of_channels_have_it_on_the_grid_of_their_tokens():
    size = (16, 24)
    model, variables = networks.network("xcit", size)
    maps = networks.compiled(
        explain.attention_maps, model, variables, networks.images(size)
    )
    assert maps.keys() == {
        f"{n}/mixer" for n in ("block0", "block1", "class0", "class1")
    }
    for found in maps.values():
        cells = np.asarray(found).reshape(2, 2, 8, 3, 8)
        np.testing.assert_allclose(np.ptp(cells, axis=(2, 4)), 0, atol=1e-7)
        assert np.ptp(cells) > 1e-5


def test_what_is_pooled_is_no_attention():
    size = (12, 16)
    settings = {"depth": 8, "layout": "cifar", "width": 4, "pooled_channels": 6}
    slots = {"stage2/block.residual": "second_order_channel"}
    images = networks.images(size)
    found = {}
    for name, filled in (("plain", {}), ("gated", slots)):
        model = models.create(
            "resnet", num_classes=4, slots=filled, pooling="covariance", **settings
        )
        variables = networks.disturbed(model, images)
        assert "covariance" in attn.capture(model, variables, images)[1]
        found[name] = networks.compiled(
            explain.attention_maps, model, variables, images
        )
    assert found["plain"] == {}
    assert found["gated"].keys() == {"stage2/block0/residual"}


def test_a_model_that_looks_nowhere_has_no_mean():
    model, variables = networks.network("cnn")
    assert (
        networks.compiled(explain.attention_maps, model, variables, networks.images())
        == {}
    )
    with pytest.raises(ValueError, match="take its saliency"):
        explain.mean_map({})


class Quadratic(nn.Module):
    """Logits whose gradients are known: k times the square of the first channel."""

    def __call__(self, x, *, train):
        square = (x[..., 0] ** 2).sum(axis=(1, 2))
        return jnp.stack([square, 3 * square - x[..., 1].sum(axis=(1, 2))], axis=-1)


def test_saliency_is_the_largest_gradient_of_the_channels():
    images = networks.images()
    found = explain.saliency(Quadratic(), {}, images, jnp.asarray([0, 1]))
    x = np.asarray(images, np.float64)
    first, second = 2 * np.abs(x[0, ..., 0]), np.maximum(6 * np.abs(x[1, ..., 0]), 1)
    wanted = np.stack([first / first.sum(), second / second.sum()])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_smoothed_saliency_comes_to_the_gradient_of_the_mean():
    images = networks.images()
    smooth = functools.partial(
        networks.compiled, explain.saliency, Quadratic(), {}, images
    )
    target = jnp.asarray([0, 0])
    plain, noisy = smooth(target), smooth(target, samples=1, noise=0.1)
    mean = smooth(target, samples=2000, noise=0.1)
    assert np.abs(plain - noisy).max() > 1e-3
    assert np.abs(plain - mean).max() < 1e-3


@pytest.mark.parametrize(("samples", "noise"), [(0, 0.1), (3, 0.0)])
def test_samples_need_noise(samples, noise):
    with pytest.raises(ValueError, match="samples must be 1"):
        explain.saliency(
            Quadratic(), {}, networks.images(), samples=samples, noise=noise
        )


def test_saliency_of_a_model_is_of_the_predicted_class():
    model, variables = networks.network("cnn")
    images = networks.images()
    predicted = jax.jit(lambda x: model.apply(variables, x, train=False))(
        images
    ).argmax(axis=-1)
    found = networks.compiled(explain.saliency, model, variables, images)
    given = networks.compiled(explain.saliency, model, variables, images, predicted)
    other = networks.compiled(
        explain.saliency, model, variables, images, (predicted + 1) % 5
    )
    np.testing.assert_array_equal(found, given)
    assert np.abs(found - other).max() > 1e-4
    with pytest.raises(ValueError, match=r"targets must be in 0\.\.4, got 5"):
        explain.saliency(model, variables, images, jnp.asarray([3, 5]))


def test_what_is_compiled_is_what_is_not():
    model, variables = networks.network("vit", depth=1)
    images = networks.images()
    for run in (explain.attention_maps, explain.rollout):
        plain = run(model, variables, images)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4),
            plain,
            networks.compiled(run, model, variables, images),
        )


def test_outputs_that_are_no_logits_need_a_function():
    class Image(nn.Module):
        def __call__(self, x, *, train):
            return {"image": x, "mean": x.mean(axis=(1, 2, 3))}

    images = networks.images()
    with pytest.raises(ValueError, match="the outputs are no logits"):
        explain.saliency(Image(), {}, images)
    found = explain.saliency(Image(), {}, images, lambda outputs: outputs["mean"])
    np.testing.assert_allclose(found, 1 / 96, rtol=1e-5)
