"""Each encoding where it acts, against loops; prefixes, other grids, errors."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.modules import position
from attn.modules.position import POSITIONS

B, H, W, N, D, P = 2, 3, 4, 3, 8, 2
GRID, C, T = (H, W), N * D, P + H * W
OF_A_SEQUENCE = {"alibi", "learned", "none", "rotary", "sinusoidal"}
# The place of each token: None for a prefix.
PLACES = [None] * P + [(y, x) for y in range(H) for x in range(W)]


def inputs(act, length=T, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(B, length, C)).astype(np.float32)
    q, k = rng.normal(size=(2, B, length, N, D)).astype(np.float32)
    return (x,) if act == "tokens" else (q, k)


def made(module, act, *args, grid=GRID, seed=1):
    """Variables far from the initial ones."""
    init = functools.partial(module.init, method=act)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), *args, grid))
    rng = np.random.default_rng(seed)
    draw = lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


def run(module, act, variables, *args, grid=GRID):
    call = lambda variables, *args: module.apply(variables, *args, grid, method=act)
    return jax.jit(call)(variables, *args)


def sequence_tokens(p, x):
    table = np.zeros((T, C))
    for t, i in np.ndindex(T, C):
        angle = t / 1e4 ** (i // 2 * 2 / C)
        table[t, i] = math.sin(angle) if i % 2 == 0 else math.cos(angle)
    return x + table


def grid_tokens(p, x):
    table = np.zeros((T, C))
    for t, i in np.ndindex(T, C):
        if PLACES[t] is not None:
            axis, j = divmod(i, C // 2)
            share = (PLACES[t][axis] + 1) / (GRID[axis] + 1e-6)
            angle = 2 * np.pi * share / 1e4 ** (j // 2 * 2 / (C // 2))
            table[t, i] = math.sin(angle) if j % 2 == 0 else math.cos(angle)
    return x + table


def learned_grid_tokens(p, x):
    rest = [p["table"][place] for place in PLACES if place]
    return x + np.concatenate([p["prefix_table"], np.stack(rest)])


def conditional_tokens(p, x):
    y, conv = np.array(x), p["conv"]
    for t, place in enumerate(PLACES):
        if place is None:
            continue
        y[:, t] += conv["bias"]
        for s, other in enumerate(PLACES):
            if other is None:
                continue
            down, right = other[0] - place[0], other[1] - place[1]
            if max(abs(down), abs(right)) <= 1:
                y[:, t] += x[:, s] * conv["kernel"][1 + down, 1 + right, 0]
    return y


def spin(x, angles):
    """Pairs of channels as complex numbers; angles [T, D / 2]."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def sequence_rotation(p, x):
    return spin(x, np.outer(np.arange(T), 1e4 ** (-np.arange(0, D, 2) / D)))


def grid_rotation(p, x):
    places = np.array([(0, 0) if place is None else place for place in PLACES])
    y, x_ = places.T[..., None] * 100.0 ** (-np.arange(0, D // 2, 2) / (D // 2))
    return spin(x, np.concatenate([x_, y], axis=-1))


SLOPES = [2**-4.0, 2**-8.0, 2**-2.0]  # of three heads


def sequence_distance(p, q, t, s):
    return -np.array(SLOPES) * abs(t - s)


def kind_of(t, s):
    """Which of the three entries of a prefix; None where both are on the grid."""
    kinds = {(1, 0): 0, (0, 1): 1, (1, 1): 2}
    return kinds.get((int(PLACES[t] is None), int(PLACES[s] is None)))


def grid_distance(p, q, t, s):
    away = 0 if kind_of(t, s) is not None else math.dist(PLACES[t], PLACES[s])
    return -np.array(SLOPES) * away


def table_entry(p, q, t, s):
    if kind_of(t, s) is not None:
        return p["prefix_table"][kind_of(t, s)]
    (y, x), (v, u) = PLACES[t], PLACES[s]
    return p["table"][y - v + H - 1, x - u + W - 1]


def network(p, q, t, s):
    if kind_of(t, s) is not None:
        return 16 / (1 + np.exp(-p["prefix_table"][kind_of(t, s)]))
    away = np.subtract(PLACES[t], PLACES[s]) * 8 / (np.array(GRID) - 1)
    away = np.sign(away) * np.log2(1 + np.abs(away)) / 3
    layer = p["hidden_layer"]
    hidden = np.maximum(away @ layer["kernel"] + layer["bias"], 0)
    return 16 / (1 + np.exp(-hidden @ p["head_layer"]["kernel"]))


def decomposed(p, q, t, s):
    if kind_of(t, s) is not None:
        return np.zeros(N)
    (y, x), (v, u) = PLACES[t], PLACES[s]
    r = p["rows"][v - y + H - 1] + p["columns"][u - x + W - 1]
    return q[:, t] @ r / np.sqrt(D)


ORACLES = {
    "alibi": ("bias", sequence_distance),
    "alibi_2d": ("bias", grid_distance),
    "conditional": ("tokens", conditional_tokens),
    "decomposed": ("bias", decomposed),
    "learned": ("tokens", lambda p, x: x + p["position"]),
    "learned_2d": ("tokens", learned_grid_tokens),
    "log_relative": ("bias", network),
    "relative_bias": ("bias", table_entry),
    "rotary": ("rotate", sequence_rotation),
    "rotary_2d": ("rotate", grid_rotation),
    "sinusoidal": ("tokens", sequence_tokens),
    "sinusoidal_2d": ("tokens", grid_tokens),
}
each = pytest.mark.parametrize("name", list(ORACLES))


def test_the_table_is_sorted_and_has_an_oracle_for_each():
    assert list(POSITIONS) == sorted(POSITIONS)
    assert {*ORACLES, "none"} == {*POSITIONS}


@each
def test_equals_the_formula(name):
    act, oracle = ORACLES[name]
    module, args = position.create(name, prefix=P), inputs(act)
    variables = made(module, act, *args)
    got = run(module, act, variables, *args)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables.get("params", {}))
    args = [a.astype(np.float64) for a in args]
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    if act == "tokens":
        close(got, oracle(p, *args))
    elif act == "rotate":
        for x, turned in zip(args, got, strict=True):
            close(turned, oracle(p, x))
    else:
        want = np.zeros((B, N, T, T))
        for t, s in np.ndindex(T, T):
            want[:, :, t, s] = oracle(p, args[0], t, s)
        assert got.dtype == jnp.float32
        close(np.broadcast_to(got, want.shape), want)


@each
def test_leaves_the_other_places_alone(name):
    module = position.create(name)
    assert module.acts == (ORACLES[name][0],)
    x, (q, k) = inputs("tokens")[0], inputs("bias")
    calls = {
        "tokens": lambda m: m.tokens(x, None) is x,
        "rotate": lambda m: m.rotate(q, k, None) == (q, k),
        "bias": lambda m: m.bias(q, k, None) is None,
    }
    for act, unchanged in calls.items():
        assert act in module.acts or unchanged(module)
    none = position.create("none")
    assert all(unchanged(none) for unchanged in calls.values())


@each
@pytest.mark.parametrize("prefix", [0, P])
def test_has_as_many_parameters_as_it_says(name, prefix):
    act, _ = ORACLES[name]
    module = position.create(name, prefix=prefix)
    args = inputs(act, prefix + H * W)
    shapes = made(module, act, *args)
    places = (prefix + H * W,) if name == "learned" else GRID
    count = module.parameters(places, channels=C, num_heads=N, head_dim=D)
    assert count == sum(a.size for a in jax.tree.leaves(shapes))


def test_has_the_published_numbers_of_parameters():
    numbers = {"channels": 96, "num_heads": 3, "head_dim": 32}
    count = lambda name, grid: position.create(name).parameters(grid, **numbers)
    assert count("relative_bias", (7, 7)) == 169 * 3
    assert count("decomposed", (14, 14)) == (27 + 27) * 32
    assert count("log_relative", (8, 8)) == 2 * 512 + 512 + 512 * 3
    assert count("conditional", (14, 14)) == 960
    vit = position.create("learned").parameters((197,), **(numbers | {"channels": 768}))
    assert vit == 197 * 768


@each
def test_takes_bfloat16(name):
    act, _ = ORACLES[name]
    module, args = position.create(name, prefix=P), inputs(act)
    variables = made(module, act, *args)
    low = run(module, act, variables, *(a.astype(jnp.bfloat16) for a in args))
    for got, want in zip(
        jax.tree.leaves(low),
        jax.tree.leaves(run(module, act, variables, *args)),
        strict=True,
    ):
        assert got.dtype == (jnp.float32 if act == "bias" else jnp.bfloat16)
        np.testing.assert_allclose(got, want, atol=0.03 * np.abs(want).max())


@pytest.mark.parametrize("name", sorted(ORACLES.keys() - OF_A_SEQUENCE))
def test_weights_of_one_grid_serve_another(name):
    act, _ = ORACLES[name]
    module, other = position.create(name, prefix=P), (5, 3)
    variables = made(module, act, *inputs(act))
    got = run(module, act, variables, *inputs(act, P + 15), grid=other)
    for leaf in jax.tree.leaves(got):
        assert leaf.shape[-3 if act == "rotate" else -2] == P + 15
        assert np.all(np.isfinite(leaf))


def test_a_smooth_table_keeps_its_form_on_another_grid():
    """A ramp stays a ramp away from the border, up to where it was sampled."""
    module = position.create("relative_bias")
    args = inputs("bias", 64)
    down, right = np.meshgrid(np.arange(15.0), np.arange(15.0), indexing="ij")
    table = np.stack([down, right, down - right], axis=-1).astype(np.float32)
    variables = {"params": {"table": table}}
    same = run(module, "bias", variables, *args, grid=(8, 8))
    q = np.zeros((B, 128, N, D), np.float32)
    wide = run(module, "bias", variables, q, q, grid=(16, 8))
    # Offsets of 16 rows are 31, those of 8 are 15: place i is (i + .5) 15 / 31 - .5.
    middle = 8 * 8 + 3  # row 8, column 3
    assert same[0, 1, 3, 3] == wide[0, 1, middle, middle] == 7
    for row in range(4, 12):
        want = (8 - row + 15 + 0.5) * 15 / 31 - 0.5
        np.testing.assert_allclose(wide[0, 0, middle, 8 * row + 3], want, atol=1e-4)


def test_a_sequence_with_a_trained_grid_interpolates_all_but_its_prefix():
    flat = position.create("learned", prefix=P, trained_grid=GRID)
    folded = position.create("learned_2d", prefix=P)
    (x,) = inputs("tokens", P + 15)
    table = np.random.default_rng(0).normal(size=(T, C)).astype(np.float32)
    ours = {"params": {"position": table[None]}}
    parts = {"prefix_table": table[:P], "table": table[P:].reshape(H, W, C)}
    got = run(flat, "tokens", ours, x, grid=(5, 3))
    want = run(folded, "tokens", {"params": parts}, x, grid=(5, 3))
    np.testing.assert_array_equal(got, want)
    shapes = made(flat, "tokens", x, grid=(5, 3))
    assert shapes["params"]["position"].shape == (1, T, C)


def test_sequences_may_differ_in_length():
    q, k = inputs("bias")[0], inputs("bias", 5)[1]
    for name in ("alibi", "rotary"):
        module = position.create(name)
        (act,) = module.acts
        got = run(module, act, {}, q, k, grid=None)
        full = run(module, act, {}, q, inputs("bias")[1], grid=None)
        if act == "bias":
            np.testing.assert_array_equal(got, full[..., :5])
        else:
            np.testing.assert_array_equal(got[0], full[0])
            want = run(module, act, {}, k, k, grid=None)[1]
            np.testing.assert_array_equal(got[1], want)


def test_offsets_of_the_trained_grid_mean_the_same_on_another():
    module = position.create("log_relative", trained_grid=(3, 4))
    variables = made(module, "bias", *inputs("bias", 12), grid=(3, 4))
    small = run(module, "bias", variables, *inputs("bias", 12), grid=(3, 4))
    large = run(module, "bias", variables, *inputs("bias", 30), grid=(5, 6))
    np.testing.assert_allclose(small[0, :, 0, 5], large[0, :, 0, 7], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(ORACLES.keys() - OF_A_SEQUENCE))
def test_a_grid_that_is_not_the_tokens_is_refused_with_both_numbers(name):
    act, _ = ORACLES[name]
    module, args = position.create(name, prefix=1), inputs(act)
    init = functools.partial(module.init, jax.random.key(0), *args, method=act)
    with pytest.raises(
        ValueError, match=r"prefix=1 on the grid 3x4 takes 13 .* got 14"
    ):
        init(GRID)
    with pytest.raises(ValueError, match=r"needs to know the grid \(rows, columns\)"):
        init(None)
    with pytest.raises(ValueError, match="at least one row"):
        init((0, 4))


def test_a_sequence_of_another_length_is_refused():
    module = position.create("learned")
    variables = made(module, "tokens", *inputs("tokens"), grid=None)
    with pytest.raises(ValueError, match="is for 14 tokens, but the image has 13"):
        run(module, "tokens", variables, *inputs("tokens", 13), grid=None)


def test_says_what_there_is():
    with pytest.raises(ValueError, match="unknown position encoding 'rotery'; did you"):
        position.create("rotery")
    with pytest.raises(ValueError, match="'temperatur'; did you mean 'temp"):
        position.check({"name": "rotary", "temperatur": 3})
    with pytest.raises(ValueError, match="a name, or a mapping with 'name'"):
        position.check({"temperature": 3})
    spec = position.check({"name": "learned", "trained_grid": [2, 3]})
    assert hash(spec) == hash(position.check(spec))
    assert position.check(None) == {"name": "none"}
    assert position.build(spec, prefix=1).trained_grid == (2, 3)


def test_a_trained_grid_goes_on_from_a_step():
    module = position.create("learned", prefix=P, trained_grid=GRID)
    (x,) = inputs("tokens", P + 15)
    variables = made(module, "tokens", x, grid=(5, 3))
    whole = run(module, "tokens", variables, x, grid=(5, 3))
    for first in (0, P, 7):
        part = module.apply(
            variables,
            x[:, first : first + 2],
            (5, 3),
            first,
            P + 15,
            method="part_tokens",
        )
        np.testing.assert_allclose(part, whole[:, first : first + 2], atol=1e-6)
