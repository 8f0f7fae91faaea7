"""Talking heads against the paper's equations, one target at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn

B, T, S, C, N, D = 2, 5, 7, 12, 3, 4


def made(**settings):
    module = attn.create("talking_heads", num_heads=N, **settings)
    rng = np.random.default_rng(0)
    q, kv = (rng.normal(size=(B, n, C)).astype(np.float32) for n in (T, S))
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), q)
    draw = lambda a: jnp.asarray(0.5 * rng.normal(size=a.shape), jnp.float32)
    return module, jax.tree.map(draw, shapes), q, kv


def linear(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


def oracle(variables, q, kv, mask=None):
    """Output [B, T, C] and weights before they are mixed, float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    heads = lambda x, name: (
        np.einsum("tc,cnd->tnd", x, p[name]["kernel"]) + p[name].get("bias", 0)
    )
    y, all_weights = np.zeros((B, T, C)), np.zeros((B, N, T, S))
    for b, t in np.ndindex(B, T):
        query = heads(q[b, t : t + 1], "query")[0]
        key, value = heads(kv[b], "key"), heads(kv[b], "value")
        logits = np.array(
            [[query[n] @ key[s, n] / np.sqrt(D) for n in range(N)] for s in range(S)]
        )
        logits = linear(logits, p["mix_logits"])  # [S, N]
        seen = np.ones((S, N), bool) if mask is None else mask[b, :, t].T
        weights = np.where(seen, np.exp(logits), 0)
        weights = weights / np.maximum(weights.sum(0), 1e-300)
        mixed = np.where(seen, linear(weights, p["mix_weights"]), 0)
        read = np.array([mixed[:, n] @ value[:, n] for n in range(N)])
        y[b, t] = np.einsum("nd,ndc->c", read, p["out"]["kernel"]) + p["out"]["bias"]
        all_weights[b, :, t] = weights.T
    return y, all_weights


@pytest.mark.parametrize("variant", ["cait", "paper"])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_equations(variant, masked):
    settings = attn.card("talking_heads").variants[variant]
    module, variables, q, kv = made(**settings)
    mask = None
    if masked:
        mask = np.random.default_rng(1).uniform(size=(B, N, T, S)) < 0.6
        mask[1, :, 2] = False  # a target that may attend to nothing
    want, weights = oracle(variables, q, kv, mask)
    more = {} if mask is None else {"mask": jnp.asarray(mask)}
    y, maps = jax.jit(functools.partial(attn.capture, module, **more))(variables, q, kv)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(maps["token_matrix"].values, weights, atol=1e-6)


def test_heads_that_do_not_talk_are_multi_head():
    module, variables, q, kv = made()
    still = {"kernel": jnp.eye(N), "bias": jnp.zeros(N)}
    params = {**variables["params"], "mix_logits": still, "mix_weights": still}
    got = module.apply({"params": params}, q, kv, train=False)
    rest = {k: v for k, v in params.items() if not k.startswith("mix")}
    heads = attn.create("multi_head", num_heads=N)
    want = heads.apply({"params": rest}, q, kv, train=False)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_mask_of_few_axes_broadcasts():
    module, variables, q, kv = made()
    mask = np.arange(S) != 3
    got = module.apply(variables, q, kv, mask=jnp.asarray(mask), train=False)
    want, _ = oracle(variables, q, kv, np.broadcast_to(mask, (B, N, T, S)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "call", "message"),
    [
        ({"num_heads": 5}, {}, "num_heads=5 must divide channels=12"),
        ({}, {"mask": np.ones((T, S))}, "mask must be boolean"),
        ({}, {"mask": np.ones((T, S - 1), bool)}, r"mask of shape .*5, 6\)"),
        ({}, {"mask": np.ones((1,) * 5, bool)}, "mask of shape"),
    ],
)
def test_says_what_would_fit(settings, call, message):
    module = attn.create("talking_heads", **{"num_heads": N, **settings})
    q, kv = jnp.zeros((B, T, C)), jnp.zeros((B, S, C))
    with pytest.raises(ValueError, match=message):
        run = functools.partial(module.init, train=False, **call)
        jax.eval_shape(run, jax.random.key(0), q, kv)


def test_has_the_published_number_of_parameters():
    for channels, heads, count in ((64, 8, 16_784), (256, 8, 263_312)):
        module = attn.create("talking_heads", num_heads=heads)
        assert attn.card("talking_heads").parameters(module, (9, channels)) == count
