"""Capture hands over what modules record, and costs nothing when nobody asks."""

import functools
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.modules import Map, sow
from attn.modules.capture import AXES, Kind, listening, unheard


class Gate(nn.Module):
    """Doubles its input and records a gate `times` times."""

    times: int = 1
    lazy: bool = False

    @nn.compact
    def __call__(self, x, *, train):
        for index in range(self.times):
            value = x[:, 0] + index + 100 * train
            sow(self, "channel_gate", (lambda v=value: v) if self.lazy else value)
        return 2 * nn.Dense(x.shape[-1], name="dense")(x)


class Host(nn.Module):
    """Two stages, of which one holds two gates, and a matrix with a grid."""

    @nn.compact
    def __call__(self, x, *, train):
        x = Gate(name="first")(x, train=train)
        x = Stage(name="stage")(x, train=train)
        weights = jnp.ones((len(x), 1, 6, 6)) / 6
        sow(self, "token_matrix", weights, grid=(2, 3))
        sow(self, "factors", (weights, weights))
        return x


class Stage(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return Gate(name="inner", times=2)(x, train=train)


def setup(module, seed=0):
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 6, 3)), jnp.float32)
    return module.init(jax.random.key(0), x, train=False), x


def test_maps_go_by_path_and_kind():
    variables, x = setup(Host())
    y, maps = attn.capture(Host(), variables, x)

    np.testing.assert_array_equal(y, Host().apply(variables, x, train=False))
    assert maps.keys() == {
        "factors",
        "first/channel_gate",
        "stage/inner/channel_gate",
        "stage/inner/channel_gate_1",
        "token_matrix",
    }
    assert maps["token_matrix"].kind == "token_matrix"
    assert maps["token_matrix"].grid == (2, 3)
    assert maps["first/channel_gate"].grid is None
    np.testing.assert_array_equal(maps["first/channel_gate"].values, x[:, 0])
    inner, later = (maps[f"stage/inner/channel_gate{end}"] for end in ("", "_1"))
    np.testing.assert_allclose(later.values, inner.values + 1, rtol=1e-6)
    assert [a.shape for a in maps["factors"].values] == [(2, 1, 6, 6)] * 2


def test_is_the_same_when_compiled_and_called_again():
    variables, x = setup(Host())
    _, eager = attn.capture(Host(), variables, x)
    run = jax.jit(functools.partial(attn.capture, Host()))
    run(variables, x)
    _, compiled = run(variables, x)
    assert compiled.keys() == eager.keys()
    for name, found in compiled.items():
        assert isinstance(found, Map)
        assert (found.kind, found.grid) == (eager[name].kind, eager[name].grid)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
            found.values,
            eager[name].values,
        )


def test_where_nobody_is_to_hear_nothing_is_made():
    calls = []

    class Costly(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            with unheard():
                sow(self, "channel_gate", lambda: calls.append(1) or x[:, 0])
            return x

    x = setup(Gate())[1]
    with listening() as heard:
        Costly().apply({}, x, train=False)
    assert heard == [] and calls == []
    assert list(attn.capture(Costly(), {}, x)[1]) == ["channel_gate"] and calls == [1]


class Deep(nn.Module):
    """Gates in an order that is not that of their names; one is called again."""

    order = ("out", "block2", "block10", "block2", "encoder0", "decoder0")

    @nn.compact
    def __call__(self, x, *, train):
        gates = {name: Gate(name=name) for name in dict.fromkeys(self.order)}
        for name in self.order:
            x = gates[name](x, train=train)
        return x


def test_maps_are_in_the_order_of_the_calls_compiled_or_not():
    variables, x = setup(Deep())
    ends = ("out", "block2", "block2", "block10", "encoder0", "decoder0")
    want = [f"{name}/channel_gate" for name in ends]
    want[2] += "_1"
    run = functools.partial(attn.capture, Deep())
    for way in (run, jax.jit(run), functools.partial(jax.eval_shape, run)):
        assert list(way(variables, x)[1]) == want


def test_train_is_false_unless_it_is_given():
    variables, x = setup(Gate())
    _, maps = attn.capture(Gate(), variables, x)
    np.testing.assert_array_equal(maps["channel_gate"].values, x[:, 0])
    _, maps = attn.capture(Gate(), variables, x, train=True)
    np.testing.assert_array_equal(maps["channel_gate"].values, x[:, 0] + 100)


class Sower(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, *, train):
        sow(self, self.kind, x)
        return x


def test_a_map_is_of_a_known_kind_and_has_its_axes():
    assert set(AXES) == set(typing.get_args(Kind))
    x = jnp.ones((2, 3))
    _, maps = attn.capture(Sower("channel_gate"), {}, x)
    assert list(maps) == ["channel_gate"]
    with pytest.raises(ValueError, match="a spatial_map has 3 axes, got an array of"):
        attn.capture(Sower("spatial_map"), {}, x)
    with pytest.raises(ValueError, match="'channel_gates'; did you mean 'channel_gate"):
        Sower("channel_gates").apply({}, x, train=False)


def test_a_module_that_keeps_averages_is_heard_in_training():
    module, x = attn.modules.create("cbam", reduction=2), jnp.ones((2, 5, 4, 8))
    variables = module.init(jax.random.key(0), x, train=False)
    assert "batch_stats" in variables
    y, maps = attn.capture(module, variables, x, train=True)
    assert y.shape == x.shape
    assert maps


def test_a_callable_is_called_only_when_somebody_captures():
    calls = []

    class Costly(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            sow(self, "channel_gate", lambda: calls.append(1) or x[:, 0])
            return x

    x = setup(Gate())[1]
    Costly().init(jax.random.key(0), x, train=False)
    Costly().apply({}, x, train=False)
    Costly().apply({}, x, train=False, mutable=["batch_stats"])
    assert not calls
    _, maps = attn.capture(Costly(), {}, x)
    assert calls == [1]
    np.testing.assert_array_equal(maps["channel_gate"].values, x[:, 0])


@pytest.mark.parametrize("lazy", [False, True])
def test_leaves_variables_and_gradients_alone(lazy):
    module = Gate(lazy=lazy)
    variables, x = setup(module)
    assert set(variables) == {"params"}
    loss = lambda v, run: jnp.sum(jnp.sin(run(v)))
    plain = jax.grad(loss)(variables, lambda v: module.apply(v, x, train=False))
    captured = jax.grad(loss)(variables, lambda v: attn.capture(module, v, x)[0])
    jax.tree.map(np.testing.assert_array_equal, plain, captured)


def test_a_module_that_records_nothing_has_no_maps():
    class Plain(nn.Module):
        def __call__(self, x, *, train):
            return x

    y, maps = attn.capture(Plain(), {}, jnp.ones((2, 3)))
    assert maps == {}
    np.testing.assert_array_equal(y, 1)


def test_a_map_is_a_pytree_that_keeps_its_kind_and_grid():
    found = jax.tree.map(lambda a: 2 * a, Map(jnp.ones(3), "token_matrix", (1, 3)))
    assert (found.kind, found.grid) == ("token_matrix", (1, 3))
    np.testing.assert_array_equal(found.values, 2)


class Listener(nn.Module):
    """Hands the maps of its stage out of a scan over words."""

    @nn.compact
    def __call__(self, x, *, train):
        def step(stage, carry, word):
            with listening() as heard:
                y = stage(word[:, None], train=train)[:, 0]
            return carry, (y, tuple(found.values for found in heard))

        stage = Stage(name="stage")
        axes = {"variable_broadcast": "params", "split_rngs": {"params": False}}
        return nn.scan(step, **axes)(stage, (), x)[1]


def test_a_model_may_listen_to_its_own_maps_where_nobody_captures():
    variables, x = setup(Listener())
    y, maps = Listener().apply(variables, x, train=True)
    assert len(maps) == 2 and y.shape == x.shape
    np.testing.assert_array_equal(maps[0], x + 100)
    np.testing.assert_array_equal(maps[1], maps[0] + 1)


def test_who_listens_hears_what_is_called_inside_alone():
    variables, x = setup(Gate())
    with listening() as outer:
        with listening() as inner:
            Gate().apply(variables, x, train=False)
        Gate().apply(variables, x, train=True)
    Gate().apply(variables, x, train=False)
    assert len(inner) == len(outer) == 1
    np.testing.assert_array_equal(outer[0].values, inner[0].values + 100)
