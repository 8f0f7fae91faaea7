"""Masks and scores as functions, against the same as arrays, in float64 NumPy.

The oracle's gradients are those of the formula, written out; its masks are made by
loops over places or by other formulas than those of the gallery.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.ops import dot_product, masks
from attn.ops.dot_product import blockwise, mods, problem, skips
from attn.ops.dot_product.blocks import Plan

B, T, S, N, K, D, DV = 2, 42, 35, 4, 2, 5, 3
TILE = 8
SMALL = {
    "loop": Plan(8, 16, loop=True, wide=True),
    "examples": Plan(8, 16, True, True, 1),
    "at_once": Plan(16, 8, loop=False, wide=False),
}
DOCUMENTS = np.sort(np.random.default_rng(2).integers(0, 5, (B, T)), axis=1)
OF_SOURCES = np.sort(np.random.default_rng(3).integers(1, 6, (B, S)), axis=1)
PREFIX = np.array([3, 20])
TABLE = np.random.default_rng(4).normal(size=(N, T + S)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(skips, "TILE", TILE)
    for name, plan in SMALL.items():
        function = functools.partial(blockwise.attend, plan=plan)
        monkeypatch.setitem(dot_product.IMPLEMENTATIONS, name, function)


def inputs(seed=0, targets=T, sources=S):
    rng = np.random.default_rng(seed)
    shapes = [(B, targets, N, D), (B, sources, K, D), (B, sources, K, DV)]
    shapes.append((B, targets, N, DV))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def near(t, s, width=7, rows=1, columns=2):
    """Of a map, by coordinates of its places in a picture."""
    where = {y * width + x: (y, x) for y in range(9) for x in range(width)}
    (y, x), (v, u) = where[t], where[s]
    return abs(y - v) <= rows and abs(x - u) <= columns


# A function, and what it should allow at [b, n, t, s].
GALLERY = {
    "causal": (masks.causal(), lambda b, n, t, s: s <= t),
    "window": (
        masks.sliding_window(3, 2),
        lambda b, n, t, s: s in range(t - 3, t + 3),
    ),
    "prefix": (
        masks.prefix_lm(PREFIX),
        lambda b, n, t, s: s <= max(t, PREFIX[b] - 1),
    ),
    "documents": (
        masks.documents(DOCUMENTS, OF_SOURCES),
        lambda b, n, t, s: DOCUMENTS[b][t] == OF_SOURCES[b][s],
    ),
    "neighborhood": (masks.neighborhood(7, 1, 2), lambda b, n, t, s: near(t, s)),
    "every and some, by head": (
        masks.every(
            masks.causal(),
            masks.some(masks.sliding_window(0, 0), lambda b, n, t, s: s % N == n),
        ),
        lambda b, n, t, s: s == t or (s < t and s % N == n),
    ),
}


def as_array(allows, targets=T, sources=S):
    found = [allows(*place) for place in np.ndindex(B, N, targets, sources)]
    return np.array(found).reshape(B, N, targets, sources)


def oracle(q, k, v, dy, mask, score=0.0):
    """What is read, and the gradients of the sum of y dy by q, k, v and the logits."""
    q, k, v, dy = (np.asarray(x, np.float64) for x in (q, k, v, dy))
    y, dq, dk, dv = (np.zeros(x.shape) for x in (dy, q, k, v))
    ds = np.zeros((B, N, q.shape[1], k.shape[1]))
    score = np.broadcast_to(np.asarray(score, np.float64), ds.shape)
    for b, n in np.ndindex(B, N):
        m = n // (N // K)
        e = np.exp(D**-0.5 * q[b, :, n] @ k[b, :, m].T + score[b, n]) * mask[b, n]
        p = e / np.maximum(e.sum(1, keepdims=True), 1e-300)
        y[b, :, n] = p @ v[b, :, m]
        dp = dy[b, :, n] @ v[b, :, m].T
        ds[b, n] = p * (dp - (p * dp).sum(1, keepdims=True))
        dq[b, :, n] = D**-0.5 * ds[b, n] @ k[b, :, m]
        dk[b, :, m] += D**-0.5 * ds[b, n].T @ q[b, :, n]
        dv[b, :, m] += p.T @ dy[b, :, n]
    return (y, dq, dk, dv), ds


def both(implementation, arrays, **options):
    """What is read, and its gradients by q, k and v."""
    *qkv, dy = arrays

    @jax.jit
    def run(*qkv):
        attend = functools.partial(
            dot_product.dot_product_attention, implementation=implementation, **options
        )
        y, back = jax.vjp(attend, *qkv)
        return y, *back(dy)

    return run(*qkv)


def close(got, want, **tolerance):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 2e-5, "atol": 2e-5} | tolerance)


@pytest.mark.parametrize("name", list(GALLERY))
def test_a_function_is_its_array(name):
    function, allows = GALLERY[name]
    mod, captured = mods.trace_mask(function)
    found = jax.jit(functools.partial(mod.matrix, sizes=(B, N, T, S)))(captured)
    np.testing.assert_array_equal(
        np.broadcast_to(found, (B, N, T, S)), as_array(allows)
    )


FOUR = ("causal", "window", "prefix", "documents")


def of_heads(b, n, t, s):
    """One of the gallery for each head."""
    return jnp.stack([GALLERY[name][0](b, n, t, s) for name in FOUR])[n]


# Programs, each of them compiled: of which implementation, with which function.
PROGRAMS = [(name, of_heads) for name in ("loop", "at_once", "xla")]
PROGRAMS += [("loop", "documents"), ("at_once", "neighborhood")]


@pytest.mark.parametrize(("implementation", "function"), PROGRAMS)
def test_attention_is_that_by_the_array(implementation, function):
    allows = lambda b, n, t, s: GALLERY[FOUR[n]][1](b, n, t, s)
    if function is not of_heads:
        function, allows = GALLERY[function]
    want, _ = oracle(*inputs(), as_array(allows))
    close(both(implementation, inputs(), mask_mod=function), want)


def test_together_with_masks_windows_and_lengths():
    mask = np.random.default_rng(5).random((B, 1, T, S)) < 0.7
    lengths = {"q_lengths": np.array([42, 9]), "kv_lengths": np.array([30, 35])}
    function, allows = GALLERY["prefix"]
    see = as_array(allows) & mask & (np.arange(S) <= np.arange(T)[:, None] + 4)
    see &= np.arange(T)[:, None] < lengths["q_lengths"].reshape(B, 1, 1, 1)
    see &= np.arange(S) < lengths["kv_lengths"].reshape(B, 1, 1, 1)
    dirty = inputs()
    dirty[0][1, 9:] = dirty[1][0, 30:] = dirty[2][0, 30:] = np.nan
    want, _ = oracle(*(np.nan_to_num(x) for x in dirty), see)
    options = {"mask_mod": function, "mask": mask, "window": (None, 4)} | lengths
    close(both("loop", dirty, **options), want)


def biased(table):
    """A bias by distance for each head, as of the functions of FlexAttention."""
    return lambda score, b, n, t, s: score + 0.5 * b + table[n, t - s + S]


@pytest.mark.parametrize("implementation", ["loop", "at_once", "reference"])
def test_a_score_is_replaced_and_what_it_is_made_of_learns(implementation):
    """The function captures what is traced, differentiated and jitted."""
    *qkv, dy = inputs()
    distance = np.arange(T)[:, None] - np.arange(S) + S
    mask = as_array(GALLERY["causal"][1])

    @jax.jit
    def run(q, k, v, table, far):
        def attend(q, k, v, table):
            return dot_product.dot_product_attention(
                *(q, k, v),
                mask_mod=lambda b, n, t, s: s <= t + far,
                score_mod=biased(table),
                implementation=implementation,
            )

        y, back = jax.vjp(attend, q, k, v, table)
        return y, *back(dy)

    *got, dtable = run(*qkv, TABLE, 0)
    bias = TABLE[:, distance] + 0.5 * np.arange(B)[:, None, None, None]
    want, ds = oracle(*qkv, dy, mask, bias)
    close(got, want)
    by_distance = np.zeros(TABLE.shape)
    np.add.at(by_distance, (np.arange(N)[:, None, None], distance), ds.sum(0))
    close([dtable], [by_distance])


def test_a_score_comes_after_the_cap():
    """Its slope multiplies that of the cap."""
    options = {"logits_cap": 0.7, "scale": 1.3}
    double = lambda score, b, n, t, s: jnp.where(s <= t, 2 * score, -jnp.inf)
    got, want = (
        both(name, inputs(), score_mod=double, **options)
        for name in ("loop", "reference")
    )
    close(got, want)
    logits = both("reference", inputs(), is_causal=True, **options)
    assert np.max(np.abs(want[0] - logits[0])) > 0.01


def test_large_scores_where_blocks_are_filled_up_do_no_harm():
    """All of them alike, they change nothing, but exp(300) is infinite."""
    far = lambda score, b, n, t, s: score + 300.0
    got, want = (both("loop", inputs(), score_mod=f) for f in (far, None))
    close(got, want, atol=1e-3)


@pytest.mark.parametrize("name", ["neighborhood", "documents"])
def test_blocks_of_which_nothing_is_allowed_are_not_visited(name):
    """NaN spreads through every product, also through those of weight 0."""
    q, k, v, dy = inputs()
    function, allows = GALLERY[name]
    v[1, 3] = np.nan
    y, dq, *_ = both("loop", (q, k, v, dy), mask_mod=function)
    see = as_array(allows)[1, 0]
    spoilt = np.isnan(np.asarray(y[1, :, 0, 0]))
    assert np.all(spoilt[see[:, 3]])
    blocks = np.pad(see, ((0, 6), (0, 13))).reshape(6, 8, 3, 16).any((1, 3))
    visited = np.repeat(blocks[:, 0], 8)[:T]
    np.testing.assert_array_equal(spoilt, visited & see.any(1))
    assert not np.all(spoilt)
    backward = np.pad(see, ((0, 6), (0, 5))).reshape(3, 16, 5, 8).any((1, 3))
    through = np.isnan(np.asarray(dq[1, :, 0, 0]))
    assert not np.any(through[np.repeat(~backward[:, 0], 16)[:T] & ~spoilt])


def temporary_bytes(length, mask_mod, score_mod=None):
    """Of the values and all gradients of two heads, in blocks as they are chosen."""
    shape = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)

    def run(q, k, v, dy, far):
        function = lambda b, n, t, s: mask_mod(b, n, t, s) & (s <= t + far)
        attend = functools.partial(
            dot_product.dot_product_attention, mask_mod=function, score_mod=score_mod
        )
        y, back = jax.vjp(attend, q, k, v)
        return y, back(dy)

    far = jax.ShapeDtypeStruct((), jnp.int32)
    compiled = jax.jit(run).lower(*(shape,) * 4, far).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_no_array_of_all_pairs_is_made(monkeypatch):
    monkeypatch.setattr(skips, "TILE", 128)
    slope = lambda score, b, n, t, s: score - 0.1 * jnp.abs(t - s)
    short, long = (temporary_bytes(n, masks.causal(), slope) for n in (4096, 16384))
    assert long < 4.2 * short
    assert long < 16384**2 / 8, "a bit for each pair would be more"


def test_what_is_known_while_tracing_is_found_then():
    """The program has no loop over strips, unless the mask captures what is traced."""
    q, k, v, _ = inputs()

    def found(far, traced):
        inputs_, asked = problem.check(
            *(q, k, v),
            **dict.fromkeys(["bias", "mask", "scale", "window", "logits_cap"]),
            **dict.fromkeys(["q_lengths", "kv_lengths", "dropout_rng"]),
            **dict.fromkeys(["is_causal", "return_weights"], False),
            dropout_rate=0.0,
            normalize="softmax",
            mask_mod=lambda b, n, t, s: s <= t + (far if traced else 0),
        )
        return skips.find(inputs_, asked)[1]

    loops = [
        "scan" in str(jax.make_jaxpr(functools.partial(found, traced=traced))(0))
        for traced in (False, True)
    ]
    assert loops == [False, True]


def test_functions_made_anew_are_compiled_once():
    calls = [mods.trace_mask(masks.sliding_window(3, reach))[0] for reach in (1, 1, 2)]
    assert calls[0] == calls[1] != calls[2]
    assert hash(calls[0]) == hash(calls[1])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mask_mod": lambda b, n, t, s: t - s}, r"one boolean .*, got int32\[\]"),
        ({"mask_mod": lambda b, n, t, s: s > PREFIX}, r"one boolean .*, got bool\[2\]"),
        ({"score_mod": lambda x, b, n, t, s: t}, r"type, float32, got int32\[\]"),
    ],
)
def test_says_what_a_function_must_return(options, says):
    with pytest.raises(ValueError, match=says):
        both("reference", inputs(), **options)


@pytest.mark.parametrize(
    ("implementation", "option", "says"),
    [
        ("cudnn", "mask_mod", "cudnn cannot take a mask_mod; blockwise and reference"),
        ("pallas_tpu", "mask_mod", "pallas_tpu cannot take a mask_mod; blockwise and"),
        ("xla", "score_mod", "xla cannot take a score_mod; blockwise and reference"),
        ("tokamax", "score_mod", "tokamax cannot take a score_mod; blockwise and"),
    ],
)
def test_who_cannot_says_who_can(implementation, option, says):
    functions = {
        "mask_mod": masks.causal(),
        "score_mod": lambda score, b, n, t, s: score,
    }
    with pytest.raises(NotImplementedError, match=says):
        both(implementation, inputs(), **{option: functions[option]})


def test_a_window_may_reach_as_far_as_a_number_can():
    far = 2**31 - 1
    see = masks.sliding_window(1, far)
    place = (jnp.int32(0), jnp.int32(0))
    assert see(*place, jnp.int32(5), jnp.int32(9))
    assert see(*place, jnp.int32(5), jnp.int32(4))
    assert not see(*place, jnp.int32(5), jnp.int32(3))


def test_what_has_no_number_is_of_no_document():
    """JAX would take the last entry for every place beyond an array."""
    weights = lambda mask, count: np.asarray(
        dot_product.attention_weights(
            jnp.ones((3, count, 1, 2)), jnp.ones((3, 4, 1, 2)), mask_mod=mask
        )
    )[:, 0]
    one = weights(masks.documents(np.array([[0, 1]])), 3)
    np.testing.assert_allclose(one[2], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    two = weights(masks.documents(np.array([[0, 1], [0, 0]])), 2)
    np.testing.assert_allclose(two[1], [[0.5, 0.5, 0, 0]] * 2)
    assert not two[2].any()
    sources = np.array([[1, 1, 0, 1], [0, 1, 1, 1]])
    mixed = weights(masks.documents(np.array([[0, 1]]), sources), 2)
    np.testing.assert_allclose(mixed[0, 0], [0, 0, 1, 0])
    np.testing.assert_allclose(mixed[1, 0], [1, 0, 0, 0])
    assert not mixed[2].any()
    of_all = weights(masks.prefix_lm(np.array([2])), 1)
    np.testing.assert_allclose(of_all[:, 0], [[0.5, 0.5, 0, 0]] * 3)
    short = weights(masks.prefix_lm(np.array([3, 2])), 1)
    np.testing.assert_allclose(short[2, 0], [1, 0, 0, 0])
