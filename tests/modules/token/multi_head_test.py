"""MultiHead against section 3.2.2 in float64, and against flax's module."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

import attn
from attn.modules.token.base import head_shape
from attn.modules.token.multi_head import MultiHead

B, T, S, C = 2, 5, 7, 12


def tokens(seed=1):
    rng = np.random.default_rng(seed)
    q, kv = rng.normal(size=(B, T, C)), rng.normal(size=(B, S, C))
    return q.astype(np.float32), kv.astype(np.float32)


def layer_norm(x, scale):
    return (
        (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1) + 1e-6)[..., None] * (scale)
    )


def oracle(params, q, kv, mask):
    """One head of one example at a time, in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    out = np.zeros(q.shape)
    heads, dim = p["out"]["kernel"].shape[:2]
    matrix = np.zeros((B, heads, q.shape[1], kv.shape[1]))
    for b, n in np.ndindex(B, heads):

        def head(name, x, n=n):
            bias = p[name]["bias"][n] if "bias" in p[name] else 0
            return x @ p[name]["kernel"][:, n] + bias

        query, key = head("query", q[b]), head("key", kv[b])
        if "query_ln" in p:
            query = layer_norm(query, p["query_ln"]["scale"])
            key = layer_norm(key, p["key_ln"]["scale"])
        logits = np.where(mask[b, 0], query @ key.T / np.sqrt(dim), -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        matrix[b, n] = weights / weights.sum(-1, keepdims=True)
        out[b] += matrix[b, n] @ head("value", kv[b]) @ p["out"]["kernel"][n]
    return out + p["out"].get("bias", 0), matrix


def some_mask(sources):
    mask = np.random.default_rng(2).random((B, 1, T, sources)) < 0.5
    return mask | (np.arange(sources) == 1)  # every target sees something


@pytest.mark.parametrize(
    ("settings", "cross"),
    [
        ({}, False),
        ({"num_heads": 3, "qkv_bias": False, "out_bias": False}, True),
        ({"head_dim": 2, "qk_norm": True}, True),
        ({"num_heads": 2, "head_dim": 5}, False),
    ],
    ids=str,
)
def test_matches_the_paper(random_variables, settings, cross):
    module, (q, kv) = MultiHead(**settings), tokens()
    kv = kv if cross else q
    mask = some_mask(kv.shape[1])
    variables = random_variables(module, q, kv)

    capture = functools.partial(attn.capture, module, grid=(1, kv.shape[1]))
    inputs = (q, kv) if cross else (q,)
    y, maps = jax.jit(capture)(variables, *inputs, mask=mask)

    want, matrix = oracle(variables["params"], q, kv, mask)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    got = maps["token_matrix"]
    assert got.grid == (1, kv.shape[1])
    np.testing.assert_allclose(got.values, matrix, rtol=1e-5, atol=1e-6)


def bisect(logits, power):
    """Rows of sparsemax (power 1) or entmax15 (power 2), by their threshold."""
    low, high = np.full((2, *logits.shape[:-1], 1), [[[-50.0]], [[50.0]]])
    for _ in range(100):
        middle = (low + high) / 2
        weights = np.maximum(logits / power - middle, 0) ** power
        more = weights.sum(-1, keepdims=True) > 1
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return weights


NORMALIZE = {
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sparsemax": lambda x: bisect(x, 1),
    "entmax15": lambda x: bisect(x, 2),
}
GRID = (2, 2)  # of the last four of five tokens


def place(name, x):
    """Queries or keys [T, D] of one head, turned by RoPE-ViT's angles; D is 4."""
    if name != "rotary_2d":
        return x
    angles = np.array([[0, 0], [0, 0], [1, 0], [0, 1], [1, 1]])  # (column, row)
    turned = (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], -1).reshape(x.shape)


def sine(length):
    table = np.zeros((length, C))
    for t, i in np.ndindex(length, C):
        angle = t / 1e4 ** (i // 2 * 2 / C)
        table[t, i] = np.cos(angle) if i % 2 else np.sin(angle)
    return table


def extended(params, q, kv, *, normalize="softmax", position=None, gate=None):
    """All of the settings, one head at a time, in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    heads, kv_heads = p["query"]["kernel"].shape[1], p["key"]["kernel"].shape[1]
    added = position == "sinusoidal"
    asks = q + sine(q.shape[1]) if added else q
    asked = kv + sine(kv.shape[1]) if added else kv
    linear = lambda name, x, n: x @ p[name]["kernel"][:, n] + p[name]["bias"][n]
    out = np.tile(p["out"]["bias"], (*q.shape[:2], 1))
    for b, n in np.ndindex(B, heads):
        m = n * kv_heads // heads
        query = place(position, linear("query", asks[b], n))
        key, value = place(position, linear("key", asked[b], m)), kv[b]
        logits = query @ key.T / np.sqrt(query.shape[-1])
        if position == "alibi":
            distance = np.arange(len(query))[:, None] - np.arange(len(key))
            logits = logits - 2.0 ** (-8 * (n + 1) / heads) * np.abs(distance)
        y = NORMALIZE[normalize](logits) @ linear("value", value, m)
        if gate:
            y = y / (1 + np.exp(-linear("gate", q[b], n)))
        out[b] += y @ p["out"]["kernel"][n]
    return out


@pytest.mark.parametrize(
    ("settings", "cross"),
    [
        ({"num_heads": 6, "num_kv_heads": 2}, True),
        ({"num_heads": 4, "num_kv_heads": 1, "gate": "headwise"}, True),
        ({"num_heads": 3, "gate": "elementwise", "implementation": "xla"}, False),
        ({"num_heads": 2, "num_kv_heads": 1, "normalize": "sparsemax"}, True),
        ({"num_heads": 2, "normalize": "entmax15", "position": "alibi"}, False),
        ({"num_heads": 3, "normalize": "sigmoid"}, True),
        ({"num_heads": 4, "num_kv_heads": 2, "position": "alibi"}, True),
        ({"num_heads": 3, "position": "sinusoidal"}, True),
        ({"num_heads": 3, "position": "sinusoidal"}, False),
        ({"num_heads": 3, "position": {"name": "rotary_2d"}, "prefix": 1}, False),
    ],
    ids=str,
)
def test_each_setting_equals_its_formula(random_variables, settings, cross):
    module, (q, kv) = MultiHead(**settings), tokens()
    kv = kv if cross else q
    asked = (q, kv) if cross else (q,)
    grid = GRID if "prefix" in settings else None
    call = functools.partial(module.init_with_output, train=False, grid=grid)
    shapes = jax.eval_shape(call, jax.random.key(0), *asked)[1]
    rng = np.random.default_rng(5)
    variables = jax.tree.map(
        lambda a: rng.normal(scale=0.5, size=a.shape).astype(np.float32), shapes
    )
    apply = jax.jit(functools.partial(module.apply, train=False, grid=grid))
    told = {k: settings[k] for k in ("normalize", "gate") if k in settings}
    name = settings.get("position")
    name = name["name"] if isinstance(name, dict) else name
    want = extended(variables["params"], q, kv, position=name, **told)
    np.testing.assert_allclose(apply(variables, *asked), want, rtol=2e-5, atol=2e-5)
    count = sum(a.size for a in jax.tree.leaves(variables))
    assert count == module.card.parameters(module, q.shape[1:])


def test_counts_the_parameters_of_a_position_on_a_grid():
    spec = {"name": "relative_bias"}
    module = MultiHead(num_heads=3, num_kv_heads=1, position=spec, prefix=1)
    init = functools.partial(module.init, train=False, grid=GRID)
    shapes = jax.eval_shape(init, jax.random.key(0), tokens()[0])
    count = sum(a.size for a in jax.tree.leaves(shapes))
    assert count == module.card.parameters(module, (*GRID, C))
    assert shapes["params"]["position"]["table"].shape == (3, 3, 3)
    hash(module)  # as static arguments of jit are


@pytest.mark.parametrize("norm", [False, True])
def test_equals_flax(random_variables, norm):
    q, kv = tokens()
    mask = some_mask(S)
    ours = MultiHead(num_heads=3, qk_norm=norm)
    theirs = nn.MultiHeadDotProductAttention(num_heads=3, normalize_qk=norm)
    variables = random_variables(ours, q, kv)

    y = jax.jit(functools.partial(ours.apply, train=False))(variables, q, kv, mask=mask)
    want = jax.jit(theirs.apply)(variables, q, kv, mask=mask)

    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_a_token_that_sees_nothing_reads_zeros(random_variables):
    module, (q, kv) = MultiHead(), tokens()
    variables = random_variables(module, q, kv)
    mask = np.ones((B, 1, T, 1), bool)
    mask[0, 0, 2] = False
    y = module.apply(variables, q, kv, mask=mask, train=False)
    np.testing.assert_allclose(y[0, 2], variables["params"]["out"]["bias"], rtol=1e-6)


@pytest.mark.parametrize("where", ["attention_dropout", "output_dropout"])
def test_dropout_is_random_in_training_only_and_keeps_the_mean(random_variables, where):
    module, (q, _) = MultiHead(**{where: 0.5}), tokens()
    variables = random_variables(module, q)
    plain = module.apply(variables, q, train=False)

    def draw(key):
        return module.apply(variables, q, train=True, rngs={"dropout": key})

    keys = jax.random.split(jax.random.key(0), 512)
    draws = np.asarray(jax.jit(jax.vmap(draw))(keys))

    assert np.all(draws.std(0) > 1e-3)
    error = np.abs(draws.mean(0) - plain) / (draws.std(0) / np.sqrt(len(keys)))
    assert error.max() < 5, "the mean over draws is off by standard errors"
    dropped = np.mean(draws == 0)
    assert dropped == pytest.approx(0.5 if where == "output_dropout" else 0, abs=0.02)


@pytest.mark.parametrize(
    ("channels", "num_heads", "head_dim", "want"),
    [
        (64, None, None, (4, 16)),
        (64, 8, None, (8, 8)),
        (64, None, 32, (2, 32)),
        (64, 3, 5, (3, 5)),
    ],
)
def test_heads(channels, num_heads, head_dim, want):
    assert head_shape(channels, num_heads, head_dim) == want


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_heads": 5}, "num_heads=5 must divide channels=12"),
        ({"head_dim": 8}, "head_dim=8 must divide channels=12"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"num_heads": 2, "head_dim": -1}, "head_dim must be at least 1, got -1"),
        (
            {"num_heads": 6, "num_kv_heads": 4},
            "=4 must divide num_heads=6.* 1, 2, 3, 6",
        ),
        ({"num_heads": 6, "num_kv_heads": 0}, "=0 must divide num_heads=6"),
        ({"position": "rotary_2d"}, "needs to know the grid"),
    ],
)
def test_says_what_does_not_divide(settings, says):
    with pytest.raises(ValueError, match=says):
        MultiHead(**settings).init(jax.random.key(0), tokens()[0], train=False)


@pytest.mark.parametrize(
    ("channels", "count"),
    [(64, 16_640), (256, 263_168), (512, 1_050_624), (2048, 16_785_408)],
)
def test_has_the_published_number_of_parameters(channels, count):
    module = MultiHead()
    init = functools.partial(module.init, train=False)
    x = np.zeros((1, 3, channels), np.float32)
    params = jax.eval_shape(init, jax.random.key(0), x)["params"]
    assert sum(a.size for a in jax.tree.leaves(params)) == count
    assert module.card.parameters(module, (3, channels)) == count
