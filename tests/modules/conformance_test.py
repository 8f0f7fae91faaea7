"""What every mechanism promises, checked for every mechanism and each variant of it.

A mechanism in the table of `attn.modules` needs one line in CASES. Each property
names the bug it has caught elsewhere: softmax over the batch, parameters that nothing
reads, masks turned around, sizes written into the code, maps computed for nobody.
Whether the formula is right is the matter of the mechanism's own test.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

import attn
from attn.modules import MODULES, Map
from tests.modules.cases import ALL, CASES, GRID, close, initialise, made, on_grid

# Matrices whose rows do not sum to 1: divided by the number of sources instead, or
# the sum of what several windows read for one place.
NOT_NORMALISED = {
    "non_local-dot_product",
    "non_local-concatenation",
    "outlook-default",
}
# A bias of the keys adds the same to all logits of a row, and the softmax cancels it.
CANCELLED = {
    "class_attention": "['key']['bias']",
    "cross_attention": "['key']['bias']",
    "global_context": "['attend']['bias']",
    "multi_head": "['key']['bias']",
    "neighborhood": "['key']['bias']",
    "non_local": "['phi']['bias']",
    "shifted_window": "['key']['bias']",
    # What all sources of a head have in common, mixed or not.
    "talking_heads": ("['key']['bias']", "['mix_logits']['bias']"),
    "window": "['key']['bias']",
}

GATES = ("channel_gate", "spatial_map", "pixel_gate")
# Maps of gates that their formula keeps above a half.
ABOVE_HALF = {
    ("simam-default", "pixel_gate"),  # the sigmoid of a square and 1/2
    ("polarized-released_parallel", "spatial_map"),  # the sigmoid of a softmax
}


@pytest.fixture(scope="module", params=list(ALL))
def subject(request):
    """Each case in turn; pytest runs all tests of one before the next."""
    return made(request.param)


def test_every_mechanism_has_a_case():
    assert CASES.keys() == MODULES.keys()
    assert list(MODULES) == sorted(MODULES)


def test_keeps_shape_and_is_the_same_when_called_twice(subject):
    again = subject.apply(subject.variables, subject.x)  # no random stream given
    assert subject.y.shape == subject.x.shape
    assert subject.y.dtype == subject.x.dtype
    assert np.all(np.isfinite(subject.y))
    np.testing.assert_array_equal(again, subject.y)


def test_refuses_what_is_no_batch_of_maps_of_fractions(subject):
    """An image by itself would be pooled over its channels, and a gate made 0 or 1."""
    if subject.module.card.contract != "map":
        pytest.skip("reads tokens")
    run = functools.partial(initialise, subject.module)
    with pytest.raises(ValueError, match=r"x must be a map \[B, H, W, C\], got"):
        jax.eval_shape(run, subject.x[0])
    with pytest.raises(ValueError, match="floating point numbers, got uint8"):
        jax.eval_shape(run, jnp.zeros(subject.x.shape, jnp.uint8))


@pytest.mark.parametrize("channels", [16, 32, 48])
def test_has_as_many_parameters_as_the_card_says(subject, channels):
    x = jnp.zeros((*subject.x.shape[:-1], channels))
    shapes = jax.eval_shape(functools.partial(initialise, subject.module), x)
    count = sum(a.size for a in jax.tree.leaves(shapes.get("params", {})))
    assert count == subject.module.card.parameters(subject.module, x.shape[1:])


def test_other_sizes_work_with_the_same_parameters(subject):
    if "any resolution" not in subject.module.card.supports:
        pytest.skip("made for one resolution")
    for size in [(1, 1), (3, 7), (10, 5)]:
        options = on_grid(subject.module, size)
        if options and size == (1, 1):
            continue  # smaller than a window
        shape = (size[0] * size[1],) if options else size[: subject.x.ndim - 2]
        x = jax.ShapeDtypeStruct((3, *shape, 16), jnp.float32)
        run = functools.partial(subject.module.apply, train=False, **options)
        assert jax.eval_shape(run, subject.variables, x).shape == x.shape


def test_other_numbers_of_channels_work(subject):
    options = on_grid(subject.module, GRID)
    run = functools.partial(subject.module.init_with_output, train=False, **options)
    for channels in (8, 24):
        x = jnp.zeros((*subject.x.shape[:-1], channels))
        y, _ = jax.eval_shape(run, jax.random.key(0), x)
        assert y.shape == x.shape


def expected_shape(kind, shape):
    """The axes that a map of `kind` has for x of `shape`; None where any will do."""
    batch, *places, channels = shape
    targets = int(np.prod(places))
    return {
        "channel_gate": (batch, channels),
        "spatial_map": (batch, *places),
        "pixel_gate": (batch, *places, channels),
        "token_matrix": (batch, None, targets, None),
        "channel_matrix": (batch, None, None, None),
        "sampling_grid": (batch, None, None, 2),
        "factors": (batch, None, targets, None),
        "covariance": (batch, None, None),
    }[kind]


def test_records_the_maps_that_its_card_names(subject):
    y, maps = subject.captured
    close(y, subject.y, rtol=1e-6, atol=1e-6)
    assert maps
    assert {m.kind for m in maps.values()} <= set(subject.module.card.maps)
    for found in maps.values():
        assert isinstance(found, Map)
        two = found.kind in ("factors", "covariance")
        first = found.values[0] if two else found.values
        want = expected_shape(found.kind, subject.x.shape)
        for size, expected in zip(first.shape, want, strict=True):
            assert expected in (None, size)
        if found.kind == "token_matrix" and subject.module.card.contract == "map":
            assert np.prod(found.grid) == found.values.shape[-1]


@pytest.mark.parametrize("name", list(MODULES))
def test_every_kind_of_map_on_the_card_is_recorded_by_some_case(name):
    cases = [case for case, (owner, _) in ALL.items() if owner == name]
    kinds = {m.kind for case in cases for m in made(case).captured[1].values()}
    if "causal" in MODULES[name].card.supports:
        subject = made(cases[0])
        run = jax.jit(functools.partial(attn.capture, subject.module, causal=True))
        _, maps = run(subject.variables, subject.x)
        kinds |= {m.kind for m in maps.values()}
    assert kinds == set(MODULES[name].card.maps)


def test_gates_can_suppress_and_rows_sum_to_one(subject):
    for found in subject.captured[1].values():
        if found.kind == "factors":
            continue
        values = np.asarray(found.values)
        if found.kind in GATES:
            above = (subject.case, found.kind) in ABOVE_HALF
            assert 0 < values.min() < 1 - 0.5 * (not above), "gates suppress"
            assert (values.min() > 0.5) == above
            assert values.max() < 1
        if found.kind.endswith("_matrix") and subject.case not in NOT_NORMALISED:
            assert values.min() >= 0
            close(values.sum(-1), 1)
            assert values.max() > 1.02 / values.shape[-1], "attends to all alike"


def test_an_example_does_not_depend_on_its_batch(subject):
    y = subject.apply(subject.variables, subject.x.at[1:].multiply(-3.0))
    close(y[0], subject.y[0], rtol=1e-6, atol=1e-6)
    assert not np.allclose(y[1], subject.y[1])


def test_every_parameter_gets_a_gradient(subject):
    params, x = subject.gradients(subject.x)
    exempt = CANCELLED.get(ALL[subject.case][0], "none")
    softmax = subject.case not in NOT_NORMALISED
    for path, gradient in jax.tree.leaves_with_path(params):
        where, size = jax.tree_util.keystr(path), np.abs(gradient).max()
        if softmax and where.endswith(exempt):
            assert size < 1e-4, f"the softmax should cancel {where}"
        else:
            assert size > 1e-6, f"{where} changes nothing"
    assert np.all(np.abs(x).max(axis=tuple(range(1, x.ndim))) > 1e-6)


@pytest.mark.parametrize("extreme", ["large", "zeros", "constant"])
def test_gradients_are_finite_at_extreme_inputs(subject, extreme):
    factor, shift = {"large": (1e4, 0), "zeros": (0, 0), "constant": (0, 3)}[extreme]
    x = factor * subject.x + shift
    for path, gradient in jax.tree.leaves_with_path(subject.gradients(x)):
        assert np.all(np.isfinite(gradient)), jax.tree_util.keystr(path)
    assert np.all(np.isfinite(subject.apply(subject.variables, x)))


def test_computes_in_bfloat16_with_float32_parameters(subject):
    module = subject.module.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(functools.partial(initialise, module), subject.x)
    assert {a.dtype for a in jax.tree.leaves(shapes)} <= {jnp.dtype("float32")}
    options = on_grid(module, GRID)
    apply = jax.jit(functools.partial(module.apply, train=False, **options))
    y = apply(subject.variables, subject.x)
    assert y.dtype == jnp.bfloat16
    y = np.asarray(y, np.float32)
    assert np.all(np.isfinite(y))
    close(y, subject.y, rtol=0.05, atol=0.05)


def unused(jaxpr):
    """Names of the operations whose results nothing reads, nested ones too."""
    found, live = [], {v for v in jaxpr.outvars if not hasattr(v, "val")}
    for eqn in reversed(jaxpr.eqns):
        if not live.intersection(eqn.outvars):
            found.append(eqn.primitive.name)
            continue
        live.update(v for v in eqn.invars if not hasattr(v, "val"))
        if eqn.params.get("name") == "fused_attention":
            continue  # a kernel, which keeps what its backward pass would read
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=has_equations):
            if has_equations(inner):
                found += unused(getattr(inner, "jaxpr", inner))
    return found


def has_equations(leaf):
    return hasattr(getattr(leaf, "jaxpr", leaf), "eqns")


def test_nothing_is_computed_for_maps_when_nobody_asks(subject):
    plain = jax.make_jaxpr(subject.plain)(subject.variables, subject.x)
    assert len(plain.out_avals) == 1
    assert not unused(plain.jaxpr)
    # A record at initialisation would be kept and saved with the parameters.
    assert set(subject.variables) <= {"params", "batch_stats"}


def test_survives_a_checkpoint(subject):
    empty = jax.tree.map(jnp.zeros_like, subject.variables)
    restored = serialization.from_bytes(
        empty, serialization.to_bytes(subject.variables)
    )
    y = subject.apply(restored, subject.x)
    np.testing.assert_array_equal(y, subject.y)


def test_is_found_by_its_path(subject):
    kind, (_, settings) = type(subject.module), ALL[subject.case]
    path = f"{kind.__module__}:{kind.__qualname__}"
    assert attn.create(path, **settings) == subject.module


def test_pooled_statistics_are_float32_whatever_the_map_is(subject):
    gates = [m for m in subject.captured[1].values() if m.kind == "channel_gate"]
    if not gates:
        pytest.skip("no gate of channels")
    if subject.card.family == "branch":
        pytest.skip("what is pooled was computed in the type of the map")
    # Means near 3, which bfloat16 has in steps of 1/64.
    x = 3 + jnp.asarray(np.random.default_rng(6).normal(size=(2, 64, 64, 16)))
    x = x.astype(jnp.bfloat16)
    modules = (subject.module.clone(dtype=dtype) for dtype in (None, jnp.float32))
    runs = [jax.jit(functools.partial(attn.capture, module)) for module in modules]
    y, found = runs[0](subject.variables, x)
    _, exact = runs[1](subject.variables, x)
    assert y.dtype == jnp.bfloat16
    gate, want = (maps["channel_gate"].values for maps in (found, exact))
    np.testing.assert_allclose(gate, want, atol=1e-4)
