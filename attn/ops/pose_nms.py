"""Parametric pose non-maximum suppression: which of several poses are the same person.

Fang, Xie, Tai, Lu, "RMPE: Regional Multi-Person Pose Estimation", ICCV 2017,
https://arxiv.org/abs/1612.00137, section 3.4, equations 8 to 11. The most confident
pose is a reference, those too similar to it are eliminated, and so on with the rest.

What the paper calls a distance d (equation 11) grows with similarity, but its equation
8 eliminates where d is at most the threshold, which would keep the copies and nobody
else. Here, as in the code that the authors published, a pose is eliminated where d is
large: from the threshold on.

The paper leaves open how confident a pose is, here and in that code the mean of its
joints, and the values of its parameters, which it fits to data. That code differs from
its equations: joints match within a pixel in place of a tenth of the box, the second
term falls with the distance and not with its square, and a pose also goes where five
joints lie near those of the reference. It then merges what was eliminated into the
reference; here nothing is merged.
"""

import jax
import jax.numpy as jnp

NEAR = 1 / 10  # sides of the box within which joints match, over those of the pose's


def pose_similarity(
    poses: jax.Array,
    scores: jax.Array,
    sizes: jax.Array,
    *,
    sigma1: float,
    sigma2: float,
    weight: float,
) -> jax.Array:
    """How similar each pose i is to each pose j, the paper's d: float32 [N, N].

    The sum over joints of tanh(c_i / sigma1) tanh(c_j / sigma1), where the joint of j
    lies within the box B about that of i, and of weight exp(-|k_i - k_j|^2 / sigma2).
    B has a tenth of the sides of the box of pose i. It is at most J (1 + weight).

    Args:
        poses: k, the joints (x, y), [N, J, 2].
        scores: c, the confidence of each, [N, J].
        sizes: width and height of the box of each pose, [N, 2].
        sigma1: of confidences.
        sigma2: of squared distances, in the unit of `poses` squared.
        weight: the paper's lambda.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(poses, scores, sizes)
    poses, scores, sizes = (a.astype(jnp.float32) for a in (poses, scores, sizes))
    apart = poses[:, None] - poses[None]
    near = jnp.all(jnp.abs(apart) <= NEAR / 2 * sizes[:, None, None], axis=-1)
    sure = jnp.tanh(scores / sigma1)
    matching = jnp.where(near, sure[:, None] * sure[None], 0)
    close = jnp.exp(-jnp.sum(apart**2, axis=-1) / sigma2)
    return jnp.sum(matching + weight * close, axis=-1)


def pose_nms(
    poses: jax.Array,
    scores: jax.Array,
    sizes: jax.Array,
    *,
    sigma1: float,
    sigma2: float,
    weight: float,
    threshold: float,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Which poses stay, bool [N]; see the head of this file.

    Args:
        poses, scores, sizes, sigma1, sigma2, weight: see `pose_similarity`.
        threshold: the paper's eta: from which similarity on to a reference a pose is
            eliminated.
        valid: bool [N], False for what fills up N; it does not stay. None has none.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(poses, scores, sizes)
    count = len(poses)
    left = jnp.ones(count, bool) if valid is None else valid.astype(bool)
    if not count:
        return left
    parameters = {"sigma1": sigma1, "sigma2": sigma2, "weight": weight}
    similarity = pose_similarity(poses, scores, sizes, **parameters)
    redundant = similarity >= threshold
    order = jnp.argsort(-scores.astype(jnp.float32).mean(axis=-1), stable=True)
    rank = jnp.argsort(order)

    def eliminate(left, reference):
        # Not references before it: that they are unlike it need not hold both ways.
        gone = redundant[:, reference] & (rank > rank[reference])
        return left & ~(gone & left[reference]), None

    # In this order one that is left when it is its turn is the most confident one.
    return jax.lax.scan(eliminate, left, order)[0]


def _check(poses: jax.Array, scores: jax.Array, sizes: jax.Array) -> None:
    if poses.ndim != 3 or poses.shape[-1] != 2:
        raise ValueError(f"poses are [N, J, 2], got {list(poses.shape)}")
    if scores.shape != poses.shape[:2] or sizes.shape != (len(poses), 2):
        raise ValueError(
            f"scores are [N, J] and sizes [N, 2] of poses {list(poses.shape)}, got"
            f" {list(scores.shape)} and {list(sizes.shape)}"
        )
