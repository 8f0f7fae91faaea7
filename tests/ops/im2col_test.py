"""Convolution and pooling by slices agree with XLA's own, gradients included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import im2col

CASES = [
    ((3, 11, 8, 5), (4, 3), (1, 1), "VALID"),
    ((3, 11, 8, 5), (3, 5), (2, 3), "SAME"),
    ((2, 9, 12, 3), (5, 2), (3, 2), [(2, 0), (1, 3)]),
    ((2, 9, 12, 1), (5, 2), (3, 2), [(2, 0), (1, 3)]),
]


@pytest.mark.parametrize(("shape", "sides", "strides", "padding"), CASES)
def test_convolution_agrees_with_xla(shape, sides, strides, padding):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (*sides, shape[-1], 7))
    direct = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    ours = lambda x, kernel: im2col.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

    @jax.jit
    def both(x, kernel, weight):
        made = []
        for conv in (direct, ours):
            y, back = jax.vjp(conv, x, kernel)
            made.append((y, *back(weight)))
        return made

    weight = jax.random.normal(
        jax.random.key(2), jax.eval_shape(direct, x, kernel).shape
    )
    for expected, got in zip(*both(x, kernel, weight), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_it_takes_the_place_of_xlas_in_a_flax_layer():
    x = jax.random.normal(jax.random.key(0), (2, 9, 6, 3))
    layers = [
        nn.Conv(4, (5, 3), 2, **given)
        for given in ({}, {"conv_general_dilated": im2col.conv_general_dilated})
    ]
    variables = layers[0].init(jax.random.key(1), x)
    expected, got = (jax.jit(layer.apply)(variables, x) for layer in layers)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_groups_are_refused():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
    with pytest.raises(ValueError, match="feature_group_count 1, got 2"):
        im2col.conv_general_dilated(x, kernel, (1, 1), "SAME", feature_group_count=2)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_pooling_hands_on_what_is_no_number(place):
    x = jnp.arange(4.0).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
    assert np.isnan(im2col.max_pool(x)).all()


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (1, 5)])
@pytest.mark.parametrize("step", [None, 1.0])  # of numbers, so that many are equal
def test_pooling_agrees_with_flax(size, step):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3)) - 5.0
    x = x if step is None else step * jnp.round(x / step)
    pad = tuple((0, side % 2) for side in size)

    @jax.jit
    def both(x, weight):
        made = []
        for pool in (lambda x: nn.max_pool(x, (2, 2), (2, 2), pad), im2col.max_pool):
            y, back = jax.vjp(pool, x)
            made.append((y, *back(weight[:, : y.shape[1], : y.shape[2]])))
        return made

    weight = jax.random.normal(jax.random.key(1), x.shape)
    for expected, got in zip(*both(x, weight), strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got, expected, rtol=1e-6)
