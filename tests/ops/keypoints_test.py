"""Keypoints against loops in float64 NumPy, and OKS against pycocotools."""

import functools

import jax
import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from attn.ops import keypoints

IMAGE, MAP = (44, 56), (11, 28)  # strides of 4 and 2
JOINTS = 5
SIGMAS = (0.026, 0.079, 0.107, 0.062, 0.087)


@functools.partial(jax.jit, static_argnums=1)
def drawn(points, sigma):
    return keypoints.gaussian_heatmaps(points, MAP, IMAGE, sigma=sigma)


@jax.jit
def read(maps):
    return keypoints.decode_heatmaps(maps, IMAGE)


def joints(count, seed=0, low=0.0, high=1.0):
    """Points [count, J, 2] inside of the image, or around it."""
    places = np.random.default_rng(seed).uniform(low, high, (count, JOINTS, 2))
    return (places * IMAGE[::-1]).astype(np.float32)


def test_heatmaps_are_gaussians_around_the_joints():
    points = joints(3, low=-0.2, high=1.2)
    found = drawn(points, 1.7)
    expected = np.zeros((3, *MAP, JOINTS))
    for b, row, column, j in np.ndindex(expected.shape):
        x, y = points[b, j].astype(np.float64)
        # centres of the pixels of the map, in pixels of the image: strides of 4 and 2
        dy, dx = (row + 0.5) - y / 4, (column + 0.5) - x / 2
        expected[b, row, column, j] = np.exp(-(dx**2 + dy**2) / (2 * 1.7**2))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_joint_in_the_middle_of_a_pixel_of_the_map_is_found_exactly():
    # pixel (row 3, column 9) of the map is rows 12..16 and columns 18..20
    points = np.full((1, JOINTS, 2), (19.0, 14.0), np.float32)
    maps = drawn(points, 1.0)
    assert np.unravel_index(np.argmax(maps[0, ..., 0]), MAP) == (3, 9)
    found, scores = read(maps)
    np.testing.assert_allclose(found, points, atol=1e-5)
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_joints_are_found_within_a_quarter_of_a_pixel_of_the_map():
    points = joints(200, low=0.12, high=0.88)
    maps = drawn(points, 1.5)
    found, _ = read(maps)
    error = np.abs(found - points) / (2, 4)  # strides
    assert error.max() <= 0.25 + 1e-3
    assert (error.max(axis=(0, 1)) > 0.2).all()
    assert np.abs((found - points).mean(axis=(0, 1))).max() < 0.1  # no bias


def decoded(image_map):
    """One joint of one map [h, w], by hand."""
    height, width = image_map.shape
    row, column = np.unravel_index(np.argmax(image_map), image_map.shape)
    y, x = row + 0.5, column + 0.5
    if 0 < column < width - 1:
        x += 0.25 * np.sign(
            float(image_map[row, column + 1]) - float(image_map[row, column - 1])
        )
    if 0 < row < height - 1:
        y += 0.25 * np.sign(
            float(image_map[row + 1, column]) - float(image_map[row - 1, column])
        )
    return (x * 2, y * 4), image_map[row, column]


def test_any_map_is_read_at_its_maximum_a_quarter_toward_the_higher_neighbour():
    rng = np.random.default_rng(1)
    # few values, so that there are ties of maxima and of neighbours
    maps = rng.integers(0, 4, (40, *MAP, JOINTS)).astype(np.float32)
    maps[:20] = rng.normal(size=maps[:20].shape)
    maps[::2, 5:, :20] -= 9  # more of the maxima at an edge
    found, scores = read(maps)
    for b, j in np.ndindex(len(maps), JOINTS):
        point, score = decoded(maps[b, ..., j])
        np.testing.assert_allclose(found[b, j], point, atol=1e-5)
        assert scores[b, j] == score


def test_more_axes_in_front_are_as_many_examples():
    points = joints(6).reshape(2, 3, JOINTS, 2)
    maps = drawn(points, 2.0)
    one = drawn(points[1, 2], 2.0)
    np.testing.assert_allclose(maps[1, 2], one, atol=1e-6)
    found = read(maps)
    for many, single in zip(found, read(one), strict=True):
        np.testing.assert_allclose(many[1, 2], single, atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_joint_is_right_up_to_a_share_of_the_head(share):
    truth = joints(2)
    head = np.array([5.0, 12.0], np.float32)
    turn = np.random.default_rng(2).uniform(0, 2 * np.pi, (2, JOINTS))
    away = share * head[:, None] * np.array([0, 0.5, 0.98, 1.02, 3])
    points = truth + away[..., None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    check = jax.jit(lambda *a: keypoints.correct_keypoints(*a, share=share))
    found = check(points.astype(np.float32), truth, head)
    assert found.tolist() == 2 * [[True, True, True, False, False]]
    edge = check(np.full((1, 1, 2), 4.0 * share), np.full((1, 1, 2), 0.0), np.ones(1))
    assert not edge.any()
    straight = np.array([[[8.0 * share, 0.0]]])
    assert check(straight, np.zeros((1, 1, 2)), np.full(1, 8.0)).all()  # at most


def similarity_of_coco(points, truth, visible, area):
    """By pycocotools, one person found in an image of one person."""
    evaluation = COCOeval(iouType="keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
    flags = 2 * visible.astype(float)
    object_ = {
        "keypoints": np.c_[truth, flags].ravel().tolist(),
        "bbox": [3.0, 2.0, 30.0, 20.0],
        "area": float(area),
    }
    person = {"keypoints": np.c_[points, flags].ravel().tolist(), "score": 1.0}
    evaluation._gts[0, 1], evaluation._dts[0, 1] = [object_], [person]
    return evaluation.computeOks(0, 1).item()


def test_similarity_is_that_of_pycocotools():
    rng = np.random.default_rng(3)
    truth = joints(12)
    points = (truth + rng.normal(0, 3, truth.shape)).astype(np.float32)
    visible = rng.uniform(size=truth.shape[:2]) < 0.6
    visible[:, 0] = True
    area = rng.uniform(100, 900, 12).astype(np.float32)
    measure = jax.jit(lambda *a: keypoints.keypoint_similarity(*a, sigmas=SIGMAS))
    found = measure(points, truth, visible, area)
    expected = [
        similarity_of_coco(*one)
        for one in zip(points, truth, visible, area, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert 0.1 < np.min(expected) < np.max(expected) < 0.9
    np.testing.assert_allclose(measure(truth, truth, visible, area), 1, atol=1e-6)
    assert not measure(points, truth, np.zeros_like(visible), area).any()


def test_similarity_of_whole_numbers_is_that_of_numbers():
    truth = np.array([[10, 20], [30, 40]])
    visible, area = np.ones(2, bool), np.float32(900)
    both = (
        keypoints.keypoint_similarity(
            (truth + 1).astype(dtype), truth, visible, area, sigmas=SIGMAS[:2]
        )
        for dtype in (np.int32, np.float32)
    )
    whole, number = both
    assert 0.1 < number < 0.99
    np.testing.assert_allclose(whole, number, rtol=1e-6)
