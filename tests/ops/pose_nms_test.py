"""Pose NMS against plain loops in NumPy, on random poses, on copies and on none."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops

PARAMETERS = {"sigma1": 0.4, "sigma2": 9.0, "weight": 1.7}


def crowd(seed, people=4, copies=3, joints=5):
    """Poses of people, some near each other, of unlike confidence, in random order."""
    rng = np.random.default_rng(seed)
    whole = rng.uniform(0, 60, (people, 1, joints, 2))
    poses = whole + rng.normal(scale=1.5, size=(people, copies, joints, 2))
    poses = rng.permutation(poses.reshape(-1, joints, 2))
    sizes = rng.uniform(20, 60, (len(poses), 2))
    return poses, rng.uniform(0.05, 1, poses.shape[:2]), sizes


def similarity(one, other, sigma1, sigma2, weight):
    """Equations 9 to 11, joint by joint."""
    (k, c, (width, height)), (k_, c_, _) = one, other
    total = 0
    for n in range(len(k)):
        dx, dy = k[n] - k_[n]
        if abs(dx) <= width / 20 and abs(dy) <= height / 20:
            total += math.tanh(c[n] / sigma1) * math.tanh(c_[n] / sigma1)
        total += weight * math.exp(-(dx * dx + dy * dy) / sigma2)
    return total


def survivors(poses, scores, sizes, threshold):
    """The references, one after the other."""
    people = list(zip(poses, scores, sizes, strict=True))
    left, kept = set(range(len(people))), set()
    while left:
        best = max(left, key=lambda i: (scores[i].mean(), -i))
        kept.add(best)
        left = {
            i
            for i in left - {best}
            if similarity(people[i], people[best], **PARAMETERS) < threshold
        }
    return [i in kept for i in range(len(people))]


@functools.cache
def nms(threshold):
    return jax.jit(functools.partial(ops.pose_nms, **PARAMETERS, threshold=threshold))


def test_similarities_are_those_of_the_equations():
    people = crowd(0)
    each = list(zip(*people, strict=True))
    want = [[similarity(a, b, **PARAMETERS) for b in each] for a in each]
    found = jax.jit(functools.partial(ops.pose_similarity, **PARAMETERS))(*people)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    assert np.abs(np.subtract(want, np.transpose(want))).max() > 0.1  # box of i, not j


@pytest.mark.parametrize("threshold", [2.0, 5.0])
def test_keeps_what_a_plain_loop_keeps(threshold):
    found = []
    for seed in range(20):
        people = crowd(seed)
        kept = np.asarray(nms(threshold)(*people))
        np.testing.assert_array_equal(kept, survivors(*people, threshold))
        found.append(kept.sum())
    assert 20 * 4 <= sum(found) < 20 * 12  # some go, but none of the four persons


def test_of_copies_the_most_confident_stays():
    poses, scores, sizes = crowd(0, people=1, copies=1)
    poses, sizes = np.repeat(poses, 4, axis=0), np.repeat(sizes, 4, axis=0)
    scores = np.repeat(scores, 4, axis=0) * [[0.5], [0.9], [1.0], [0.9]]
    assert list(nms(5.0)(poses, scores, sizes)) == [False, False, True, False]
    equal = np.repeat(scores[:1], 4, axis=0)
    assert list(nms(5.0)(poses, equal, sizes)) == [True, False, False, False]


def test_what_was_eliminated_eliminates_nothing():
    """A is like B and B like C, but A not like C: C stays."""
    line = np.zeros((3, 5, 2))
    line[:, :, 0] = [[0], [2], [4]]
    sizes, scores = np.full((3, 2), 1.0), np.repeat([[0.9], [0.8], [0.7]], 5, axis=1)
    near, far = (1.7 * 5 * math.exp(-d * d / 9) for d in (2, 4))
    threshold = (near + far) / 2
    assert list(nms(threshold)(line, scores, sizes)) == [True, False, True]


def test_what_fills_up_neither_stays_nor_eliminates():
    people = crowd(3)
    valid = np.arange(12) % 3 > 0
    found = nms(2.0)(*people, valid=valid)
    assert not found[~valid].any()
    want = survivors(*(a[valid] for a in people), 2.0)
    np.testing.assert_array_equal(found[valid], want)
    assert not nms(2.0)(*people, valid=np.zeros(12, bool)).any()


def test_no_pose():
    none = np.zeros((0, 5, 2)), np.zeros((0, 5)), np.zeros((0, 2))
    assert nms(2.0)(*none).shape == (0,)


def test_other_shapes_are_refused():
    poses, scores, sizes = map(jnp.asarray, crowd(0))
    for wrong in ((poses[..., 0], scores, sizes), (poses, scores[:, :2], sizes)):
        with pytest.raises(ValueError, match="are \\[N, J"):
            ops.pose_nms(*wrong, **PARAMETERS, threshold=1.0)
