"""GatedSoft: additive attention times a gate of the query."""

import functools

import jax
import numpy as np
import pytest

import attn
from tests.modules.glimpse.additive_soft_test import oracle, tokens


@pytest.mark.parametrize("settings", [{}, {"bias": False, "hidden": 3}], ids=str)
def test_is_the_soft_attention_of_the_paper_times_beta(random_variables, settings):
    module, (q, kv) = attn.create("gated_soft", **settings), tokens()
    variables = random_variables(module, q, kv)
    capture = functools.partial(attn.capture, module)
    y, maps = jax.jit(capture)(variables, q, kv)

    params = jax.tree.map(lambda a: np.asarray(a, float), variables["params"])
    mask = np.ones((len(q), 1, q.shape[1], kv.shape[1]), bool)
    want, weights = oracle(params, q, kv, mask)
    for b, t in np.ndindex(q.shape[:2]):
        gate = params["gate_of_query"]
        logit = sum(q[b, t].astype(float) * gate["kernel"][:, 0]) + gate["bias"][0]
        want[b, t] *= 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    found = maps["token_matrix"].values[:, 0]
    np.testing.assert_allclose(found, weights, rtol=1e-5, atol=1e-6)


def test_an_open_gate_is_additive_attention(random_variables):
    module, (q, kv) = attn.create("gated_soft"), tokens()
    variables = random_variables(module, q, kv)
    params = dict(variables["params"])
    params["gate_of_query"] = {"kernel": np.zeros((8, 1)), "bias": np.array([50.0])}
    y = module.apply({"params": params}, q, kv, train=False)
    del params["gate_of_query"]
    soft = attn.create("additive_soft", bias=True)
    want = soft.apply({"params": params}, q, kv, train=False)
    np.testing.assert_allclose(y, want, rtol=1e-6)


def test_a_gate_starts_as_open_as_it_is_told():
    q, kv = tokens()
    read = {}
    for bias in (0.0, 2.0):
        module = attn.create("gated_soft", gate_bias=bias)
        variables = module.init(jax.random.key(0), q, kv, train=False)
        gate = variables["params"]["gate_of_query"]
        assert np.all(gate["bias"] == bias)
        gate["kernel"] = np.zeros_like(gate["kernel"])
        read[bias] = module.apply(variables, q, kv, train=False)
    ratio = (1 + np.exp(0)) / (1 + np.exp(-2.0))
    np.testing.assert_allclose(read[2.0], ratio * read[0.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 2 * 64 * 64 + 64 + 64 + 65), ({"hidden": 10}, 2 * 640 + 10 + 10 + 65)],
    ids=str,
)
def test_number_of_parameters(settings, count):
    module = attn.create("gated_soft", **settings)
    init = functools.partial(module.init, train=False)
    params = jax.eval_shape(init, jax.random.key(0), np.zeros((1, 3, 64)))["params"]
    assert sum(a.size for a in jax.tree.leaves(params)) == count
    assert module.card.parameters(module, (3, 64)) == count
