"""Every setting of every optimizer and schedule: its range, and that it matters."""

import dataclasses
import functools
import math
import typing

import jax
import numpy as np
import optax
import pytest

from attn import settings
from attn.train import optimizer

STEPS = 12
TABLES = [
    *(("schedule", name, kind) for name, kind in optimizer.SCHEDULES.items()),
    *(("optimizer", name, kind) for name, kind in optimizer.OPTIMIZERS.items()),
]
FIELDS = [
    (table, name, field.name)
    for table, name, kind in TABLES
    for field in dataclasses.fields(kind)
]
# Two values of each setting that must differ in what they do. A setting that another
# switches on has that, too.
VALUES = {
    "peak": ({"peak": 0.1, "warmup": 1}, {"peak": 0.2, "warmup": 1}),
    "warmup": ({"warmup": 1}, {"warmup": 3}),
    "final": ({"final": 0.0}, {"final": 0.05}),
    "boundaries": ({"boundaries": (4,)}, {"boundaries": (5,)}),
    "factor": (
        {"boundaries": (4,), "factor": 0.1},
        {"boundaries": (4,), "factor": 0.2},
    ),
    "weight_decay": ({"weight_decay": 0.0}, {"weight_decay": 0.1}),
    "decay": (
        {"weight_decay": 0.1, "decay": "kernels"},
        {"weight_decay": 0.1, "decay": "all"},
    ),
    "clip": ({"clip": None}, {"clip": 0.1}),
    "rates": ({"rates": None}, {"rates": {"a": 0.5}}),
    "momentum": ({"momentum": 0.5}, {"momentum": 0.9}),
    "nesterov": ({"nesterov": False}, {"nesterov": True}),
    "b1": ({"b1": 0.5}, {"b1": 0.9}),
    "b2": ({"b2": 0.9}, {"b2": 0.5}),
    "eps": ({"eps": 1e-8}, {"eps": 1e-1}),
}
RNG = np.random.default_rng(0)
PARAMS = {
    "a": {"kernel": RNG.normal(size=(20, 5)), "bias": RNG.normal(size=5)},
    "b": {"kernel": RNG.normal(size=(5, 2))},
}
# sizes that differ from gradient to gradient, as Adam takes no notice of a common one
GRADS = [
    jax.tree.map(lambda p, k=k: RNG.normal(size=p.shape) * 3.0**k, PARAMS)
    for k in range(4)
]


def trained(config, rate=0.1, grads=GRADS):
    """The parameters after the gradients."""
    rule = optimizer.create(config, lambda step: rate)
    single = functools.partial(jax.tree.map, np.float32)
    params = single(PARAMS)
    state = rule.init(params)
    for grad in map(single, grads):
        updates, state = rule.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


def outcome(table, name, given):
    """The rates of a schedule, or what an optimizer makes of some gradients."""
    if table == "schedule":
        config = {"peak": 0.1} | given
        rate = optimizer.schedule({"name": name, **config}, STEPS)
        return np.asarray([rate(step) for step in range(STEPS)])
    leaves = jax.tree.leaves(trained({"name": name} | given))
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


@pytest.mark.parametrize(("table", "name", "field"), FIELDS)
def test_no_setting_is_dead(table, name, field):
    one, other = (outcome(table, name, given) for given in VALUES[field])
    assert np.isfinite(one).all()
    assert np.abs(one - other).max() > 1e-4


def numeric(hint):
    """Whether a hint is of a number, in whatever it is nested."""
    inner = typing.get_args(hint)
    return hint in (int, float) or any(map(numeric, inner))


def ranged(hint):
    """Whether every number of a hint has a range."""
    if hint in (int, float):
        return False
    if typing.get_origin(hint) is typing.Annotated:
        return any(isinstance(m, settings.Range) for m in hint.__metadata__)
    return all(map(ranged, typing.get_args(hint)))


NUMERIC = [
    (table, name, field)
    for table, name, field in FIELDS
    if numeric(
        typing.get_type_hints(
            dict((n, k) for t, n, k in TABLES if t == table)[name], include_extras=True
        )[field]
    )
]


def test_every_numeric_setting_has_a_range():
    assert len(NUMERIC) > 30
    for table, name, field in NUMERIC:
        kind = {n: k for t, n, k in TABLES if t == table}[name]
        hint = typing.get_type_hints(kind, include_extras=True)[field]
        assert ranged(hint), (name, field)


@pytest.mark.parametrize(("table", "name", "field"), NUMERIC)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.5])
def test_what_is_outside_of_a_range_is_refused(table, name, field, value):
    wrong = {"rates": {"a": value}, "boundaries": (value,)}.get(field, value)
    with pytest.raises(settings.Invalid, match=rf"'{field}' of .*must be"):
        outcome(table, name, {field: wrong})


@pytest.mark.parametrize(
    ("field", "value", "fits"),
    [
        ("clip", 0, False),
        ("clip", 1e-6, True),
        ("weight_decay", 0, True),
        ("b1", 1, False),
        ("b1", 0, True),
        ("b2", 1.5, False),
        ("eps", 0, False),
    ],
)
def test_the_ends_of_ranges(field, value, fits):
    if fits:
        assert np.isfinite(outcome("optimizer", "adam", {field: value})).all()
        return
    with pytest.raises(settings.Invalid, match=f"'{field}'"):
        outcome("optimizer", "adam", {field: value})


@pytest.mark.parametrize("boundaries", [(5, 4), (4, 4), (2,)])
def test_boundaries_rise_after_the_warmup(boundaries):
    with pytest.raises(settings.Invalid, match="boundaries must rise, none before"):
        outcome("schedule", "step", {"warmup": 3, "boundaries": boundaries})


# Written out in float64, one array at a time: gradients, parameters -> parameters.
B1, B2, EPS, DECAY, RATE = 0.8, 0.7, 0.03, 0.2, 0.1


def moments(grads):
    """Adam's first and second moments after each gradient, bias corrected."""
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g * g
        yield m / (1 - B1**t), v / (1 - B2**t)


def adam(p, grads, decay):
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        g = g + decay * p
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g * g
        p = p - RATE * (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + EPS)
    return p


def adamw(p, grads, decay):
    for m, v in moments(grads):
        p = p - RATE * (m / (np.sqrt(v) + EPS) + decay * p)
    return p


def lamb(p, grads, decay):
    for m, v in moments(grads):
        step = m / (np.sqrt(v) + EPS) + decay * p
        p = p - RATE * np.linalg.norm(p) / np.linalg.norm(step) * step
    return p


def lion(p, grads, decay):
    m = 0.0
    for g in grads:
        p = p - RATE * (np.sign(B1 * m + (1 - B1) * g) + decay * p)
        m = B2 * m + (1 - B2) * g
    return p


def nesterov(p, grads, decay):
    m = 0.0
    for g in grads:
        g = g + decay * p
        m = 0.8 * m + g
        p = p - RATE * (g + 0.8 * m)
    return p


def momentum(p, grads, decay):
    m = 0.0
    for g in grads:
        m = 0.8 * m + g + decay * p
        p = p - RATE * m
    return p


BETAS = {"b1": B1, "b2": B2}
BY_HAND = [
    ({"name": "adam", **BETAS, "eps": EPS}, adam),
    ({"name": "adamw", **BETAS, "eps": EPS}, adamw),
    ({"name": "lamb", **BETAS, "eps": EPS}, lamb),
    ({"name": "lion", **BETAS}, lion),
    ({"name": "sgd", "momentum": 0.8, "nesterov": True}, nesterov),
    ({"name": "sgd", "momentum": 0.8}, momentum),
]


@pytest.mark.parametrize(
    ("config", "rule"), BY_HAND, ids=[rule.__name__ for _, rule in BY_HAND]
)
def test_optimizers_are_those_of_their_papers(config, rule):
    found = trained({**config, "weight_decay": DECAY}, RATE)
    for part, leaves in PARAMS.items():
        for name, start in leaves.items():
            grads = [grad[part][name] for grad in GRADS]
            want = rule(start, grads, DECAY if name == "kernel" else 0.0)
            np.testing.assert_allclose(found[part][name], want, rtol=2e-5, atol=1e-6)


def test_weight_decay_goes_by_the_names_of_parameters():
    shapes = {
        "stem/kernel": (3, 3, 1, 8),
        "block0/mixer/key/kernel": (8, 2, 4),
        "block0/mixer/key/bias": (2, 4),
        "block0/mixer/bias_table": (3, 3, 2),
        "block0/mixer/relative_bias": (2, 3, 3),
        "block0/mixer/temperature": (2, 1, 1),
        "block0/mixer/sources": (4, 9),
        "block0/scale1": (1, 8),
        "block0/norm1/scale": (8,),
        "block0/mixer/position/rows": (5, 4),
        "block0/mixer/position/hidden_layer/kernel": (2, 16),
        "position": (1, 10, 8),
        "position_head/kernel": (8, 2),
        "class_token": (1, 1, 8),
        "tokenizer/kernel": (8, 8),
        "score": (8,),
    }
    params: dict = {}
    for path, shape in shapes.items():
        *parts, last = path.split("/")
        inner = params
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = np.ones(shape)
    mask = optimizer.AdamW().mask(params)
    touched = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree.leaves_with_path(mask)
        if leaf
    }
    assert touched == {
        "stem/kernel",
        "block0/mixer/key/kernel",
        "block0/mixer/sources",
        "position_head/kernel",
        "tokenizer/kernel",
    }
    assert all(jax.tree.leaves(optimizer.AdamW(decay="all").mask(params)))


SCHEDULES = [
    {"name": "cosine", "peak": 0.3, "warmup": 4, "final": 0.1},
    {"name": "inverse_sqrt", "peak": 0.3, "warmup": 4},
    {"name": "linear", "peak": 0.3, "warmup": 4, "final": 0.1},
    {"name": "constant", "peak": 0.3, "warmup": 4},
    {"name": "step", "peak": 0.3, "warmup": 4, "boundaries": (6, 16), "factor": 0.5},
]


@pytest.mark.parametrize("config", SCHEDULES, ids=lambda config: config["name"])
def test_accumulated_batches_have_the_rates_of_half_as_many_joint_ones(config):
    halved = {
        "warmup": config["warmup"] // 2,
        "boundaries": tuple(b // 2 for b in config.get("boundaries", ())),
    }
    half = {name: halved.get(name, value) for name, value in config.items()}
    found = optimizer.schedule(config, 20, accumulate=2)
    want = optimizer.schedule(half, 10)
    np.testing.assert_allclose(
        [found(update) for update in range(10)],
        [want(update) for update in range(10)],
        rtol=1e-5,
    )


def test_a_warmup_shorter_than_an_update_starts_at_the_peak():
    config = {"name": "constant", "peak": 0.3, "warmup": 2}
    rate = optimizer.schedule(config, 20, accumulate=4)
    np.testing.assert_allclose([rate(update) for update in range(5)], 0.3, rtol=1e-6)


def test_fewer_steps_than_an_update_takes_are_refused():
    with pytest.raises(settings.Invalid, match="there are 3 steps, and accumulate=4"):
        optimizer.schedule({"name": "constant", "peak": 0.3}, 3, accumulate=4)


def test_the_gradient_is_clipped_once_its_batches_are_joined():
    """+10 and -9.9 have a mean of 0.05, which needs no clipping; each of them would."""
    config = {"name": "sgd", "momentum": 0.0, "clip": 1.0}
    rule = optimizer.create(config, lambda step: 0.1, accumulate=2)
    params = {"w": np.ones(1, np.float32)}
    state = rule.init(params)
    moves = []
    for grad in (10.0, -9.9):
        updates, state = rule.update({"w": np.full(1, grad, np.float32)}, state, params)
        moves.append(float(updates["w"][0]))
        assert optimizer.has_updated(state) == (grad < 0)
    np.testing.assert_allclose(moves, [0, -0.1 * 0.05], atol=1e-7)
