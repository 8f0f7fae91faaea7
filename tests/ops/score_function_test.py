"""Sampled gradients against the exact one, in a game small enough to enumerate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import ops

DRAWS = 100_000
MOVES = 3
# The reward of a first and a second move.
REWARD = np.array([[1.0, 4.0, 2.0], [5.0, 8.0, 9.0], [6.0, 2.0, 1.0]], np.float32)


def logits():
    """Of the first move [3], and of the second after each first [3, 3]."""
    rng = np.random.default_rng(0)
    shapes = (MOVES,), (MOVES, MOVES)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)


def expected_reward(logits):
    first, second = (jax.nn.softmax(x) for x in logits)
    return jnp.sum(first[:, None] * second * REWARD)


def play(logits, key):
    """Both moves, and their log-probabilities [2]."""
    keys = jax.random.split(key)
    first = jax.lax.stop_gradient(jax.random.categorical(keys[0], logits[0]))
    second = jax.random.categorical(keys[1], logits[1][first])
    logs = [jax.nn.log_softmax(logits[0])[first]]
    logs.append(jax.nn.log_softmax(logits[1][first])[second])
    return first, second, jnp.stack(logs)


def nothing(first):
    return 0.0


def average(first):
    return expected_reward(logits())


def state_values(first):
    """What is to be expected before each move: [2]."""
    after = jnp.sum(jax.nn.softmax(logits()[1]) * REWARD, axis=1)
    return jnp.stack([expected_reward(logits()), after[first]])


def single(baseline, logits, key):
    first, second, logs = play(logits, key)
    reward = jnp.asarray(REWARD)[first, second]
    return jnp.sum(ops.score_function_loss(logs, reward, baseline(first)))


def several(logits, key):
    """Four draws, each with the mean of the others as its baseline."""
    played = jax.vmap(functools.partial(play, logits))(jax.random.split(key, 4))
    first, second, logs = played
    reward = jnp.asarray(REWARD)[first, second][None]
    others = ops.leave_one_out(reward)
    loss = ops.score_function_loss(logs[None], reward[..., None], others[..., None])
    return jnp.mean(jnp.sum(loss, axis=-1))


ESTIMATORS = {
    "nothing": functools.partial(single, nothing),
    "average": functools.partial(single, average),
    "state values": functools.partial(single, state_values),
    "leave one out": several,
}


@functools.cache
def sampled(name):
    """DRAWS gradients, [DRAWS, 12] in float64."""

    @jax.jit
    def draw(keys):
        return jax.vmap(jax.grad(ESTIMATORS[name]), in_axes=(None, 0))(logits(), keys)

    found = draw(jax.random.split(jax.random.key(1), DRAWS))
    return np.concatenate([np.reshape(a, (DRAWS, -1)) for a in found], 1, dtype=float)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_mean_of_sampled_gradients_is_the_exact_gradient(name):
    exact = jax.grad(expected_reward)(logits())
    exact = -np.concatenate([np.ravel(a) for a in exact])
    found = sampled(name)
    error = found.std(axis=0) / DRAWS**0.5
    away = np.abs(found.mean(axis=0) - exact) / error
    assert np.mean(away**2) < 2**2 and away.max() < 4
    assert np.mean(np.abs(exact) > 5 * error) > 0.5


def test_baselines_lower_the_variance():
    spread = {name: sampled(name).var(axis=0).sum() for name in ESTIMATORS}
    assert spread["average"] < 0.5 * spread["nothing"]
    assert spread["state values"] < 0.9 * spread["average"]
    assert 4 * spread["leave one out"] < 0.7 * spread["nothing"]


def test_only_the_distribution_learns():
    log_prob = jnp.asarray([[-1.0, -2.0], [-0.5, -3.0]])
    reward, baseline = jnp.asarray([[2.0], [5.0]]), jnp.asarray([1.0, 0.5])

    def total(*arguments):
        return jnp.sum(ops.score_function_loss(*arguments))

    value = ops.score_function_loss(log_prob, reward, baseline)
    np.testing.assert_allclose(value, [[1, 3], [2, 13.5]])
    found = jax.grad(total, argnums=(0, 1, 2))(log_prob, reward, baseline)
    np.testing.assert_allclose(found[0], [[-1, -1.5], [-4, -4.5]])
    assert not np.any(found[1]) and not np.any(found[2])


@pytest.mark.parametrize("name", ["reward", "baseline"])
def test_what_does_not_broadcast_is_refused(name):
    given = {"reward": 1.0, "baseline": 0.0, name: jnp.zeros((4, 3))}
    with pytest.raises(ValueError, match=f"{name} of shape .4, 3. does not broadcast"):
        ops.score_function_loss(jnp.zeros(3), **given)


def test_a_moving_average_is_descent_on_the_loss_of_a_learnt_baseline():
    rewards = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    averaged = learnt = wanted = jnp.zeros(())
    for reward in jnp.asarray(rewards):
        wanted = 0.9 * wanted + 0.1 * np.mean(reward)
        averaged = ops.moving_average(averaged, reward)
        loss = lambda b, reward=reward: jnp.mean(ops.baseline_loss(b[None], reward))
        learnt = learnt - 0.05 * jax.grad(loss)(learnt)
    assert averaged == pytest.approx(float(wanted), rel=1e-5)
    assert learnt == pytest.approx(float(wanted), rel=1e-5)
    np.testing.assert_array_equal(
        jax.grad(lambda r: jnp.sum(ops.baseline_loss(jnp.zeros(5), r)))(reward), 0
    )


def test_a_baseline_of_others_does_not_see_its_own_reward():
    reward = jnp.asarray([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    want = [[4, 3.5, 1.5], [1.5, 1.5, 0]]
    np.testing.assert_allclose(ops.leave_one_out(reward), want)
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        ops.leave_one_out(reward[:, :1])
