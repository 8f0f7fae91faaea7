"""HardAttention: what is drawn, how often, and what is noted of it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import ops, settings
from attn.modules import choices
from attn.modules.glimpse.hard_attention import HardAttention
from tests.modules.glimpse.additive_soft_test import oracle, tokens

DRAWS = 4000
SEEN = np.array([[True] * 6, [True, False, True, True, True, False]])  # of 6 sources


@functools.cache
def variables():
    module, (q, kv) = attn.create("hard_attention"), tokens()
    init = functools.partial(module.init, train=False)
    found = jax.eval_shape(init, jax.random.key(0), q, kv)
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), found)


def weights_of_the_paper():
    params = jax.tree.map(lambda a: np.asarray(a, float), variables()["params"])
    mask = np.broadcast_to(SEEN[:, None, None], (2, 1, 5, 6))
    return oracle(params, *tokens(), mask)


@functools.cache
def drawn(**given):
    """Outputs [DRAWS, B, T, C], and the choices of as many trainings."""
    module = attn.create("hard_attention", **given)

    def run(key):
        y, sown = module.apply(
            variables(),
            *tokens(),
            kv_mask=SEEN,
            train=True,
            rngs={"sample": key},
            mutable=["choices"],
        )
        return y, sown.get("choices", {}).get("choice", (None,))[0]

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), DRAWS))


def read(y):
    """Which source each target read, -1 where it is none of them: [DRAWS, B, T]."""
    kv = tokens()[1]
    same = np.all(np.asarray(y)[..., None, :] == kv[None, :, None], axis=-1)
    assert np.all(same.sum(axis=-1) <= 1)
    return np.where(same.any(axis=-1), np.argmax(same, axis=-1), -1)


def test_sources_are_read_as_often_as_the_weights_of_the_paper_say():
    y, _ = drawn(expectation=0.0)
    sources, (_, weights) = read(y), weights_of_the_paper()
    assert sources.min() >= 0
    often = (sources[..., None] == np.arange(6)).mean(axis=0)
    assert not np.any(often[weights == 0])
    np.testing.assert_allclose(often, weights, atol=4 * 0.5 / DRAWS**0.5)
    first, second = sources[:, 0, 0], sources[:, 0, 1]  # targets draw apart
    both = np.mean((first == first[0]) & (second == second[0]))
    apart = np.mean(first == first[0]) * np.mean(second == second[0])
    assert both == pytest.approx(apart, abs=4 * 0.5 / DRAWS**0.5)


def test_it_notes_the_log_probability_of_what_it_drew_and_the_entropy():
    y, choice = drawn(expectation=0.0)
    sources, (_, weights) = read(y), weights_of_the_paper()
    want = np.log(np.take_along_axis(weights[None], sources[..., None], -1)[..., 0])
    np.testing.assert_allclose(choice.log_prob, want, rtol=1e-3, atol=1e-4)
    entropy = -np.sum(weights * np.log(np.where(weights > 0, weights, 1)), axis=-1)
    np.testing.assert_allclose(choice.entropy[7], entropy, rtol=1e-3, atol=1e-5)


def test_the_expectation_is_read_for_its_share_of_examples_and_counts_for_nothing():
    y, choice = drawn(expectation=0.3)
    expected, _ = weights_of_the_paper()
    averaged = np.all(
        np.abs(np.asarray(y) - expected) < 1e-4, axis=(2, 3)
    )  # all targets of it
    share = averaged.mean(axis=0)
    np.testing.assert_allclose(share, 0.3, atol=4 * 0.5 / DRAWS**0.5)
    assert not np.any(choice.log_prob[averaged])
    assert np.all(read(y)[~averaged] >= 0)
    assert np.all(choice.entropy > 0)
    with pytest.raises(settings.Invalid, match=r"a number in \[0, 1\], got 1.5"):
        attn.create("hard_attention", expectation=1.5)


def test_evaluation_is_soft_attention_or_the_most_probable_source():
    def run(**given):
        module = attn.create("hard_attention", **given)
        return attn.capture(module, variables(), *tokens(), kv_mask=SEEN)

    y, _ = run()
    expected, weights = weights_of_the_paper()
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    y, maps = run(evaluation="argmax")
    np.testing.assert_array_equal(read(y[None])[0], np.argmax(weights, axis=-1))
    np.testing.assert_array_equal(maps["token_matrix"].values.sum(axis=-1), 1)


def test_gumbel_reads_one_source_passes_a_gradient_and_notes_nothing():
    given = {"estimator": "gumbel", "expectation": 0.0}
    y, choice = drawn(**given)
    sources, (_, weights) = read(y), weights_of_the_paper()
    assert choice is None
    often = (sources[..., None] == np.arange(6)).mean(axis=0)
    np.testing.assert_allclose(often, weights, atol=4 * 0.5 / DRAWS**0.5)
    assert slope("gumbel")["query"]["kernel"].max() > 0


def slope(estimator):
    module = attn.create("hard_attention", estimator=estimator, expectation=0.0)

    @jax.jit
    def loss(params):
        y = module.apply(
            {"params": params},
            *tokens(),
            train=True,
            rngs={"sample": jax.random.key(0)},
        )
        return jnp.sum(jnp.sin(y))

    return jax.grad(loss)(variables()["params"])


def test_reinforce_passes_no_gradient_of_its_own():
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slope("reinforce")))


class Reader(nn.Module):
    """A recurrent model that returns the choices of every step."""

    @nn.compact
    def __call__(self, kv, *, train):
        def step(attention, state, _):
            state = attention(state[:, None], kv, train=train)[:, 0]
            choice = choices.of(attention)
            return state, None if choice is None else choice.log_prob

        scan = nn.scan(
            step,
            variable_broadcast="params",
            variable_axes={"choices": 0},
            split_rngs={"params": False, "sample": True},
            length=4,
            out_axes=1,
        )
        attention = HardAttention(expectation=0.0, name="attention")
        return scan(attention, jnp.zeros(kv[:, 0].shape), None)


def test_rewards_reach_the_scores_of_a_model_that_returns_its_choices():
    """It learns to read the sources with the highest first channel, by reward alone."""
    model = Reader()
    kv = jnp.asarray(np.random.default_rng(0).normal(size=(64, 5, 6)), jnp.float32)
    params = model.init(jax.random.key(0), kv, train=False)["params"]
    assert model.apply({"params": params}, kv, train=False)[1] is None

    def loss(params, key):
        (state, log_prob), _ = model.apply(
            {"params": params}, kv, train=True, rngs={"sample": key}, mutable="choices"
        )
        assert log_prob.shape == (64, 4, 1)
        reward = state[:, 0, None, None]
        lost = ops.score_function_loss(log_prob, reward, jnp.mean(reward))
        return jnp.mean(lost), jnp.mean(reward)

    @jax.jit
    def train(params):
        def step(params, key):
            slopes, reward = jax.grad(loss, has_aux=True)(params, key)
            moved = jax.tree.map(lambda p, g: p - 0.5 * g, params, slopes)
            return moved, reward

        return jax.lax.scan(step, params, jax.random.split(jax.random.key(1), 300))

    _, rewards = train(params)
    best = float(kv[..., 0].max(axis=1).mean())
    assert rewards[:10].mean() < 0.3 * best
    assert rewards[-50:].mean() > 0.7 * best


def test_what_is_no_number_stays_none_where_the_highest_is_read():
    q, kv = (np.array(x) for x in tokens())
    q[0, 1] = np.nan
    module = attn.create("hard_attention", evaluation="argmax")
    y = module.apply(variables(), q, kv, kv_mask=SEEN, train=False)
    lost = np.isnan(y).all(-1)
    assert lost[0, 1] and lost.sum() == 1
