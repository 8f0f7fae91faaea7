"""Every implementation through one set of tests, against the reference.

Those of `SMALL` are `blockwise`: in blocks so small that these sizes have many, and in
one, `whole`.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import dot_product
from attn.ops.dot_product import blockwise
from attn.ops.dot_product.blocks import Plan

B, T, S, N, K, D, DV = 2, 13, 21, 4, 2, 6, 5
SMALL = {
    "loop": Plan(4, 8, loop=True, wide=True),
    "examples": Plan(8, 4, True, True, examples=1),
    "at_once": Plan(5, 4, loop=False, wide=False),
    "whole": Plan(T, S, loop=False, wide=True),
}
NAMES = (*SMALL, "xla", "tokamax", "pallas_tpu")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for name, plan in SMALL.items():
        function = functools.partial(blockwise.attend, plan=plan)
        monkeypatch.setitem(dot_product.IMPLEMENTATIONS, name, function)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def arrays(batch=B, targets=T, sources=S, heads=N, key_heads=K, width=DV):
    return (
        normal(batch, targets, heads, D, seed=2),
        normal(batch, sources, key_heads, D, seed=3),
        normal(batch, sources, key_heads, width, seed=4),
    )


def mask(*shape):
    return np.random.default_rng(5).random(shape) < 0.6


# What is asked, and who can do it beside ours.
CASES = {
    "plain": ({}, ("xla", "tokamax", "pallas_tpu")),
    "causal": ({"is_causal": True}, ("xla", "tokamax", "pallas_tpu")),
    "window, lengths, cap": (
        {"window": (9, 2), "kv_lengths": np.array([9, 21]), "logits_cap": 1.5},
        ("tokamax", "pallas_tpu"),
    ),
    "causal, bias of heads": (
        {"is_causal": True, "bias": normal(N, T, S), "scale": 0.7},
        ("xla", "tokamax"),
    ),
    "window, mask, bias of rows": (
        {"window": (3, 1), "mask": mask(B, 1, T, S), "bias": normal(1, 1, T, 1)},
        ("xla", "tokamax"),
    ),
    "open window, mask of heads": (
        {"window": (4, None), "mask": mask(N, 1, S), "bias": normal(T, S)},
        ("xla", "tokamax"),
    ),
    "lengths, mask of sources, bias of sources": (
        {
            "q_lengths": np.array([7, 13]),
            "kv_lengths": np.array([21, 4]),
            "mask": mask(B, 1, 1, S),
            "bias": normal(B, N, 1, S),
        },
        ("xla", "tokamax"),
    ),
    "cap, bias": ({"logits_cap": 0.8, "bias": normal(B, 1, T, S)}, ("tokamax",)),
    "dropout": ({"dropout_rate": 0.4, "dropout_rng": 9}, ()),
    "dropout, bias": (
        {"dropout_rate": 0.4, "dropout_rng": 7, "bias": normal(1, 1, 1, S)},
        (),
    ),
    "sigmoid": (
        {
            "normalize": "sigmoid",
            "is_causal": True,
            "logits_cap": 1.1,
            "dropout_rate": 0.2,
            "dropout_rng": 8,
            "bias": normal(1, N, T, 1),
        },
        (),
    ),
}


def both(implementation, inputs, dtype=jnp.float32, **options):
    """Values, and the gradients for q, k, v and the bias if there is one."""
    inputs = [jnp.asarray(x, dtype) for x in inputs]
    bias, seed = options.pop("bias", None), options.pop("dropout_rng", None)
    if seed is not None:
        options["dropout_rng"] = jax.random.key(seed)
    dy = normal(*inputs[0].shape[:3], inputs[2].shape[3], seed=6)

    @jax.jit
    def run(*inputs):
        function = lambda q, k, v, bias=bias: dot_product.dot_product_attention(
            q, k, v, bias=bias, implementation=implementation, **options
        )
        y, back = jax.vjp(function, *inputs)
        return y, *back(dy.astype(dtype))

    return run(*inputs) if bias is None else run(*inputs, jnp.asarray(bias))


@functools.cache
def wanted(case):
    return both("reference", arrays(), **CASES[case][0])


def close(got, want, rtol=2e-5, atol=2e-5):
    for x, y in zip(got, want, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(
            x.astype(jnp.float32), y.astype(jnp.float32), rtol=rtol, atol=atol
        )


def require(name):
    if name == "tokamax" and importlib.util.find_spec("tokamax") is None:
        pytest.skip("tokamax is not installed")


# `at_once` differs from `loop` in how heads get their part of the arrays only.
ARRAYS = (
    "causal, bias of heads",
    "window, mask, bias of rows",
    "lengths, mask of sources, bias of sources",
    "dropout, bias",
)
PAIRS = [(name, case) for name in NAMES for case in CASES]


@pytest.mark.parametrize(
    ("name", "case"), [(n, c) for n, c in PAIRS if n != "at_once" or c in ARRAYS]
)
def test_is_the_reference_or_says_that_it_cannot(name, case):
    require(name)
    options, able = CASES[case]
    if name in able or name in SMALL:
        close(both(name, arrays(), **options), wanted(case))
    else:
        with pytest.raises(NotImplementedError, match=name):
            both(name, arrays(), **options)


LENGTHS = [("blockwise", n) for n in (1, 7, 197, 1025)]
LENGTHS += [("loop", 1), ("pallas_tpu", 197)]


@pytest.mark.parametrize(("name", "length"), LENGTHS)
def test_any_length(name, length):
    inputs = arrays(1, length, length, 2, 1, 3)
    close(both(name, inputs), both("reference", inputs))


@pytest.mark.parametrize("name", ["loop", "at_once"])
def test_bfloat16_stays_near_float32(name):
    options, _ = CASES["causal, bias of heads"]
    got = both(name, arrays(), jnp.bfloat16, **options)
    want = wanted("causal, bias of heads")
    assert [x.dtype for x in got] == [jnp.bfloat16] * 4 + [jnp.float32]
    for x, y in zip(got, want, strict=True):
        error = np.abs(np.asarray(x, np.float32) - y)
        assert np.max(error) < 0.03 * np.max(np.abs(y))


@pytest.mark.parametrize("name", ["reference", "loop", "at_once", "whole", "xla"])
def test_who_sees_nothing_reads_zeros_and_passes_nothing_back(name):
    require(name)
    see = mask(B, N, T, S)
    see[0, :, 2] = False  # one target
    see[1, 1] = False  # one head
    inputs = [x.copy() for x in arrays()]
    inputs[0][0, 2] = inputs[0][1, :, 1] = np.nan
    y, dq, dk, dv = both(name, inputs, mask=see)

    for x in (y, dq):
        np.testing.assert_array_equal(x[0, 2], 0)
        np.testing.assert_array_equal(x[1, :, 1], 0)
        assert np.all(np.any(np.asarray(x[1, :, 0]) != 0, axis=-1))
    for x in (y, dq, dk, dv):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("name", ["reference", "loop", "whole", "xla"])
def test_targets_whose_window_is_beyond_the_last_source_read_zeros(name):
    inputs = [x.copy() for x in arrays(targets=12, sources=5)]
    inputs[0][:, 7:] = np.nan
    y, dq, dk, _ = both(name, inputs, window=(2, 9))
    np.testing.assert_array_equal(y[:, 7:], 0)
    np.testing.assert_array_equal(dq[:, 7:], 0)
    assert np.all(np.asarray(y[:, :7]) != 0)
    assert np.all(np.isfinite(dk))


@functools.cache
def in_clean_padding():
    lengths = {"q_lengths": np.array([5, 13]), "kv_lengths": np.array([21, 9])}
    return both("reference", arrays(), **lengths)


@pytest.mark.parametrize("name", ["reference", "loop", "whole", "xla", "pallas_tpu"])
def test_padding_has_no_influence_not_even_nan(name):
    lengths = {"q_lengths": np.array([5, 13]), "kv_lengths": np.array([21, 9])}
    dirty = [x.copy() for x in arrays()]
    dirty[0][0, 5:] = dirty[1][1, 9:] = dirty[2][1, 9:] = np.nan
    got = both(name, dirty, **lengths)
    close(got, in_clean_padding())
    np.testing.assert_array_equal(got[0][0, 5:], 0)
    np.testing.assert_array_equal(got[3][1, 9:], 0)
    assert np.all(np.asarray(got[2][1, :9]) != 0)


@pytest.mark.parametrize("name", ["reference", "loop", "whole"])
def test_a_bias_of_minus_infinity_is_a_mask(name):
    see = mask(1, 1, T, S)
    see[..., 3, :] = False
    bias = np.where(see, 0, -np.inf).astype(np.float32)
    got, want = both(name, arrays(), bias=bias), both("reference", arrays(), mask=see)
    close(got[:4], want)
    assert np.all(np.isfinite(got[4]))


# Padding on the left, whose first targets see nothing beside the causal mask.
PADDED = np.where(np.arange(S) < 3, -np.inf, 0).astype(np.float32)[None, None, None]


@pytest.mark.parametrize("name", ["reference", *SMALL, "xla"])
def test_a_bias_of_minus_infinity_beside_a_mask_shows_nothing_masked(name):
    see = (np.arange(S) >= 3) & (np.arange(S) <= np.arange(T)[:, None])
    got = both(name, arrays(), bias=PADDED, is_causal=True)
    want = both("reference", arrays(), mask=see[None, None])
    close(got[:4], want)
    np.testing.assert_array_equal(got[0][:, :3], 0)
    assert np.all(np.isfinite(got[4]))


@pytest.mark.parametrize("name", ["reference", *SMALL])
def test_scores_of_minus_infinity_are_a_mask_beside_another(name):
    hidden = lambda x, b, n, t, s: jnp.where(s < 3, -jnp.inf, x)
    see = (np.arange(S) >= 3) & (np.arange(S) <= np.arange(T)[:, None])
    sinks = np.array([-np.inf, 0.3, -np.inf, -2], np.float32)
    for options in ({}, {"sinks": sinks}):
        given = {"score_mod": hidden, "is_causal": True} | options
        got = both(name, arrays(), **given)
        want = both("reference", arrays(), mask=see[None, None], **options)
        close(got, want)


@pytest.mark.parametrize("name", SMALL)
def test_scores_may_be_huge_and_all_alike(name):
    """As where a mask of large negative numbers is added to all sources of a target."""
    bias = np.zeros((1, 1, T, S), np.float32)
    bias[..., 2, :], bias[..., 5, :] = -1e9, 1e6
    got, want = (both(which, arrays(), bias=bias) for which in (name, "reference"))
    close(got, want)


@pytest.mark.parametrize("name", ["reference", *SMALL])
def test_who_has_no_finite_score_reads_zeros(name):
    hidden = lambda x, b, n, t, s: jnp.where(t < 3, -jnp.inf, x)
    see = np.broadcast_to(np.arange(T)[:, None] >= 3, (T, S))
    got = both(name, arrays(), score_mod=hidden)
    close(got, both("reference", arrays(), mask=see[None, None]))


def test_xla_adds_a_bias_of_more_places_than_its_queries_have():
    some = [jnp.asarray(x, jnp.bfloat16) for x in arrays()]
    shifted = normal(1, 1, T, S)
    got, want = (
        dot_product.dot_product_attention(*some, bias=bias, implementation=name)
        for name, bias in (("xla", 300 + shifted), ("reference", shifted))
    )
    assert got.dtype == jnp.bfloat16
    close([got.astype(np.float32)], [want.astype(np.float32)], atol=2e-2)


@pytest.mark.parametrize("name", [*SMALL, "xla"])
def test_what_has_no_sources_is_the_references(name):
    q, k, v = arrays(sources=0)
    with pytest.raises(NotImplementedError, match="needs examples, targets and source"):
        dot_product.dot_product_attention(q, k, v, implementation=name)


def _scaled_gradient(factor):
    """The score, with another gradient than its own."""

    @jax.custom_jvp
    def score(x):
        return x

    score.defjvp(lambda x, dx: (x[0], factor * dx[0]))
    return lambda x, b, n, t, s: score(x)


def _scaled_cotangent(factor):
    @jax.custom_vjp
    def score(x):
        return x

    score.defvjp(lambda x: (x, None), lambda _, dy: (factor * dy,))
    return lambda x, b, n, t, s: score(x)


def _of_table(factor):
    """The score times what an inner function, compiled by itself, has captured."""
    table = factor * jnp.ones(S)
    inner = jax.jit(lambda s: table[s])
    return lambda x, b, n, t, s: x * inner(s)


@pytest.mark.parametrize("make", [_scaled_gradient, _scaled_cotangent, _of_table])
def test_functions_that_print_alike_are_told_apart(make):
    q, k, v = arrays()
    for score_mod in map(make, (0.0, 1.0, 2.0)):

        def read(q, implementation, score_mod=score_mod):
            y = dot_product.dot_product_attention(
                q, k, v, score_mod=score_mod, implementation=implementation
            )
            return jnp.sum(y**2)

        got, want = (jax.grad(read)(q, name) for name in (None, "reference"))
        close([got], [want])


def test_what_needs_the_whole_matrix_is_the_references():
    with pytest.raises(NotImplementedError, match="blockwise never has the weights"):
        both("blockwise", arrays(), return_weights=True)
    with pytest.raises(NotImplementedError, match=r"blockwise cannot .* sparsemax"):
        both("blockwise", arrays(), normalize="sparsemax")
    options = {"return_weights": True, "normalize": "entmax15"}
    got, want = (
        dot_product.dot_product_attention(*arrays(), implementation=name, **options)
        for name in (None, "reference")
    )
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_other_platforms_are_named():
    with pytest.raises(NotImplementedError, match="cudnn needs a GPU, not a cpu"):
        both("cudnn", arrays())


def test_pallas_needs_something_to_see():
    with pytest.raises(NotImplementedError, match="300 see no source before t - 2"):
        both("pallas_tpu", arrays(targets=300), window=(2, 2))
