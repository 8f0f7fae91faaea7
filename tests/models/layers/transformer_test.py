"""Blocks against NumPy in float64: encoder and decoder, normalised first and after.

With the defaults the block is checked with the models that have it, too, in
interop/timm_test.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from attn import settings
from attn.models import slots
from attn.models.layers.transformer import Block, DecoderBlock

HEADS = {"name": "multi_head", "num_heads": 3}
RNG = np.random.default_rng(0)
TARGETS, MEMORY = RNG.normal(size=(3, 5, 12)), RNG.normal(size=(3, 7, 12))
REAL = np.arange(7) < np.array([[7], [4], [1]])  # of the memory
erf = np.vectorize(math.erf)
ACTIVATIONS = {
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: (
        x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2
    ),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def block(kind, fill, **more):
    return kind(fill=FrozenDict(slots.flatten(fill)), **more)


def encoder(**more):
    return block(Block, {"mixer": HEADS}, **more)


def decoder(**more):
    fill = {"decoder.self": HEADS, "decoder.cross": HEADS}
    return block(DecoderBlock, fill, **more)


def made(module, *inputs):
    """Random variables, far from those of an initialisation."""
    init = functools.partial(module.init, jax.random.key(0), train=False)
    shapes = jax.eval_shape(init, *map(jnp.float32, inputs))
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32)
    return jax.tree.map(draw, shapes)


def run(module, variables, *inputs, **options):
    apply = functools.partial(module.apply, train=False, **options)
    return jax.jit(apply)(variables, *map(jnp.float32, inputs))


def norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def attention(x, kv, p, seen):
    """Heads, one target at a time; seen [B, T, S] says which sources it reads."""
    project = lambda x, p: np.einsum("btc,cnd->btnd", x, p["kernel"]) + p["bias"]
    q, k, v = (
        project(*pair) for pair in ((x, p["query"]), (kv, p["key"]), (kv, p["value"]))
    )
    y = np.zeros_like(q)
    for b, t, n in np.ndindex(q.shape[:3]):
        weights = np.exp(k[b, :, n] @ q[b, t, n] / np.sqrt(q.shape[-1])) * seen[b, t]
        y[b, t, n] = (weights / weights.sum()) @ v[b, :, n]
    return np.einsum("btnd,ndc->btc", y, p["out"]["kernel"]) + p["out"]["bias"]


def added(x, branch, norms, first):
    return x + branch(norm(x, norms)) if first else norm(x + branch(x), norms)


def expected(params, x, memory, seen, *, first, activation):
    """The forward pass; without memory that of `Block`."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    own = "mixer" if memory is None else "self"
    read = lambda y: attention(y, y, p[own], seen[0])
    x = added(x, read, p["norm1"], first)
    if memory is not None:
        look = lambda y: attention(y, memory, p["cross"], seen[1])
        x = added(x, look, p["norm2"], first)
    act = ACTIVATIONS[activation]
    mlp = lambda y: linear(act(linear(y, p["mlp_in"])), p["mlp_out"])
    return added(x, mlp, p["norm2" if memory is None else "norm3"], first)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("first", [True, False])
def test_block_equals_numpy(first, activation):
    module = encoder(norm_first=first, activation=activation, mlp_dim=11)
    variables = made(module, TARGETS)
    seen = [np.ones((3, 5, 5))]
    want = expected(
        variables["params"], TARGETS, None, seen, first=first, activation=activation
    )
    got = run(module, variables, TARGETS)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


CAUSAL = np.broadcast_to(np.tril(np.ones((5, 5))), (3, 5, 5))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("first", [True, False])
def test_decoder_block_equals_numpy(first, padded):
    module = decoder(norm_first=first, activation="relu")
    variables = made(module, TARGETS, MEMORY)
    real = np.broadcast_to(REAL[:, None] | (not padded), (3, 5, 7))
    want = expected(
        variables["params"],
        TARGETS,
        MEMORY,
        (CAUSAL, real),
        first=first,
        activation="relu",
    )
    options = {"memory_mask": jnp.asarray(REAL)} if padded else {}
    got = run(module, variables, TARGETS, MEMORY, **options)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_decoder_that_is_not_causal_sees_all_targets_that_are_real():
    module = decoder()
    variables = made(module, TARGETS, MEMORY)
    real = np.arange(5) < np.array([[5], [3], [2]])
    seen = np.broadcast_to(real[:, None], (3, 5, 5)), np.ones((3, 5, 7))
    want = expected(
        variables["params"], TARGETS, MEMORY, seen, first=True, activation="gelu"
    )
    got = run(
        module, variables, TARGETS, MEMORY, causal=False, kv_mask=jnp.asarray(real)
    )
    np.testing.assert_allclose(got[real], want[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [True, False])
def test_decoding_step_by_step_equals_one_causal_call(first):
    module = decoder(norm_first=first)
    variables = made(module, TARGETS, MEMORY)
    want = run(module, variables, TARGETS, MEMORY, memory_mask=jnp.asarray(REAL))
    x, memory = jnp.float32(TARGETS), jnp.float32(MEMORY)
    start = module.init(jax.random.key(0), x, memory, decode=True, train=False)
    apply = functools.partial(module.apply, decode=True, train=False, mutable=["cache"])
    step = jax.jit(apply)
    cache, found = start["cache"], []
    for place in range(5):
        state = {**variables, "cache": cache}
        token = x[:, place : place + 1]
        if place == 0:  # later calls read the memory that the first has stored
            y, kept = step(state, token, memory, memory_mask=jnp.asarray(REAL))
        else:
            y, kept = step(state, token)
        cache = kept["cache"]
        found.append(y)
    got = jnp.concatenate(found, axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_slots_of_a_decoder_may_be_empty_or_hold_others():
    module = block(DecoderBlock, {"decoder.cross": "tests.models.probe:Reader"})
    module = module.clone(given=FrozenDict(num_heads=1))
    variables = made(module, TARGETS, MEMORY)
    assert set(variables["params"]) == {*("norm2", "norm3", "mlp_in", "mlp_out")}
    other = run(module, variables, TARGETS, 1 + MEMORY)
    assert np.abs(other - run(module, variables, TARGETS, MEMORY)).max() > 0.1
    maps = block(DecoderBlock, {"decoder.self": "squeeze_excite"})
    with pytest.raises(settings.Invalid, match=r"attends to maps.*lie on no grid"):
        made(maps, TARGETS, MEMORY)


def test_a_branch_is_there_twice_as_strong_or_not_at_all():
    # Without a mixer there is one branch, that of the MLP.
    module = Block(drop_path=0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(32, 6, 4)), jnp.float32)
    call = {"grid": (2, 3)}
    variables = module.init(jax.random.key(0), x, train=False, **call)
    variables = jax.tree.map(lambda a: a + 0.3, variables)
    branch = module.apply(variables, x, train=False, **call) - x
    key = {"dropout": jax.random.key(1)}
    got = module.apply(variables, x, train=True, rngs=key, **call) - x
    there = np.abs(got).max((1, 2)) > 0
    assert 8 < there.sum() < 24
    np.testing.assert_allclose(got[there], 2 * branch[there], rtol=1e-4, atol=1e-5)
    assert np.abs(branch).min() > 0  # a part of a branch would show
