"""Neighborhood: the loop of the op's test between linear maps; grids and errors."""

import functools
import types

import jax
import numpy as np
import pytest

import attn
from attn.modules.token.neighborhood import Neighborhood
from tests.ops import neighborhood_test

B, C, GRID = 2, 8, (6, 9)
T = GRID[0] * GRID[1]


def tokens(seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, B, T, C)).astype(np.float32)


def on_grid(module, grid=GRID):
    """What initialises `module` for tokens of a grid."""
    return types.SimpleNamespace(init=functools.partial(module.init, grid=grid))


def oracle(params, q, kv, options, mask):
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    query, key, value = (
        np.einsum("btc,cnd->btnd", x, p[name]["kernel"]) + p[name]["bias"]
        for name, x in (("query", q), ("key", kv), ("value", kv))
    )
    lie = lambda x: x.reshape(B, *GRID, *x.shape[2:])
    y, matrix = neighborhood_test.oracle(
        *map(lie, (query, key, value)), *options, bias=p.get("relative_bias"), mask=mask
    )
    y = np.einsum("btnd,ndc->btc", y.reshape(query.shape), p["out"]["kernel"])
    return y + p["out"]["bias"], matrix


@pytest.mark.parametrize(
    ("settings", "options", "masked"),
    [
        ({"window": 3, "dilation": 2, "num_heads": 2}, ((3, 3), (2, 2)), False),
        ({"window": (5, 3), "dilation": (1, 2), "head_dim": 2}, ((5, 3), (1, 2)), True),
        ({"window": 5, "relative_bias": False}, ((5, 5), (1, 1)), False),
        (
            {"window": 4, "stride": (2, 3), "causal": (False, True)},
            ((4, 4), (1, 1), (2, 3), (False, True)),
            True,
        ),
    ],
    ids=str,
)
def test_matches_the_papers(random_variables, settings, options, masked):
    module, (q, kv) = Neighborhood(**settings), tokens()
    heads = settings.get("num_heads", 4)
    mask = np.random.default_rng(3).random((B, heads, T, T)) < 0.7 if masked else None
    variables = random_variables(on_grid(module), q, kv)

    run = jax.jit(functools.partial(attn.capture, module, grid=GRID))
    y, maps = run(variables, q, kv, mask=mask)

    want, matrix = oracle(variables["params"], q, kv, options, mask)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    got = maps["token_matrix"]
    assert got.grid == GRID
    np.testing.assert_allclose(got.values, matrix, rtol=1e-4, atol=1e-6)


def test_a_window_as_large_as_the_grid_is_multi_head(random_variables):
    x = tokens()[0][:, :35]
    module = Neighborhood(window=(5, 7), relative_bias=False)
    variables = random_variables(on_grid(module, (5, 7)), x)
    run = functools.partial(module.apply, grid=(5, 7), train=False)
    whole = functools.partial(attn.create("multi_head").apply, train=False)
    y, want = jax.jit(run)(variables, x), jax.jit(whole)(variables, x)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)


def test_counts_the_parameters_of_nat():
    # 4 C^2 + 4 C and 13 x 13 biases a head: a block of NAT-Mini's first level.
    module = Neighborhood(num_heads=2)
    assert module.card.parameters(module, (T, 64)) == 16_640 + 2 * 169


@pytest.mark.parametrize(
    ("settings", "grid", "says"),
    [
        ({}, None, r"needs grid=\(rows, columns\) of its 54 tokens"),
        ({}, (6, 8), "grid of 6 x 8 has 48 places, but there are 54 tokens"),
        ({}, GRID, "window of 7 .* larger than its grid of 6 x 9, .* up to 6 fits"),
        (
            {"window": 3, "stride": 4},
            GRID,
            "stride of 4 is longer than its window of 3",
        ),
        ({"window": 3, "num_heads": 3}, GRID, "num_heads=3 must divide channels=8"),
    ],
)
def test_says_what_does_not_fit(settings, grid, says):
    with pytest.raises(ValueError, match=says):
        Neighborhood(**settings).init(
            jax.random.key(0), tokens()[0], grid=grid, train=False
        )
