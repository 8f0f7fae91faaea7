"""Schedules by their values, optimizers by the update they make."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attn.train import optimizer


def rates(config, steps):
    rate = optimizer.schedule(config, steps)
    return np.asarray([rate(step) for step in range(steps)])


def test_cosine_after_a_linear_warmup():
    config = {"name": "cosine", "peak": 0.8, "warmup": 4, "final": 0.2}
    found = rates(config, 12)
    np.testing.assert_allclose(found[:5], [0.2, 0.35, 0.5, 0.65, 0.8], rtol=1e-6)
    t = np.arange(8) / 8
    want = 0.2 + 0.6 * (1 + np.cos(np.pi * t)) / 2
    np.testing.assert_allclose(found[4:], want, rtol=1e-5)


def test_step_drops_where_the_boundaries_say_whatever_the_warmup():
    config = {"name": "step", "peak": 1.0, "warmup": 2, "boundaries": (5, 8)}
    found = rates(config, 10)
    np.testing.assert_allclose(found[2:5], 1.0, rtol=1e-6)
    np.testing.assert_allclose(found[6:8], 0.1, rtol=1e-6)
    np.testing.assert_allclose(found[9:], 0.01, rtol=1e-6)


def test_constant_and_linear():
    np.testing.assert_allclose(rates({"name": "constant", "peak": 0.3}, 4), 0.3)
    found = rates({"name": "linear", "peak": 1.0, "final": 0.5}, 5)
    np.testing.assert_allclose(found, [1, 0.9, 0.8, 0.7, 0.6], rtol=1e-6)


def updated(config, params, grads, accumulate=1, times=1):
    rule = optimizer.create(config, optax.constant_schedule(0.1), accumulate=accumulate)
    state = rule.init(params)
    for grad in grads if times == len(grads) else grads * times:
        updates, state = rule.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


PARAMS = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full((2,), 2.0)}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "lion"])
def test_weight_decay_spares_biases_unless_told_not_to(name):
    config = {"name": name, "weight_decay": 0.5}
    found = updated(config, PARAMS, [ZEROS])
    assert np.all(found["kernel"] < 2)
    np.testing.assert_array_equal(found["bias"], 2)
    found = updated(config | {"decay": "all"}, PARAMS, [ZEROS])
    assert np.all(found["bias"] < 2)


def test_sgd_and_adam_add_the_decay_to_the_gradient():
    found = updated(
        {"name": "sgd", "weight_decay": 0.5, "momentum": 0.0}, PARAMS, [ZEROS]
    )
    np.testing.assert_allclose(found["kernel"], 2 - 0.1 * 0.5 * 2, rtol=1e-6)
    # Adam divides by the size of the gradient, so any penalty gives a whole step
    found = updated({"name": "adam", "weight_decay": 0.5}, PARAMS, [ZEROS])
    np.testing.assert_allclose(found["kernel"], 2 - 0.1, rtol=1e-4)
    found = updated({"name": "adamw", "weight_decay": 0.5}, PARAMS, [ZEROS])
    np.testing.assert_allclose(found["kernel"], 2 - 0.1 * 0.5 * 2, rtol=1e-6)


def test_clips_the_norm_of_the_whole_gradient():
    grads = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full((2,), 4.0)}
    norm = np.sqrt(4 * 9 + 2 * 16)
    config = {"name": "sgd", "momentum": 0.0, "clip": 1.0}
    found = updated(config, PARAMS, [grads])
    np.testing.assert_allclose(found["bias"], 2 - 0.1 * 4 / norm, rtol=1e-6)


def test_accumulated_batches_make_one_update_of_their_mean():
    a = jax.tree.map(lambda p: p * 1.0, PARAMS)
    b = jax.tree.map(lambda p: p * 3.0, PARAMS)
    mean = jax.tree.map(lambda p: p * 2.0, PARAMS)
    config = {"name": "sgd"}
    once = updated(config, PARAMS, [mean])
    twice = updated(config, PARAMS, [a, b], accumulate=2, times=2)
    np.testing.assert_allclose(twice["kernel"], once["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"name": "cosin", "peak": 0.1}, "did you mean 'cosine'"),
        ({"name": "cosine", "peak": 0.1, "warm": 3}, "did you mean 'warmup'"),
        ({"name": "cosine", "peak": -0.1}, "peak must be positive, got -0.1"),
        ({"name": "cosine", "peak": 0.1, "warmup": 10}, "0..9 steps, got 10"),
        ({"name": "cosine"}, "needs the setting 'peak'"),
    ],
)
def test_says_what_is_wrong_with_a_schedule(config, says):
    with pytest.raises(ValueError, match=says):
        optimizer.schedule(config, 10)


def test_says_what_is_wrong_with_an_optimizer():
    rate = optax.constant_schedule(0.1)
    with pytest.raises(ValueError, match=r"did you mean 'adamw'.*valid: adam, adamw"):
        optimizer.create({"name": "adamww"}, rate)
    with pytest.raises(ValueError, match="must be float, got 'much'"):
        optimizer.create({"name": "sgd", "momentum": "much"}, rate)
