"""MultiHead against section 3.2.2 in float64, and against flax's module."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

import attn
from attn.modules.token.multi_head import MultiHead, head_shape

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
