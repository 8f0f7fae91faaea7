"""Every mechanism under JAX's and Flax's transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx, traverse_util
from jax import export

from attn import ops
from attn.modules import MODULES
from tests.modules.cases import ALL, GRID, close, made, on_grid


def streams():
    return {name: jax.random.key(0) for name in ("dropout", "sample")}


@pytest.fixture(scope="module", params=list(ALL))
def subject(request):
    """Each case in turn; pytest runs all tests of one before the next."""
    return made(request.param)


def test_compiled_equals_eager(subject):
    with jax.disable_jit():
        y = subject.plain(subject.variables, subject.x)
    close(subject.y, y)


def test_works_under_vmap(subject):
    x = subject.x.reshape(2, 4, *subject.x.shape[1:])
    y = jax.jit(jax.vmap(subject.plain, in_axes=(None, 0)))(subject.variables, x)
    close(y.reshape(subject.x.shape), subject.y)


def test_works_under_pmap(subject):
    x = subject.x[:, None]  # an example for each of the eight devices
    y = jax.pmap(subject.plain, in_axes=(None, 0))(subject.variables, x)
    close(y[:, 0], subject.y)


def test_training_runs_and_its_statistics_synchronise_under_pmap(subject):
    def train(module, variables, x):
        rngs, mutable = streams(), ["batch_stats"]
        options = on_grid(module, GRID)
        return module.apply(
            variables, x, train=True, rngs=rngs, mutable=mutable, **options
        )

    run = jax.jit(functools.partial(train, subject.module))
    y, state = run(subject.variables, subject.x)
    assert y.shape == subject.x.shape
    assert np.all(np.isfinite(y))
    if "batch_stats" not in subject.variables:
        return

    synchronised = functools.partial(train, subject.module.clone(axis_name="data"))
    run = jax.pmap(synchronised, axis_name="data", in_axes=(None, 0))
    parts, states = run(subject.variables, subject.x[:, None])
    close(parts[:, 0], y, rtol=1e-4, atol=1e-4)
    before = {"batch_stats": subject.variables["batch_stats"]}
    leaves = map(jax.tree.leaves, (states, state, before))
    for part, whole, old in zip(*leaves, strict=True):
        close(part, np.stack([whole] * len(part)), rtol=1e-4)
        assert not np.allclose(whole, old), "training moves the statistics"


@pytest.mark.parametrize("name", list(MODULES))
def test_wraps_as_an_nnx_module(name):
    subject = made(next(case for case, (owner, _) in ALL.items() if owner == name))
    bridge = nnx.bridge.ToNNX(subject.module, rngs=nnx.Rngs(0))
    options = on_grid(subject.module, GRID)
    model = nnx.bridge.lazy_init(bridge, subject.x, train=False, **options)
    values = {}
    for collection in subject.variables.values():
        values |= traverse_util.flatten_dict(collection)
    nnx.update(model, traverse_util.unflatten_dict(values))
    close(model(subject.x, train=False, **options), subject.y)


class Recomputed(nn.Module):
    """The recipe of `attn.modules`: `train` is not traced."""

    inner: nn.Module
    options: dict
    again: bool = True

    @nn.compact
    def __call__(self, x, *, train):
        call = lambda module, x: module(x, train=train, **self.options)
        return (nn.remat(call) if self.again else call)(self.inner, x)


def test_activations_are_computed_again_for_gradients(subject):
    options = on_grid(subject.module, GRID)
    variables = {name: {"inner": value} for name, value in subject.variables.items()}
    rngs, mutable = streams(), ["batch_stats"]

    def run(again, x):
        outer = Recomputed(subject.module, options, again)
        return outer.apply(variables, x, train=True, rngs=rngs, mutable=mutable)[
            0
        ].sum()

    plain, again = (functools.partial(run, flag) for flag in (False, True))
    assert " remat" in str(jax.make_jaxpr(again)(subject.x)).replace("[", " ")

    @jax.jit
    def slopes(x):
        return [jax.value_and_grad(f)(x) for f in (plain, again)]

    (y, slope), (other, again) = slopes(subject.x)
    close(other, y, rtol=1e-4)
    close(again, slope, rtol=1e-4, atol=1e-4)


def test_can_be_differentiated_forward_where_programs_are_plain(subject):
    run = functools.partial(subject.plain, subject.variables)

    @jax.jit
    def both(x, direction, cotangent):
        with ops.plain():
            y, tangent = jax.jvp(run, (x,), (direction,))
        (slope,) = jax.vjp(run, x)[1](cotangent)
        return y, jnp.vdot(tangent, cotangent), jnp.vdot(direction, slope)

    directions = jnp.sin(3 * subject.x), jnp.cos(subject.x)
    y, forward, backward = both(subject.x, *directions)
    close(y, subject.y)
    close(forward, backward, rtol=1e-4, atol=1e-3)


def test_is_exported_for_any_number_of_examples(subject):
    (batch,) = export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, *subject.x.shape[1:]), subject.x.dtype)
    program = export.export(jax.jit(subject.plain))(subject.variables, shape)
    close(program.call(subject.variables, subject.x[:3]), subject.y[:3])


def test_no_examples_are_no_error(subject):
    y = subject.plain(subject.variables, subject.x[:0])
    assert y.shape == (0, *subject.x.shape[1:])
