"""Boxes against loops in float64, and gradients where boxes have no area."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import boxes


def random_boxes(shape, seed=0, side=10.0):
    """Boxes of differing places and forms: float32 [*shape, 4]."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, side, (*shape, 2))
    return np.concatenate([first, first + rng.uniform(0, side, (*shape, 2))], -1)


def oracle(a, b):
    """IoU and GIoU of two boxes by the paper's algorithm 1, one number at a time."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    common = wide * high if wide > 0 and high > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return common / union, common / union - (hull - union) / hull


@pytest.mark.parametrize("which", [0, 1])
def test_pairwise_overlap_is_that_of_the_formula(which):
    function = (boxes.pairwise_iou, boxes.pairwise_giou)[which]
    a, b = random_boxes((2, 7)), random_boxes((2, 5), seed=1)
    b[0, 3] = a[0, 2]  # the same box
    b[1, 0] = [30, 40, 31, 42]  # far from all
    found = jax.jit(function)(a, b)
    pairs = zip(a, b, strict=True)
    expected = [[[oracle(x, y)[which] for y in v] for x in u] for u, v in pairs]
    assert found.shape == (2, 7, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0, 2, 3], 1, rtol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_elementwise_overlap_is_the_diagonal_of_the_pairwise_one(which):
    pairwise = (boxes.pairwise_iou, boxes.pairwise_giou)[which]
    elementwise = (boxes.iou, boxes.giou)[which]
    a, b = random_boxes((6,)), random_boxes((6,), seed=1)
    expected = jnp.diagonal(jax.jit(pairwise)(a, b))
    np.testing.assert_allclose(jax.jit(elementwise)(a, b), expected, rtol=1e-6)


def test_conversions_are_inverse_and_areas_are_products_of_sides():
    some = random_boxes((3, 4))
    centred = boxes.centred(some)
    np.testing.assert_allclose(centred[..., 0], (some[..., 0] + some[..., 2]) / 2)
    np.testing.assert_allclose(centred[..., 3], some[..., 3] - some[..., 1], rtol=1e-6)
    np.testing.assert_allclose(boxes.corners(centred), some, rtol=1e-5)
    expected = (some[..., 2] - some[..., 0]) * (some[..., 3] - some[..., 1])
    np.testing.assert_allclose(boxes.area(some), expected, rtol=1e-5)


POINT, TINY, LINE = [3, 2, 3, 2], [3, 2, 3 + 1e-15, 2], [1, 2, 5, 2]
SPECK, TURNED = [1e-12, 1e-12, 2e-12, 3e-12], [4, 5, 2, 1]
SQUARE, APART = [1, 1, 4, 4], [7, 8, 9, 9]
DEGENERATE = [POINT, TINY, LINE, SPECK, TURNED, [0] * 4, SQUARE, APART]


@pytest.mark.parametrize("function", [boxes.pairwise_iou, boxes.pairwise_giou])
def test_values_and_gradients_of_boxes_without_area_are_finite(function):
    some = jnp.asarray(DEGENERATE, jnp.float32)
    value, gradient = jax.jit(
        lambda a, b: (function(a, b), jax.grad(lambda a: function(a, b).sum())(a))
    )(some, some)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    assert np.abs(value).max() <= 1
    np.testing.assert_array_equal(value[:6, :6].diagonal(), 0)


def test_giou_draws_boxes_together_that_lie_apart_and_iou_does_not():
    one, other = jnp.asarray(SQUARE, jnp.float32), jnp.asarray(APART, jnp.float32)
    assert boxes.giou(one, other) < boxes.iou(one, other) == 0
    pull = jax.grad(boxes.giou)(one, other)
    assert (pull[2:] > 0).all()
    assert not jax.grad(boxes.iou)(one, other).any()


def test_a_turned_box_meets_nothing():
    assert boxes.area(jnp.asarray(TURNED)) == 0
    assert boxes.iou(jnp.asarray(TURNED), jnp.asarray(SQUARE)) == 0


def test_half_precision_is_computed_in_float32():
    some = jnp.asarray(random_boxes((4,), side=300), jnp.bfloat16)
    found = boxes.iou(some, some)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, 1)
    assert boxes.area(some).dtype == jnp.float32
