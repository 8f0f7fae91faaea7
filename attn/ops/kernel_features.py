"""Positive features phi of queries and keys, whose products stand for exp(q . k).

All functions return log phi, so that `attn.ops.linear_attention` can use them at any
magnitude. `elu_features`: Katharopoulos et al., "Transformers are RNNs: Fast
Autoregressive Transformers with Linear Attention", ICML 2020,
https://arxiv.org/abs/2006.16236, equation 7. The others: Choromanski et al.,
"Rethinking Attention with Performers", ICLR 2021, https://arxiv.org/abs/2009.14794,
lemma 1 and section 2.4.

Letters used in shapes:
    B batch, T tokens, N heads, D channels of one head, M random features.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

# What the released code of the Performer adds to its relu features.
RELU_FLOOR = 1e-3


def elu_features(x: jax.Array) -> jax.Array:
    """log(elu(x) + 1), float32: x below 0 and log(1 + x) above."""
    x = x.astype(jnp.float32)
    return jnp.where(x < 0, x, jnp.log1p(jnp.where(x < 0, 0, x)))


def softmax_features(x: jax.Array, projection: jax.Array) -> jax.Array:
    """Log of the positive random features of the softmax kernel (FAVOR+).

    phi(x) = exp(W x' - |x'|^2 / 2) / sqrt(M) with x' = x / D^(1/4), so that the mean
    of phi(q) . phi(k) over projections is exp(q . k / sqrt(D)).

    Args:
        x: queries or keys [B, T, N, D].
        projection: W, [M, D], whose rows are normal; see `random_projection`.

    Returns:
        [B, T, N, M], float32.
    """
    x = x.astype(jnp.float32) * x.shape[-1] ** -0.25
    half = jnp.sum(jnp.square(x), axis=-1, keepdims=True) / 2
    return _project(x, projection) - half - math.log(len(projection)) / 2


def relu_features(x: jax.Array, projection: jax.Array) -> jax.Array:
    """log((relu(W x) + 0.001) / sqrt(M)), the paper's "generalized attention".

    Arguments and result as in `softmax_features`. It estimates no exponential.
    """
    projected = _project(x.astype(jnp.float32), projection)
    return jnp.log(jax.nn.relu(projected) + RELU_FLOOR) - math.log(len(projection)) / 2


def _project(x: jax.Array, projection: jax.Array) -> jax.Array:
    # An exponential follows, to which half precision would be a factor.
    return jnp.einsum(
        "btnd,md->btnm",
        x,
        jnp.asarray(projection, jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )


def random_projection(
    features: int, dim: int, *, seed: int, orthogonal: bool = True
) -> np.ndarray:
    """A matrix [M, D] of normal rows, in blocks of D orthogonal ones.

    Each row by itself is normal with covariance 1, so that estimates stay unbiased;
    that rows of a block are orthogonal lowers their variance (theorem 2 of the paper).
    It is made with NumPy when a program is traced, from raw bits that no version of
    NumPy changes, so that a checkpoint needs to hold the seed only.

    Args:
        features: M.
        dim: D.
        seed: at least 0; equal seeds give equal matrices.
        orthogonal: False draws all rows independently.

    Returns:
        float32.
    """
    blocks = -(-features // dim)
    normal = _normal((blocks, dim, dim), (seed, 0))
    if not orthogonal:
        return normal.reshape(-1, dim)[:features].astype(np.float32)
    q, r = np.linalg.qr(normal)
    # Without the signs of R the rotation would not be uniform.
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    lengths = np.linalg.norm(_normal((blocks * dim, dim), (seed, 1)), axis=1)
    rows = q.transpose(0, 2, 1).reshape(blocks * dim, dim) * lengths[:, None]
    return rows[:features].astype(np.float32)


def _normal(shape: tuple[int, ...], seed: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers by the method of Box and Muller, float64."""
    bits = np.random.PCG64(seed).random_raw((2, math.prod(shape)))
    radius, angle = (bits >> np.uint64(11)) * 2.0**-53
    normal = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return normal.reshape(shape)
