"""Schedules by their values, optimizers by the update they make."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attn import settings
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
    want = [0.5, 0.75, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_constant_and_linear():
    np.testing.assert_allclose(rates({"name": "constant", "peak": 0.3}, 4), 0.3)
    found = rates({"name": "linear", "peak": 1.0, "final": 0.5}, 5)
    np.testing.assert_allclose(found, [1, 0.9, 0.8, 0.7, 0.6], rtol=1e-6)


def test_inverse_sqrt_is_the_equation_of_the_transformer():
    config = {"name": "inverse_sqrt", "peak": (512 * 40) ** -0.5, "warmup": 40}
    step = np.arange(1, 201)
    want = 512**-0.5 * np.minimum(step**-0.5, step * 40**-1.5)
    np.testing.assert_allclose(rates(config, 200), want, rtol=1e-5)


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
        (
            {"name": "cosine", "peak": -0.1},
            "must be a positive number, got -0.1",
        ),
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
    with pytest.raises(ValueError, match=r"'momentum' .* got 'much'"):
        optimizer.create({"name": "sgd", "momentum": "much"}, rate)


# Parts of different depths; "theta" stands on two paths, "input" on three.
PARTS = {
    "input": {"conv1": {"kernel": 0.0, "bias": 0.0}, "theta": {"kernel": 0.0}},
    "stage": {"conv1": {"kernel": 0.0}, "conv11": {"kernel": 0.0}, "theta": 0.0},
}


def moved(config, gradients):
    """How far each parameter goes from 2 by these gradients, the same for all."""
    params = jax.tree.map(lambda _: jnp.full((2, 3), 2.0), PARTS)
    grads = [
        jax.tree.map(lambda p, g=g: jnp.full_like(p, g), params) for g in gradients
    ]
    found = updated(config, params, grads, times=len(grads))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(2 - leaf[1, 2])
        for path, leaf in jax.tree.leaves_with_path(found)
    }


@pytest.mark.parametrize(
    ("config", "whole"),
    [
        # 0.1 (g1 + 0.5 g1 + g2) with gradients of 3 and 5
        ({"name": "sgd", "momentum": 0.5}, 0.1 * (3 + 1.5 + 5)),
        # m / sqrt(v) is 1 at first; then by hand from the moments of 3 and 5
        (
            {"name": "adam", "b1": 0.5, "b2": 0.75},
            0.1 + 0.1 * (3.25 / 0.75) / ((0.75 * 2.25 + 0.25 * 25) / 0.4375) ** 0.5,
        ),
    ],
)
def test_rates_multiply_the_whole_step_of_the_parts_they_name(config, whole):
    rates = {"input": 0.25, "stage/conv1": 0.5, "theta": 0.0}
    found = moved(config | {"rates": rates}, [3.0, 5.0])
    want = {
        "input/conv1/kernel": 0.25,
        "input/conv1/bias": 0.25,
        "input/theta/kernel": 0.25,  # the first name counts
        "stage/conv1/kernel": 0.5,
        "stage/conv11/kernel": 1.0,
        "stage/theta": 0.0,
    }
    assert found.keys() == want.keys()
    for name, factor in want.items():
        assert found[name] == pytest.approx(factor * whole, rel=1e-5), name


def test_rates_reach_the_decoupled_decay_and_come_after_clipping():
    config = {"name": "adamw", "weight_decay": 0.5, "rates": {"input": 0.25}}
    found = moved(config, [0.0])
    assert found["input/conv1/kernel"] == pytest.approx(0.25 * 0.1 * 0.5 * 2, rel=1e-5)
    assert found["stage/conv1/kernel"] == pytest.approx(0.1 * 0.5 * 2, rel=1e-5)
    config = {"name": "sgd", "momentum": 0.0, "clip": 1.0, "rates": {"input": 0.25}}
    one = 0.1 / 36**0.5  # six arrays of six equal numbers
    found = moved(config, [7.0])
    assert found["stage/theta"] == pytest.approx(one, rel=1e-4)
    assert found["input/theta/kernel"] == pytest.approx(one / 4, rel=1e-4)


def test_the_gradient_of_what_stays_as_it_is_counts_for_nothing():
    config = {"name": "sgd", "momentum": 0.0, "clip": 1.0, "rates": {"input": 0.0}}
    found = moved(config, [7.0])
    one = 0.1 / 18**0.5  # three arrays of the six count
    assert found["stage/theta"] == pytest.approx(one, rel=1e-4)
    assert found["input/theta/kernel"] == 0
    grads = jax.tree.map(lambda _: jnp.full((2, 3), 7.0), PARTS)
    grads["input"] = jax.tree.map(lambda g: g * jnp.nan, grads["input"])
    params = jax.tree.map(jnp.ones_like, grads)
    found = updated(config, params, [grads])
    np.testing.assert_allclose(found["stage"]["theta"], 1 - one, rtol=1e-4)
    np.testing.assert_array_equal(found["input"]["theta"]["kernel"], 1)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_what_a_model_holds_is_not_even_decayed(name):
    config = {"name": name, "weight_decay": 0.1, "rates": {"stage": 0.5, "input": 0.5}}
    made = optimizer.create(config, lambda step: 0.1, held=["input"])
    params = jax.tree.map(lambda _: jnp.ones((2, 3)), PARTS)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = made.update(grads, made.init(params), params)
    assert not any(map(np.any, jax.tree.leaves(updates["input"])))
    assert all(map(np.all, jax.tree.leaves(updates["stage"])))


def test_of_several_names_in_rates_the_longest_counts():
    for rates in ({"stage": 0.5, "stage/conv1": 0.0}, {"stage/conv1": 0, "stage": 0.5}):
        found = moved({"name": "sgd", "momentum": 0.0, "rates": rates}, [3.0])
        assert found["stage/conv1/kernel"] == 0
        assert found["stage/theta"] == pytest.approx(0.15)
        assert found["input/conv1/kernel"] == pytest.approx(0.3)


@pytest.mark.parametrize("factor", ["0.1", True, -0.1, float("inf"), None])
def test_a_factor_that_is_no_rate_is_refused(factor):
    with pytest.raises(settings.Invalid, match=r"'rates'.*a number of at least 0"):
        optimizer.create({"name": "sgd", "rates": {"input": factor}}, lambda step: 0.1)


def test_a_part_that_is_not_there_is_refused():
    optimizer.check({"name": "sgd", "rates": {"input/theta": 0.1}}, PARTS)
    optimizer.check({"name": "sgd", "rates": None}, PARTS)
    optimizer.check({"name": "sgd"}, PARTS)
    with pytest.raises(ValueError, match=r"unknown part in rates 'inptu'.*'input'"):
        optimizer.check({"name": "sgd", "rates": {"inptu": 0.1}}, PARTS)
    with pytest.raises(ValueError, match="unknown part in rates 'stage/input'"):
        optimizer.check({"name": "sgd", "rates": {"stage/input": 0.1}}, PARTS)
