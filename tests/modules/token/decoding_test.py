"""Decoding with position encodings: an appended token knows its place."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.modules.position import POSITIONS
from tests.modules.cases import close, disturb

GRID = (2, 3)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)), jnp.float32)


def made(position):
    module = attn.create("multi_head", num_heads=2, position=position)
    init = functools.partial(module.init, train=False, grid=GRID)
    return module, disturb(jax.jit(init)(jax.random.key(0), X))


@pytest.mark.parametrize("position", sorted(POSITIONS.keys() - {"conditional"}))
def test_a_step_is_that_of_the_causal_pass(position):
    module, variables = made(position)
    run = functools.partial(module.apply, train=False, grid=GRID)
    want = jax.jit(functools.partial(run, causal=True))(variables, X)

    @jax.jit
    def step(cache, x):
        y, changed = run(
            {**variables, "cache": cache}, x, decode=True, mutable=["cache"]
        )
        return changed["cache"], y

    init = functools.partial(module.init, train=False, grid=GRID, decode=True)
    shapes = jax.eval_shape(init, jax.random.key(0), X)["cache"]
    cache = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    cache, first = step(cache, X[:, :3])
    _, others = jax.lax.scan(step, cache, X[:, 3:].swapaxes(0, 1)[:, :, None])
    others = others[:, :, 0].swapaxes(0, 1)
    close(jnp.concatenate([first, others], axis=1), want)
    if position != "none":
        plain = attn.create("multi_head", num_heads=2)
        params = {"params": {k: v for k, v in variables["params"].items()}}
        params["params"].pop("position", None)
        y = jax.jit(functools.partial(plain.apply, train=False, causal=True))(params, X)
        assert not np.allclose(y[:, 1:], want[:, 1:], atol=1e-3)


def test_an_encoding_that_looks_ahead_is_not_causal():
    module, variables = made("conditional")
    with pytest.raises(ValueError, match="'conditional' tells tokens of later ones"):
        module.apply(variables, X, causal=True, grid=GRID, train=False)


def test_cross_attention_that_decodes_has_no_position():
    module = attn.create("multi_head", num_heads=2, position="rotary")
    with pytest.raises(ValueError, match="does not know the places of its targets"):
        module.init(jax.random.key(0), X, X[:, :4], decode=True, train=False)


def test_late_places_are_turned_by_exact_angles():
    length, dim = 4096, 64
    q = np.random.default_rng(0).normal(size=(1, 1, 1, dim)).astype(np.float32)
    options = {"method": "part_rotate"}
    rotary = POSITIONS["rotary"]()
    turned, _ = rotary.apply({}, q, q, None, length - 1, length, **options)
    angles = (length - 1) * 1e4 ** (-np.arange(0, dim, 2) / dim)
    even, odd = q[0, 0, 0, 0::2].astype(float), q[0, 0, 0, 1::2].astype(float)
    want = [even * np.cos(angles) - odd * np.sin(angles)]
    want += [even * np.sin(angles) + odd * np.cos(angles)]
    np.testing.assert_allclose(
        np.asarray(turned)[0, 0, 0], np.stack(want, -1).ravel(), atol=2e-6
    )
