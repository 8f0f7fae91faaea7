"""Ring attention on eight devices against the whole sequence on one, in float64 NumPy.

The oracle's gradients are those of the formula, written out.
"""

import functools

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from attn.ops.ring import ring_attention

DEVICES, B, N, K, D, DV = 8, 2, 4, 2, 5, 3
CASES = {
    "all": {},
    "causal": {"is_causal": True},
    "window": {"window": 9},
    "narrow": {"window": (2, 0)},
    "ahead": {"window": (0, 17)},
    "causal_window": {"window": 20, "is_causal": True},
    "left": {"window": (11, None), "scale": 0.3},
}


def inputs(targets, sources, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(B, DEVICES * targets, N, D))
    k = rng.normal(size=(B, DEVICES * sources, K, D))
    v = rng.normal(size=(B, DEVICES * sources, K, DV))
    return tuple(x.astype(np.float32) for x in (q, k, v))


def seen(targets, sources, is_causal=False, window=None, **_):
    distance = np.arange(targets)[:, None] - np.arange(sources)
    left, right = window if isinstance(window, tuple) else (window, window)
    mask = np.ones_like(distance, bool)
    if left is not None:
        mask &= distance <= left
    if right is not None:
        mask &= -distance <= right
    return mask & (distance >= 0) if is_causal else mask


def oracle(q, k, v, dy, scale=None, **case):
    """What is read, and the gradients by q, k and v of the sum of y dy."""
    q, k, v, dy = (np.asarray(x, np.float64) for x in (q, k, v, dy))
    scale, mask = scale or D**-0.5, seen(q.shape[1], k.shape[1], **case)
    y, dq, dk, dv = (np.zeros(x.shape) for x in (dy, q, k, v))
    for b, n in np.ndindex(B, N):
        m = n // (N // K)
        e = np.exp(scale * q[b, :, n] @ k[b, :, m].T) * mask
        p = e / np.maximum(e.sum(1, keepdims=True), 1e-300)
        y[b, :, n] = p @ v[b, :, m]
        dp = dy[b, :, n] @ v[b, :, m].T
        ds = scale * p * (dp - (p * dp).sum(1, keepdims=True))
        dq[b, :, n] = ds @ k[b, :, m]
        dk[b, :, m] += ds.T @ q[b, :, n]
        dv[b, :, m] += p.T @ dy[b, :, n]
    return y, (dq, dk, dv)


def split(x):
    """[B, T, ...] -> [devices, B, T / devices, ...]."""
    return np.moveaxis(x.reshape(B, DEVICES, -1, *x.shape[2:]), 1, 0)


def whole(x):
    return np.moveaxis(np.asarray(x), 0, 1).reshape(B, -1, *x.shape[3:])


def differentiate(attend, q, k, v, dy):
    y, back = jax.vjp(attend, q, k, v)
    return y, back(dy.astype(y.dtype))


@functools.cache
def on_devices(name, block):
    attend = functools.partial(
        ring_attention, axis_name="sequence", block_size=block, **CASES[name]
    )
    return jax.pmap(functools.partial(differentiate, attend), axis_name="sequence")


def compare(got, want, **tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(whole(a), b, **tolerance)


@pytest.mark.parametrize("name", list(CASES))
def test_equals_the_whole_sequence(name):
    q, k, v = inputs(7, 7)
    dy = np.random.default_rng(1).normal(size=(*q.shape[:3], DV)).astype(np.float32)
    got = on_devices(name, 3)(*map(split, (q, k, v, dy)))
    compare(got, oracle(q, k, v, dy, **CASES[name]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["causal", "ahead"])
def test_targets_and_sources_may_differ_in_number_and_see_nothing(name):
    q, k, v = inputs(5, 3)  # the last targets are further than 17 from any source
    q, k, v = (q, k, v) if name == "causal" else (q[:, ::-1], k, v)
    dy = np.random.default_rng(1).normal(size=(*q.shape[:3], DV)).astype(np.float32)
    want = oracle(q, k, v, dy, **CASES[name])
    assert np.any(np.all(want[0] == 0, axis=(0, 2, 3))) == (name == "ahead")
    got = on_devices(name, 4)(*map(split, (q, k, v, dy)))
    compare(got, want, rtol=1e-4, atol=1e-5)


def test_bfloat16_comes_near_and_sums_in_float32():
    q, k, v = inputs(7, 7)
    dy = np.random.default_rng(1).normal(size=(*q.shape[:3], DV)).astype(np.float32)
    low = [split(x).astype(jnp.bfloat16) for x in (q, k, v, dy)]
    got = on_devices("causal", 3)(*low)
    assert {a.dtype for a in jax.tree.leaves(got)} == {jnp.dtype(jnp.bfloat16)}
    exact = [whole(x.astype(np.float32)) for x in low]
    compare(got, oracle(*exact, **CASES["causal"]), rtol=0.03, atol=0.03)


def mapped(targets, share=(1, DEVICES), **case):
    """The gradients of the whole sequence, over a mesh, as one program."""
    attend = functools.partial(ring_attention, axis_name="sequence", **case)
    devices = np.array(jax.devices()[: np.prod(share)]).reshape(share)
    mesh = Mesh(devices, ("data", "sequence"))
    spec = PartitionSpec("data", "sequence")
    body = functools.partial(differentiate, attend)
    run = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=(spec, spec))
    shapes = [(B, targets, N, D), (B, targets, K, D), (B, targets, K, DV)]
    shapes.append((B, targets, N, DV))
    return jax.jit(run), [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]


@pytest.mark.parametrize("share", [(2, 4), (1, 8), (1, 1)])
def test_works_in_a_mesh_beside_a_split_of_the_batch(share):
    run, _ = mapped(56, share, block_size=5, is_causal=True)
    q, k, v = inputs(7, 7)
    dy = np.random.default_rng(1).normal(size=(*q.shape[:3], DV)).astype(np.float32)
    got, want = run(q, k, v, dy), oracle(q, k, v, dy, is_causal=True)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_memory_of_a_device_grows_with_its_share_and_not_with_its_square():
    def peak(targets):
        run, shapes = mapped(targets, block_size=64)
        return run.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    small, large = peak(8 * 1024), peak(8 * 8192)
    rows = 4 * B * N * 8192  # bytes of a number for each target of a device
    assert large < 9 * small
    assert large < rows * 64 < rows * 8192 / 64, "far less than its share of the matrix"


def count(jaxpr, name):
    """How often an operation stands in a program, loops once, and its shapes."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == name:
            found.append(eqn)
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            found += count(inner, name)
    return found


def test_what_a_window_hides_is_not_sent_around():
    """The loop over blocks is as long as the window reaches."""

    def rounds(**case):
        run, shapes = mapped(56, **case)
        loops = count(jax.make_jaxpr(run)(*shapes).jaxpr, "scan")
        return {
            e.params["length"]
            for e in loops
            if count(e.params["jaxpr"].jaxpr, "ppermute")
        }

    assert rounds() == rounds(is_causal=True) == {7}
    assert rounds(window=(7, 0)) == {1}
    assert rounds(window=(8, 0)) == {2}
    assert rounds(window=7) == {2}
    assert rounds(window=(0, 14)) == {2}


def test_blocks_that_nobody_sees_are_not_computed():
    """NaN spreads through every product, also through those of weight 0."""
    q, k, v = inputs(6, 6)
    v[:, 24:] = np.nan
    dy = np.ones((*q.shape[:3], DV), np.float32)
    y, (dq, *_) = on_devices("causal", 3)(*map(split, (q, k, v, dy)))
    assert np.all(np.isfinite(whole(y)[:, :24]))
    assert np.all(np.isfinite(whole(dq)[:, :24]))
    assert np.all(np.isnan(whole(y)[:, 24:]))


@pytest.mark.parametrize(
    ("shapes", "settings", "says"),
    [
        ([(1, 2, 4, 5), (1, 2, 3, 5), (1, 2, 3, 5)], {}, "3 heads of keys.*4 heads"),
        ([(1, 2, 4, 5), (1, 2, 4, 6), (1, 2, 4, 6)], {}, "5 channels, of keys 6"),
        ([(1, 2, 4, 5), (1, 2, 4, 5), (1, 3, 4, 5)], {}, "agree in S and K"),
        ([(1, 2, 4, 5), (2, 2, 4, 5), (1, 2, 4, 5)], {}, "agree in B"),
        ([(1, 2, 4, 5)] * 3, {"window": -1}, "at least 0 places, got -1"),
        ([(1, 2, 4, 5)] * 3, {"block_size": 0}, "block_size must be at least 1"),
    ],
)
def test_says_what_does_not_fit(shapes, settings, says):
    arrays = [jnp.zeros(shape) for shape in shapes]
    with pytest.raises(ValueError, match=says):
        ring_attention(*arrays, axis_name="sequence", **settings)
