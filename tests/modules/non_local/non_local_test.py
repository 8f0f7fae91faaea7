"""NonLocal against equations 1 to 6 in float64, and the published counts."""

import functools

import jax
import numpy as np
import pytest

import attn
from attn.modules.non_local.non_local import NonLocal

PAIRWISE = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


def halve(x):
    """2x2 max-pooling with loops: [H, W, C] -> [H // 2, W // 2, C]."""
    height, width, channels = x.shape
    out = np.zeros((height // 2, width // 2, channels))
    for i, j in np.ndindex(out.shape[:2]):
        out[i, j] = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1))
    return out


def oracle(variables, x, pairwise, subsample, scale, norm):
    """One map [H, W, C], one pair of positions at a time: output and matrix [T, S]."""
    v = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
    p, x = v["params"], x.astype(np.float64)

    def linear(name, a):
        return a @ p[name]["kernel"] + p[name]["bias"]

    source = halve(x) if subsample == "input" else x
    gaussian = pairwise == "gaussian"
    theta = x if gaussian else linear("theta", x)
    phi = source if gaussian else linear("phi", source)
    g = linear("g", source)
    if subsample == "projected":
        phi, g = halve(phi), halve(g)
    theta, phi, g = (a.reshape(-1, a.shape[-1]) for a in (theta, phi, g))

    f = np.zeros((len(theta), len(phi)))
    for t, s in np.ndindex(f.shape):
        if pairwise == "concatenation":
            pair = np.concatenate([theta[t], phi[s]])
            f[t, s] = max(0, p["w_f"].reshape(-1) @ pair)
        elif pairwise == "dot_product":
            f[t, s] = theta[t] @ phi[s]
        else:
            width = theta.shape[-1] if scale else 1
            f[t, s] = np.exp(theta[t] @ phi[s] / np.sqrt(width))
    softmax = pairwise in ("embedded_gaussian", "gaussian")
    f /= f.sum(1, keepdims=True) if softmax else f.shape[1]

    y = linear("out", f @ g).reshape(x.shape)
    if norm == "batch":
        stats = v["batch_stats"]["norm"]
        y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
        y = y * p["norm"]["scale"] + p["norm"]["bias"]
    return x + y, f


def example(channels=6):
    shape = (2, 3, 5, channels)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("subsample", "scale", "norm"),
    [
        ("none", False, "batch"),
        ("projected", True, "batch"),
        ("input", False, "none"),
    ],
)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_matches_the_paper(random_variables, pairwise, subsample, scale, norm):
    settings = {
        "pairwise": pairwise,
        "subsample": subsample,
        "scale": scale,
        "norm": norm,
    }
    module, x = NonLocal(**settings), example()
    variables = random_variables(module, x)

    y, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)

    want, matrix = zip(*(oracle(variables, a, **settings) for a in x), strict=True)
    np.testing.assert_allclose(y, np.stack(want), rtol=1e-5, atol=1e-5)
    got = maps["token_matrix"]
    assert got.grid == ((3, 5) if subsample == "none" else (1, 2))
    np.testing.assert_allclose(got.values[:, 0], matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_is_the_identity_at_initialisation(pairwise, norm):
    module, x = NonLocal(pairwise=pairwise, norm=norm), example()

    @jax.jit
    def run(x):
        variables = module.init(jax.random.key(0), x, train=False)
        trained, _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
        return module.apply(variables, x, train=False), trained

    for y in run(x):
        np.testing.assert_array_equal(y, x)


def largest_intermediate(module, x):
    """The number of entries of the largest array in the jaxpr."""
    variables = jax.eval_shape(
        functools.partial(module.init, train=False), jax.random.key(0), x
    )
    apply = functools.partial(module.apply, train=False)
    equations = jax.make_jaxpr(apply)(variables, x).eqns
    return max(out.aval.size for eqn in equations for out in eqn.outvars)


def test_builds_no_tensor_of_all_pairs_times_channels():
    # 12 x 10 map, T = S = 120, C = 8: the matrix is larger than any map, and smaller
    # than the matrix times two of anything.
    x = np.zeros((2, 12, 10, 8), np.float32)
    pairs = 2 * 120 * 120
    assert largest_intermediate(NonLocal(pairwise="concatenation"), x) == pairs
    assert largest_intermediate(NonLocal(pairwise="embedded_gaussian"), x) <= pairs
    assert largest_intermediate(NonLocal(pairwise="dot_product"), x) == x.size


def test_subsampling_keeps_a_side_of_one(random_variables):
    module = NonLocal(subsample="projected")
    x = example()[:, :1]
    variables = random_variables(module, x)
    _, maps = jax.jit(functools.partial(attn.capture, module))(variables, x)
    assert maps["token_matrix"].grid == (1, 2)
    assert maps["token_matrix"].values.shape == (2, 1, 5, 2)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, {64: 8_480, 256: 132_224, 512: 526_592, 1024: 2_101_760, 2048: 8_397_824}),
        ({"subsample": "input"}, {64: 8_480}),
        ({"norm": "none"}, {64: 8_480 - 2 * 64}),
        ({"pairwise": "concatenation"}, {64: 8_480 + 64}),
        ({"pairwise": "gaussian"}, {64: 8_480 - 2 * (64 * 32 + 32)}),
    ],
    ids=str,
)
def test_has_the_published_number_of_parameters(settings, counts):
    for channels, want in counts.items():
        module = NonLocal(**settings)
        init = functools.partial(module.init, train=False)
        x = np.zeros((1, 2, 3, channels), np.float32)
        params = jax.eval_shape(init, jax.random.key(0), x)["params"]
        assert sum(a.size for a in jax.tree.leaves(params)) == want
        assert module.card.parameters(module, (2, 3, channels)) == want
