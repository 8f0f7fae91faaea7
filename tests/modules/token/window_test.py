"""Window and shifted window attention against equation 4, token by token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import models

C, N, D = 12, 3, 4
GRID = (5, 7)


def made(name, grid=GRID, batch=2, **settings):
    """A module with random variables, far from the initial ones, and tokens."""
    module = attn.create(name, num_heads=N, **settings)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, grid[0] * grid[1], C)).astype(np.float32)
    init = functools.partial(module.init, grid=grid, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    draw = lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), jnp.float32)
    return module, jax.tree.map(draw, shapes), x


def run(module, variables, x, **more):
    apply = functools.partial(module.apply, train=False, **more)
    return np.asarray(jax.jit(apply)(variables, x))


def oracle(variables, x, grid, window, shift, seen_padding=False, mask=None):
    """Output [B, T, C] and weights [B, N, T, T], float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    x = np.asarray(x, np.float64)
    height, width = (-(-n // m) * m for n, m in zip(grid, window, strict=True))
    padded = np.zeros((len(x), height, width, C))
    padded[:, : grid[0], : grid[1]] = x.reshape(len(x), *grid, C)
    q, k, v = (
        np.einsum("bhwc,cnd->bhwnd", padded, p[name]["kernel"]) + p[name]["bias"]
        for name in ("query", "key", "value")
    )
    table = p.get("bias_table", np.zeros((99, 99, N)))
    total = grid[0] * grid[1]
    y, weights = np.zeros((len(x), total, N, D)), np.zeros((len(x), N, total, total))
    for b, n, t in np.ndindex(len(x), N, total):
        here = divmod(t, grid[1])
        logits = {}
        for there in np.ndindex(height, width):
            real = there[0] < grid[0] and there[1] < grid[1]
            same = all(
                (here[a] - shift[a]) // window[a] == (there[a] - shift[a]) // window[a]
                for a in (0, 1)
            )
            s = there[0] * grid[1] + there[1]
            if not same or not (real or seen_padding):
                continue
            if mask is not None and not mask[b, n, t, s]:
                continue
            away = (
                here[0] - there[0] + window[0] - 1,
                here[1] - there[1] + window[1] - 1,
            )
            score = q[b, *here, n] @ k[b, *there, n] / np.sqrt(D)
            logits[there] = score + table[away][n]
        whole = sum(np.exp(z) for z in logits.values())
        for there, z in logits.items():
            y[b, t, n] += np.exp(z) / whole * v[b, *there, n]
            if there[0] < grid[0] and there[1] < grid[1]:
                s = there[0] * grid[1] + there[1]
                weights[b, n, t, s] = np.exp(z) / whole
    return np.einsum("btnd,ndc->btc", y, p["out"]["kernel"]) + p["out"]["bias"], weights


@pytest.mark.parametrize(
    ("name", "grid", "settings", "shift"),
    [
        ("window", (4, 6), {"window": (2, 3)}, (0, 0)),
        ("window", GRID, {"window": (2, 3)}, (0, 0)),
        ("window", GRID, {"window": 3, "padding": "attended"}, (0, 0)),
        ("shifted_window", (4, 6), {"window": (2, 3)}, (1, 1)),
        ("shifted_window", GRID, {"window": 3}, (1, 1)),
        ("shifted_window", GRID, {"window": 4, "padding": "attended"}, (2, 2)),
        ("shifted_window", GRID, {"window": (2, 4), "shift": (1, 3)}, (1, 3)),
        # A single window along an axis is not shifted along it.
        ("shifted_window", GRID, {"window": (5, 4)}, (0, 2)),
    ],
)
def test_equals_the_equation(name, grid, settings, shift):
    module, variables, x = made(name, grid, **settings)
    window = settings["window"]
    window = (window, window) if isinstance(window, int) else window
    attended = settings.get("padding") == "attended"
    want, weights = oracle(variables, x, grid, window, shift, attended)
    capture = functools.partial(attn.capture, module, grid=grid)
    y, maps = jax.jit(capture)(variables, x)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(maps["token_matrix"].values, weights, atol=1e-6)
    assert maps["token_matrix"].grid == grid


@pytest.mark.parametrize("shape", [(2, N, 35, 35), (1, 1, 1, 35), (N, 35, 35)])
def test_a_mask_of_the_whole_grid_is_cut_into_windows(shape):
    module, variables, x = made("shifted_window", window=3)
    mask = np.random.default_rng(1).uniform(size=shape) < 0.7
    mask = mask | np.eye(35, dtype=bool) if shape[-2] == 35 else mask
    whole = np.broadcast_to(mask, (2, N, 35, 35))
    whole = whole & (np.arange(35) != 8)  # all that token 8 could see may be hidden
    mask = mask & (np.arange(35) != 8)
    want, _ = oracle(variables, x, GRID, (3, 3), (1, 1), mask=whole)
    got = run(module, variables, x, grid=GRID, mask=jnp.asarray(mask))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("hidden", [0, 34])
def test_padding_is_seen_whichever_token_is_hidden(hidden):
    """The last token is no more to padding than another one."""
    module, variables, x = made("window", window=3, padding="attended")
    see = np.arange(35) != hidden
    want = run(module, variables, x, grid=GRID)
    got = run(module, variables, x, grid=GRID, kv_mask=jnp.asarray(see)[None])
    changed = np.abs(got - want).max((0, 2)).reshape(GRID) > 1e-6
    window = np.zeros(GRID, bool)
    rows, columns = (slice(0, 3), slice(0, 3)) if hidden == 0 else (slice(3, 5), [6])
    window[rows, columns] = True
    np.testing.assert_array_equal(changed, window)


def test_a_target_that_sees_nothing_sees_no_padding():
    module, variables, x = made("window", window=3, padding="attended")
    mask = np.ones((35, 35), bool)
    mask[34] = False
    got = run(module, variables, x, grid=GRID, mask=jnp.asarray(mask))
    bias = variables["params"]["out"]["bias"]
    np.testing.assert_allclose(got[:, 34], np.broadcast_to(bias, got[:, 34].shape))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        # Token 9 lies at (1, 2): windows of 2x3 begin at (0, 0), or at (1, 1) shifted.
        ("window", [0, 1, 2, 7, 8, 9]),
        ("shifted_window", [8, 9, 10, 15, 16, 17]),
    ],
)
def test_a_token_is_seen_in_its_window_only(name, near):
    module, variables, x = made(name, window=(2, 3))
    changed = x.copy()
    changed[:, 9] += 1
    moved = run(module, variables, changed, grid=GRID)
    moved = np.abs(moved - run(module, variables, x, grid=GRID))
    assert np.flatnonzero(moved.max((0, 2)) > 1e-5).tolist() == near


@pytest.mark.parametrize("name", ["window", "shifted_window"])
def test_one_window_without_bias_is_multi_head(name):
    module, variables, x = made(name, window=GRID, relative_bias=False)
    heads = attn.create("multi_head", num_heads=N)
    np.testing.assert_allclose(
        run(module, variables, x, grid=GRID),
        run(heads, variables, x),
        rtol=1e-5,
        atol=1e-5,
    )


def test_padding_makes_no_difference_to_windows_that_have_none():
    # Of 5x7 tokens, 3x3 windows have padding in the last row and the last column.
    module, variables, x = made("window", window=3)
    other = module.clone(padding="attended")
    differs = run(module, variables, x, grid=GRID) - run(other, variables, x, grid=GRID)
    differs = np.abs(differs).max((0, 2)).reshape(GRID) > 1e-6
    want = np.zeros(GRID, bool)
    want[3:], want[:, 6:] = True, True
    np.testing.assert_array_equal(differs, want)


def test_gradients_are_zero_where_padding_was():
    module, variables, x = made("shifted_window", window=4)
    loss = lambda x: module.apply(variables, x, grid=GRID, train=False).sum()
    assert np.isfinite(jax.jit(jax.grad(loss))(x)).all()


def test_weights_are_dropped_in_training_only():
    module, variables, x = made("window", window=3, attention_dropout=0.5)
    apply = jax.jit(functools.partial(module.apply, grid=GRID, train=True))
    one, same, other = (
        apply(variables, x, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    plain = module.clone(attention_dropout=0.0)
    kept = run(module, variables, x, grid=GRID)
    np.testing.assert_array_equal(kept, run(plain, variables, x, grid=GRID))


@pytest.mark.parametrize(
    ("name", "settings", "call", "message"),
    [
        ("window", {}, {"grid": None}, r"needs grid.* 35 tokens.*pool='mean'"),
        (
            "window",
            {},
            {"grid": (5, 6)},
            "5 x 6 has 30 places, but .* 35 tokens",
        ),
        (
            "window",
            {"window": (3, 8)},
            {},
            "window 3x8 is larger than its grid 5x7; windows up to 3x7 fit",
        ),
        ("window", {"num_heads": 5}, {}, "num_heads=5 must divide channels=12"),
        ("window", {}, {"kv": np.zeros((2, 35, C))}, "takes no kv"),
        ("window", {}, {"mask": np.ones((1, 35))}, "must be boolean.*float64"),
        (
            "window",
            {},
            {"mask": np.ones((35, 34), bool)},
            r"\(35, 34\).*= \(2, 3, 35, 35\)",
        ),
        ("window", {}, {"mask": np.ones((1,) * 5, bool)}, r"\(1, 1, 1, 1, 1\)"),
        ("shifted_window", {"shift": 3}, {}, "shift=3 must be at least 0 and below"),
        ("shifted_window", {"shift": -1}, {}, "shift=-1 must be at least 0"),
        ("window", {"window": 0}, {}, "'window'.*must be a positive int"),
    ],
)
def test_says_what_would_fit(name, settings, call, message):
    with pytest.raises(ValueError, match=message):
        module = attn.create(name, **{"window": 3, "num_heads": N, **settings})
        call = {"grid": GRID, **call}
        kv = call.pop("kv", None)
        x = jnp.zeros((2, 35, C))
        run = functools.partial(module.init, train=False, **call)
        jax.eval_shape(run, jax.random.key(0), x, kv)


def test_variables_of_another_window_are_refused():
    _, variables, x = made("window", window=3)
    other = attn.create("window", window=2, num_heads=N)
    with pytest.raises(
        ValueError, match=r"window of 2x2 needs.*\(3, 3, 3\).*\(5, 5, 3\)"
    ):
        run(other, variables, x, grid=GRID)


def test_has_the_published_number_of_parameters():
    # Heads of 32 channels, windows of 7x7: timm's.
    for channels, count in {64: 16_978, 256: 264_520, 512: 1_053_328}.items():
        module = attn.create("window", head_dim=32)
        assert attn.card("window").parameters(module, (49, channels)) == count


@pytest.mark.parametrize("name", ["window", "shifted_window"])
def test_drops_into_tokens_and_maps_of_hosts(name):
    images = jnp.zeros((1, 32, 32, 3))
    mixer = {"name": name, "window": 2}
    small = {"patch_size": 8, "width": 12, "depth": 1, "num_heads": 3}
    hosts = [
        models.create(
            "vit", num_classes=5, pool="mean", slots={"mixer": mixer}, **small
        ),
        models.create("resnet", num_classes=5, depth=18, slots={"stage.end": mixer}),
    ]
    for host in hosts:
        init = functools.partial(host.init, train=False)
        if host is hosts[1]:  # its last map is 1x1
            with pytest.raises(ValueError, match="window 2x2 is larger than its grid"):
                jax.eval_shape(init, jax.random.key(0), images)
            host = host.clone(fill={"stage1/stage.end": mixer})
            init = functools.partial(host.init, train=False)
        shapes = jax.eval_shape(init, jax.random.key(0), images)
        capture = functools.partial(attn.capture, host)
        y, maps = jax.eval_shape(capture, shapes, images)
        assert y.shape == (1, 5)
        assert len(maps) == 1
    class_token = models.create("vit", num_classes=5, slots={"mixer": mixer}, **small)
    with pytest.raises(ValueError, match=r"needs grid=.*pool='mean' has none"):
        init = functools.partial(class_token.init, train=False)
        jax.eval_shape(init, jax.random.key(0), images)
