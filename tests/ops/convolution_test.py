"""Convolution by any program agrees with XLA's, and the rule takes what it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from attn import ops
from attn.models import cost
from attn.modules.convolution import Conv
from attn.ops import banded, convolution

CASES = [
    ((3, 11, 8, 2), (7, 5), (1, 1), [(3, 3), (2, 2)], 1),
    ((2, 9, 12, 1), (5, 2), (3, 2), [(2, 0), (1, 3)], 4),
    ((3, 11, 8, 3), (3, 5), (2, 3), [(0, 0), (0, 0)], 2),
]


@pytest.mark.parametrize(("shape", "sides", "strides", "padding", "filters"), CASES)
def test_a_banded_product_is_the_convolution(shape, sides, strides, padding, filters):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (*sides, shape[-1], filters))

    @jax.jit
    def both(x, kernel):
        direct = functools.partial(
            jax.lax.conv_general_dilated, dimension_numbers=convolution.DIMENSIONS
        )
        made = []
        for conv in (direct, banded.conv_general_dilated):
            y, back = jax.vjp(lambda *a, f=conv: f(*a, strides, padding), x, kernel)
            made.append((y, *back(jnp.cos(jnp.arange(y.size)).reshape(y.shape))))
        return made

    for expected, got in zip(*both(x, kernel), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


RULE = [
    ((2, 32, 32, 2), (7, 7, 2, 1), (1, 1), "banded"),
    ((2, 32, 64, 2), (7, 7, 2, 1), (1, 1), "xla"),
    ((2, 28, 28, 1), (9, 9, 1, 32), (1, 1), "banded"),
    ((2, 10, 10, 32), (7, 7, 32, 64), (1, 1), "im2col"),
    ((2, 10, 10, 32), (7, 7, 32, 64), (2, 2), "xla"),
    ((2, 30, 30, 32), (5, 5, 32, 64), (1, 1), "xla"),
    ((2, 28, 28, 2), (3, 3, 2, 1), (1, 1), "xla"),
    ((2, 18, 18, 15), (3, 3, 15, 16), (1, 1), "padded"),
    ((2, 18, 18, 16), (3, 3, 16, 31), (2, 2), "padded"),
    ((2, 18, 18, 16), (3, 3, 16, 32), (1, 1), "xla"),
    ((2, 18, 18, 15), (1, 1, 15, 31), (1, 1), "xla"),
    ((2, 18, 18, 3), (3, 3, 3, 31), (1, 1), "xla"),
]


@pytest.mark.parametrize(("shape", "kernel", "strides", "name"), RULE)
def test_the_rule_goes_by_shape_and_platform(monkeypatch, shape, kernel, strides, name):
    assert convolution.program(shape, kernel, strides) == name
    with ops.plain():
        assert convolution.program(shape, kernel, strides) == "xla"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert convolution.program(shape, kernel, strides) == "xla"


@pytest.mark.parametrize("padding", ["SAME", ((1, 0), (0, 2))])
def test_channels_of_zeros_change_nothing(padding):
    x = jax.random.normal(jax.random.key(0), (2, 9, 7, 13))
    kernel = jax.random.normal(jax.random.key(1), (3, 2, 13, 18))
    assert convolution.program(x.shape, kernel.shape, (2, 1)) == "padded"

    def gradients(x, kernel):
        y = convolution.conv_general_dilated(x, kernel, (2, 1), padding)
        return (jnp.sin(y)).sum(), y

    both = jax.value_and_grad(gradients, (0, 1), has_aux=True)
    got = jax.jit(both)(x, kernel)
    with ops.plain():
        want = jax.jit(both)(x, kernel)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 4])
def test_a_layer_of_any_program_is_flaxs_and_counts_the_same(channels):
    layer, x = Conv(3, (5, 5)), jnp.cos(jnp.arange(2.0 * 63 * channels))
    x = x.reshape(2, 9, 7, channels)
    variables = layer.init(jax.random.key(0), x)
    with ops.plain():
        want = jax.jit(layer.apply)(variables, x)
        macs = cost.macs(layer.apply, variables, x)
    np.testing.assert_allclose(
        jax.jit(layer.apply)(variables, x), want, rtol=1e-5, atol=1e-5
    )
    assert "fused_convolution" in str(jax.make_jaxpr(layer.apply)(variables, x))
    assert cost.macs(layer.apply, variables, x) == macs == 2 * 63 * 75 * channels


def test_groups_and_dilations_are_xlas():
    x = jnp.cos(jnp.arange(2.0 * 63 * 4)).reshape(2, 9, 7, 4)
    for settings in ({"feature_group_count": 2}, {"kernel_dilation": 2}):
        layer = Conv(4, (5, 5), **settings)
        run = functools.partial(layer.apply, layer.init(jax.random.key(0), x))
        assert "fused_convolution" not in str(jax.make_jaxpr(run)(x))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_pooling_is_the_same_everywhere(monkeypatch, platform):
    x = jnp.cos(7 * jnp.arange(2.0 * 5 * 6 * 3)).reshape(2, 5, 6, 3) - 2
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    y = convolution.max_pool(x)
    assert y.shape == (2, 3, 3, 3)
    for row, column in np.ndindex(3, 3):
        window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(y[:, row, column], window.max((1, 2)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pooling_has_one_gradient_everywhere(monkeypatch, dtype):
    x = jnp.round(2 * jnp.cos(7 * jnp.arange(2.0 * 5 * 6 * 3))).reshape(2, 5, 6, 3)
    of = jax.grad(lambda x: jnp.sum(jnp.cos(convolution.max_pool(x))))
    want = jax.jit(of)(x.astype(dtype))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    got = jax.jit(lambda x: of(x))(x.astype(dtype))
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_map_without_room_for_the_kernel_becomes_an_empty_one(channels):
    x, kernel = jnp.ones((2, 3, 9, channels)), jnp.ones((5, 5, channels, 2))
    y = convolution.conv_general_dilated(x, kernel, (1, 1), "VALID")
    assert y.shape == (2, 0, 5, 2)


@pytest.mark.parametrize("channels", [2, 8])
def test_gradients_differ_between_devices_as_what_they_are_of(channels):
    x = jax.random.normal(jax.random.key(0), (8, 9, 10, channels))
    kernel = jax.random.normal(jax.random.key(1), (7, 7, channels, 3))

    def loss(kernel, x):
        y = convolution.conv_general_dilated(x, kernel, (1, 1), "SAME")
        return jnp.sum(jnp.sin(y))

    of_both = jax.grad(loss, argnums=(0, 1))
    mesh = Mesh(jax.devices(), ("data",))
    whole, part = PartitionSpec(), PartitionSpec("data")
    specs = {"in_specs": (whole, part), "out_specs": (whole, part)}
    got = jax.jit(jax.shard_map(of_both, mesh=mesh, **specs))(kernel, x)
    for ours, expected in zip(got, of_both(kernel, x), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
