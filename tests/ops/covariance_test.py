"""Covariance and its square root against eigen-decompositions in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops

NORMS = ("trace", "frobenius")
ITERATIONS = (0, 1, 2, 3, 5, 8)


def random_covariance(rank=6, channels=6, scale=1.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, rank, channels)) * np.linspace(0.5, 2, channels)
    return scale * np.einsum("bpc,bpd->bcd", x, x)


def by_eigenvalues(a, function):
    values, vectors = np.linalg.eigh(a)
    return np.einsum("bce,be,bde->bcd", vectors, function(values), vectors)


def exact_root(a):
    return by_eigenvalues(a, lambda values: np.sqrt(np.maximum(values, 0)))


def size(a, norm):
    if norm == "trace":
        return np.trace(a, axis1=1, axis2=2)
    return np.sqrt(np.sum(a**2, axis=(1, 2)))


def iterated(a, iterations, norm):
    """The recursion of the paper, on each eigenvalue by itself."""
    n = size(a, norm)[:, None]

    def recursion(values):
        y, z = values / n, np.ones_like(values)
        for _ in range(iterations):
            y, z = y * (3 - z * y) / 2, (3 - z * y) * z / 2
        return np.sqrt(n) * y

    return by_eigenvalues(a, recursion)


def root(a, **options):
    return jax.jit(functools.partial(ops.newton_schulz_sqrt, **options))(a)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 15, 4), (3, 2, 2, 3, 5)])
def test_covariance_is_the_mean_of_the_products_of_deviations(shape):
    x = 3 + np.random.default_rng(0).normal(size=shape).astype(np.float32)
    got = jax.jit(ops.covariance_pool)(x)
    for b in range(shape[0]):
        points = x[b].reshape(-1, shape[-1]).astype(np.float64)
        want = np.cov(points, rowvar=False, bias=True)
        np.testing.assert_allclose(got[b], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("iterations", ITERATIONS)
def test_each_number_of_iterations_is_the_recursion_of_eigenvalues(norm, iterations):
    a = random_covariance()
    with jax.enable_x64(True):
        got = root(a, iterations=iterations, norm=norm)
        assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, iterated(a, iterations, norm), rtol=1e-9, atol=1e-9)
    in_float32 = root(a.astype(np.float32), iterations=iterations, norm=norm)
    np.testing.assert_allclose(in_float32, got, rtol=1e-4, atol=1e-4)


def test_iterations_bring_it_nearer_to_the_root_and_frobenius_sooner():
    a = random_covariance()
    want = exact_root(a)

    def error(iterations, norm):
        got = root(a.astype(np.float32), iterations=iterations, norm=norm)
        return np.linalg.norm(got - want) / np.linalg.norm(want)

    errors = {norm: [error(k, norm) for k in ITERATIONS] for norm in NORMS}
    for found in errors.values():
        assert np.all(np.diff(found) < 0)
    assert np.all(np.array(errors["frobenius"]) < np.array(errors["trace"]))
    assert error(20, "trace") < 1e-5
    assert error(20, "frobenius") < 1e-5


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_are_those_of_the_eigen_decomposition(norm):
    a, weight = random_covariance(), random_covariance(rank=3)
    with jax.enable_x64(True):

        def ours(a):
            y = ops.newton_schulz_sqrt(a, iterations=14, norm=norm)
            return jnp.sum(y * weight)

        def exact(a):
            values, vectors = jnp.linalg.eigh((a + jnp.swapaxes(a, 1, 2)) / 2)
            y = jnp.einsum("bce,be,bde->bcd", vectors, jnp.sqrt(values), vectors)
            return jnp.sum(y * weight)

        got, want = (np.asarray(jax.jit(jax.grad(f))(a)) for f in (ours, exact))
    got = (got + got.swapaxes(1, 2)) / 2  # eigh knows symmetric changes alone
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_gradients_through_the_covariance_are_finite_differences(norm, iterations):
    rng = np.random.default_rng(2)
    x, weight = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 5, 5))
    with jax.enable_x64(True):

        @jax.jit
        def loss(x):
            a = ops.covariance_pool(x)
            y = ops.newton_schulz_sqrt(a, iterations=iterations, norm=norm)
            return jnp.sum(y * weight)

        slope = np.asarray(jax.jit(jax.grad(loss))(x))
        for _ in range(3):
            step = rng.choice([-1.0, 1.0], x.shape) * 1e-5
            rise = (loss(x + step) - loss(x - step)) / 2
            np.testing.assert_allclose(rise, np.sum(slope * step), rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_awkward_features_have_finite_roots_and_gradients(norm, dtype):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1, 3, 4, 8))
    cases = {
        "zero": np.zeros_like(noise),
        "constant": np.broadcast_to(rng.normal(size=8), noise.shape),
        "one position": noise[:, :1, :1],
        "rank 2": noise[:, :1, :3],
        "equal channels": np.repeat(noise[..., :1], 8, axis=-1),
        "small": 1e-12 * noise,
        "large": 1e12 * noise,
    }

    @jax.jit
    def run(x):
        f = lambda x: ops.newton_schulz_sqrt(ops.covariance_pool(x), norm=norm)
        y, back = jax.vjp(f, x)
        return y, back(jnp.ones_like(y))[0]

    for what, x in cases.items():
        x = jnp.asarray(x, dtype)
        y, slope = run(x)
        assert (y.dtype, slope.dtype) == (jnp.float32, dtype)
        assert np.all(np.isfinite(y)), what
        assert np.all(np.isfinite(slope.astype(jnp.float32))), what
        if what in ("zero", "one position"):
            np.testing.assert_array_equal(y, 0)


def test_a_multiple_of_the_identity_has_the_root_of_the_multiple():
    a = np.array([0.25, 9.0])[:, None, None] * np.eye(4, dtype=np.float32)
    want = np.array([0.5, 3.0])[:, None, None] * np.eye(4)
    np.testing.assert_allclose(root(a, iterations=12), want, rtol=1e-5, atol=1e-6)


def test_the_triangle_holds_each_pair_once_row_by_row():
    a = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    want = [[m[i, j] for i in range(4) for j in range(i, 4)] for m in a]
    np.testing.assert_array_equal(ops.upper_triangle(jnp.asarray(a)), want)


def test_what_has_no_root_is_refused():
    with pytest.raises(ValueError, match=r"of matrices .*, got \(2, 3, 4\)"):
        ops.newton_schulz_sqrt(jnp.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        ops.newton_schulz_sqrt(jnp.eye(3), iterations=-1)
    with pytest.raises(ValueError, match="'trace' or 'frobenius', got 'max'"):
        ops.newton_schulz_sqrt(jnp.eye(3), norm="max")
    with pytest.raises(ValueError, match=r"over positions .*, got \(2, 3\)"):
        ops.covariance_pool(jnp.ones((2, 3)))
