"""Measures on maps whose values are known, and against NumPy in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from attn import explain

RNG = np.random.default_rng(0)
SHAPE = (3, 5, 7)


def box(top, left, height, width, shape=SHAPE):
    objects = np.zeros(shape, bool)
    objects[:, top : top + height, left : left + width] = True
    return objects


def point(row, column, shape=SHAPE):
    maps = np.zeros(shape)
    maps[:, row, column] = 2.5
    return maps


def test_the_share_inside_is_that_of_the_sum():
    maps, objects = RNG.uniform(size=SHAPE), RNG.uniform(size=SHAPE) < 0.3
    found = explain.share_inside(maps, objects)
    wanted = [(m * o).sum() / m.sum() for m, o in zip(maps, objects, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_an_even_map_has_the_share_of_the_area():
    found = explain.share_inside(np.ones(SHAPE), box(1, 2, 2, 3))
    np.testing.assert_allclose(found, 6 / 35, rtol=1e-6)


def test_a_point_is_inside_or_outside():
    objects = box(1, 2, 2, 3)
    np.testing.assert_array_equal(explain.share_inside(point(2, 4), objects), 1)
    np.testing.assert_array_equal(explain.share_inside(point(3, 4), objects), 0)


def test_an_image_without_an_object_has_no_share():
    objects = box(0, 0, 1, 1)
    objects[1] = False
    for measure in (explain.share_inside, explain.pointing_game):
        found = measure(np.ones(SHAPE), objects)
        np.testing.assert_array_equal(np.isnan(found), [False, True, False])


@pytest.mark.parametrize("objects", [np.ones(SHAPE), np.ones((3, 7, 5), bool)])
def test_objects_that_do_not_fit_are_refused(objects):
    with pytest.raises(ValueError, match="boolean masks of shape"):
        explain.share_inside(np.ones(SHAPE), objects)


@pytest.mark.parametrize(
    ("row", "column", "tolerance", "hit"),
    [
        (2, 4, 0, 1),
        (2, 5, 0, 0),
        (2, 5, 1, 1),
        (3, 5, 1, 0),  # diagonally beside it, 1.41 pixels away
        (3, 5, 1.5, 1),
        (2, 6, 1.9, 0),
        (0, 0, 2, 0),
        (0, 0, 2.3, 1),
    ],
)
def test_pointing_hits_within_the_tolerance(row, column, tolerance, hit):
    maps = RNG.uniform(size=SHAPE) + point(row, column)
    found = explain.pointing_game(maps, box(1, 2, 2, 3), tolerance=tolerance)
    np.testing.assert_array_equal(found, hit)


def test_points_that_are_equally_high_count_by_their_number():
    maps = point(1, 2) + point(4, 4) + point(0, 0)
    found = explain.pointing_game(maps, box(1, 2, 2, 3))
    np.testing.assert_allclose(found, 1 / 3, rtol=1e-6)
    even = explain.pointing_game(np.ones(SHAPE), box(1, 2, 2, 3))
    np.testing.assert_allclose(even, 6 / 35, rtol=1e-6)


def test_pointing_within_a_tolerance_is_by_distance():
    maps, objects = RNG.uniform(size=(20, 6, 9)), RNG.uniform(size=(20, 6, 9)) < 0.05
    objects[:, 3, 4] = True
    for tolerance in (1.0, 2.5, 4.0):
        found = explain.pointing_game(maps, objects, tolerance=tolerance)
        for hit, m, o in zip(found, maps, objects, strict=True):
            top = np.unravel_index(m.argmax(), m.shape)
            nearest = np.linalg.norm(np.argwhere(o) - top, axis=1).min()
            assert hit == (nearest <= tolerance)


def test_entropy_is_one_for_even_maps_and_zero_for_a_point():
    np.testing.assert_allclose(explain.entropy(np.ones(SHAPE)), 1, rtol=1e-6)
    np.testing.assert_allclose(explain.entropy(point(1, 1)), 0, atol=1e-6)
    np.testing.assert_array_equal(explain.entropy(np.ones((2, 1, 1))), 0)


def test_entropy_of_an_even_part_is_the_logarithm_of_its_size():
    found = explain.entropy(box(1, 2, 2, 3).astype(float))
    np.testing.assert_allclose(found, np.log(6) / np.log(35), rtol=1e-6)


def test_entropy_is_that_of_the_shares():
    maps = RNG.uniform(size=SHAPE)
    p = maps / maps.sum(axis=(1, 2), keepdims=True)
    wanted = -(p * np.log(p)).sum(axis=(1, 2)) / np.log(35)
    np.testing.assert_allclose(explain.entropy(maps), wanted, rtol=1e-5)


def test_tokens_that_read_themselves_read_nowhere_far():
    matrix = np.broadcast_to(np.eye(6), (2, 4, 6, 6))
    found = explain.mean_distance(matrix, (2, 3))
    np.testing.assert_array_equal(found, np.zeros((2, 4)))


def test_tokens_that_read_a_neighbour_read_as_far_as_the_patch_is_wide():
    matrix = np.zeros((1, 2, 6, 6))
    matrix[:, 0, range(6), [1, 2, 1, 4, 5, 4]] = 1  # left or right
    matrix[:, 1, range(6), [3, 4, 5, 0, 1, 2]] = 1  # up or down
    found = explain.mean_distance(matrix, (2, 3), spacing=(16.0, 8.0))
    np.testing.assert_allclose(found, [[8, 16]])


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_distances_are_weighted_and_leave_class_tokens_out(prefix):
    grid, spacing = (3, 4), (2.0, 5.0)
    matrix = RNG.uniform(size=(2, 3, 12 + prefix, 12 + prefix))
    found = explain.mean_distance(matrix, grid, spacing=spacing)
    wanted = np.zeros((2, 3))
    for target in range(12):
        rows = matrix[:, :, prefix + target, prefix:]
        for source in range(12):
            down = spacing[0] * (target // 4 - source // 4)
            right = spacing[1] * (target % 4 - source % 4)
            share = rows[..., source] / rows.sum(axis=-1)
            wanted += share * np.hypot(down, right) / 12
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_factors_have_the_distance_of_their_product():
    left, right = RNG.uniform(size=(2, 3, 12, 4)), RNG.uniform(size=(2, 3, 4, 12))
    found = explain.mean_distance((jnp.asarray(left), jnp.asarray(right)), (3, 4))
    wanted = explain.mean_distance(left @ right, (3, 4))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_distances_need_targets_that_are_the_sources():
    with pytest.raises(ValueError, match="1 targets and 6 sources"):
        explain.mean_distance(np.ones((1, 1, 1, 6)), (2, 3))


def test_distances_of_no_numbers_are_none():
    matrix = np.full((2, 1, 6, 6), 1 / 6, np.float32)
    matrix[1, 0, 2, 3] = np.nan
    found = np.asarray(explain.mean_distance(matrix, (2, 3)))
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
