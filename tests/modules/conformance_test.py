"""What every mechanism promises, checked for every mechanism and each variant of it.

A mechanism in the table of `attn.modules` needs one line in CASES. Each property
names the bug it has caught elsewhere: softmax over the batch, parameters that nothing
reads, masks turned around, sizes written into the code, maps computed for nobody.
Whether the formula is right is the matter of the mechanism's own test.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization, traverse_util

import attn
from attn.modules import MODULES, Map

# Settings with which each mechanism runs here, small ones; its variants go on top.
CASES = {
    "additive_soft": {"hidden": 12},
    "cbam": {"reduction": 4, "kernel_size": 3},
    "class_attention": {},
    "cross_attention": {},
    "cross_covariance": {},
    "efficient_channel": {},
    "linear": {},
    "linformer": {"rank": 5},
    "multi_head": {},
    "neighborhood": {"window": 3},
    "non_local": {},
    "performer": {"num_features": 24},
    "pixel_attention": {"reduction": 4},
    "shifted_window": {"window": (3, 2)},
    "spatial_transformer": {"widths": (4, 5, 6), "downsample": 1, "kernel_size": 3},
    "squeeze_excite": {"reduction": 4},
    "talking_heads": {},
    "window": {"window": (3, 2)},
}
# Further settings worth all of these tests.
MORE = [
    ("cbam", {"spatial": "conv1x1", "order": "parallel"}),
    ("squeeze_excite", {"squeeze": "none"}),
    ("multi_head", {"num_kv_heads": 2, "gate": "headwise", "normalize": "entmax15"}),
    ("non_local", {"pairwise": "gaussian", "subsample": "projected"}),
    ("non_local", {"pairwise": "dot_product"}),
    ("non_local", {"pairwise": "concatenation"}),
    ("spatial_transformer", {"transform": "projective", "padding": "border"}),
    ("spatial_transformer", {"transform": "thin_plate", "padding": "reflection"}),
]
# Matrices whose rows are divided by the number of sources, not by their sum.
NOT_NORMALISED = {"non_local-dot_product", "non_local-concatenation"}
# A bias of the keys adds the same to all logits of a row, and the softmax cancels it.
CANCELLED = {
    "class_attention": "['key']['bias']",
    "cross_attention": "['key']['bias']",
    "multi_head": "['key']['bias']",
    "neighborhood": "['key']['bias']",
    "non_local": "['phi']['bias']",
    "shifted_window": "['key']['bias']",
    # What all sources of a head have in common, mixed or not.
    "talking_heads": ("['key']['bias']", "['mix_logits']['bias']"),
    "window": "['key']['bias']",
}

SHAPES = {"map": (8, 9, 12, 16), "token": (8, 12, 16)}
GRID = (3, 4)  # of the tokens, for attentions whose card supports "grid"
GATES = ("channel_gate", "spatial_map", "pixel_gate")


def all_cases():
    """Every variant of every mechanism, and MORE: id -> (name, settings)."""
    cases = {}
    for name, module in MODULES.items():
        for label, settings in (dict(module.card.variants) or {"default": {}}).items():
            cases[f"{name}-{label}"] = name, CASES.get(name, {}) | settings
    for name, settings in MORE:
        label = "-".join(map(str, settings.values()))
        cases[f"{name}-{label}"] = name, CASES[name] | settings
    return cases


ALL = all_cases()


@dataclasses.dataclass
class Subject:
    """One case: the module, variables that are not the initial ones, and an input."""

    case: str
    module: nn.Module
    variables: Any
    x: jax.Array

    @functools.cached_property
    def plain(self):
        """`module.apply`, not compiled, on the grid of the tokens if it needs one."""
        return functools.partial(
            self.module.apply, train=False, **on_grid(self.module, GRID)
        )

    @functools.cached_property
    def apply(self):
        return jax.jit(self.plain)

    @functools.cached_property
    def y(self):
        return self.apply(self.variables, self.x)

    @functools.cached_property
    def captured(self):
        """The output and the maps, of one compiled call."""
        options = on_grid(self.module, GRID)
        run = jax.jit(functools.partial(attn.capture, self.module, **options))
        return run(self.variables, self.x)

    @functools.cached_property
    def gradients(self):
        """A compiled function of x: gradients by the parameters and by x."""
        state = {k: v for k, v in self.variables.items() if k != "params"}

        def loss(params, x):
            y = self.plain({"params": params, **state}, x)
            return jnp.sum(jnp.sin(y / (1 + jnp.abs(y))))  # bounded for any y

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
        return functools.partial(gradient, self.variables.get("params", {}))


def on_grid(module, grid):
    """The argument `grid`, for attentions that cannot do without."""
    return {"grid": grid} if "grid" in module.card.supports else {}


def initialise(module, x):
    options = on_grid(module, GRID)
    return module.init(jax.random.key(1), x, train=False, **options)


def disturb(variables):
    """Moves every variable off its initial value, by about its natural size."""
    rng = np.random.default_rng(2)

    def leaf(path, a):
        if path[-1].key == "var":
            return a * rng.uniform(0.5, 2, a.shape).astype(a.dtype)
        width = 0.5 * np.prod(a.shape[:-1]) ** -0.5 if a.ndim > 1 else 0.2
        return a + width * rng.normal(size=a.shape).astype(a.dtype)

    return jax.tree.map_with_path(leaf, variables)


@functools.cache
def made(case):
    name, settings = ALL[case]
    module = attn.create(name, **settings)
    rng = np.random.default_rng(0)
    shape = SHAPES[module.card.contract]
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    variables = jax.jit(functools.partial(initialise, module))(x)
    return Subject(case, module, disturb(variables), x)


@pytest.fixture(scope="module", params=list(ALL))
def subject(request):
    """Each case in turn; pytest runs all tests of one before the next."""
    return made(request.param)


def for_tokens(subject, feature):
    if (
        subject.module.card.contract != "token"
        or feature not in subject.module.card.supports
    ):
        pytest.skip(f"no token attention with {feature!r}")


def close(got, want, *, rtol=1e-5, atol=3e-5):
    # Programs compiled apart round apart, and what is read between two pixels differs
    # by their difference times the rounding of the position.
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def test_every_mechanism_has_a_case():
    assert CASES.keys() == MODULES.keys()
    assert list(MODULES) == sorted(MODULES)


def test_keeps_shape_and_is_the_same_when_called_twice(subject):
    again = subject.apply(subject.variables, subject.x)  # no random stream given
    assert subject.y.shape == subject.x.shape
    assert subject.y.dtype == subject.x.dtype
    assert np.all(np.isfinite(subject.y))
    np.testing.assert_array_equal(again, subject.y)


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
    }[kind]


def test_records_the_maps_that_its_card_names(subject):
    y, maps = subject.captured
    close(y, subject.y, rtol=1e-6, atol=1e-6)
    assert maps
    assert {m.kind for m in maps.values()} <= set(subject.module.card.maps)
    for found in maps.values():
        assert isinstance(found, Map)
        first = found.values[0] if found.kind == "factors" else found.values
        want = expected_shape(found.kind, subject.x.shape)
        for size, expected in zip(first.shape, want, strict=True):
            assert expected in (None, size)
        if found.kind == "token_matrix" and subject.module.card.contract == "map":
            assert np.prod(found.grid) == found.values.shape[-1]


@pytest.mark.parametrize("name", list(MODULES))
def test_every_kind_of_map_on_the_card_is_recorded_by_some_case(name):
    cases = [case for case, (owner, _) in ALL.items() if owner == name]
    kinds = {m.kind for case in cases for m in made(case).captured[1].values()}
    assert kinds == set(MODULES[name].card.maps)


def test_gates_can_suppress_and_rows_sum_to_one(subject):
    for found in subject.captured[1].values():
        if found.kind == "factors":
            continue
        values = np.asarray(found.values)
        if found.kind in GATES:
            assert 0 < values.min() < 0.5, "gates reach below a half"
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
        rngs, mutable = {"dropout": jax.random.key(0)}, ["batch_stats"]
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


def test_masked_sources_change_nothing_and_others_do(subject):
    for_tokens(subject, "mask")
    for_tokens(subject, "cross")
    q, kv = subject.x, jnp.flip(subject.x, axis=1)[:, :7]
    mask = np.ones((1, 1, 1, 7), bool)
    mask[..., 2:4] = False
    apply = lambda kv: subject.apply(subject.variables, q, kv, mask=mask)
    y = apply(kv)
    close(apply(kv.at[:, 2:4].add(5.0)), y, rtol=1e-6, atol=1e-6)
    without = jnp.concatenate([kv[:, :2], kv[:, 4:]], axis=1)
    close(subject.apply(subject.variables, q, without), y)
    for source in (0, 1, 4, 5, 6):
        assert not np.allclose(apply(kv.at[:, source].add(1.0)), y, atol=1e-5)


def test_targets_have_masks_of_their_own(subject):
    for_tokens(subject, "mask")
    mask = np.ones((8, 1, 12, 12), bool)
    mask[1, :, 3, 5:] = False
    y = subject.apply(subject.variables, subject.x, mask=mask)
    differs = np.abs(y - subject.y).max(-1) > 1e-5
    assert np.argwhere(differs).tolist() == [[1, 3]]


def test_tokens_attend_to_themselves_and_commute_with_permutations(subject):
    for_tokens(subject, "cross")
    close(subject.apply(subject.variables, subject.x, subject.x), subject.y)
    order = np.random.default_rng(4).permutation(subject.x.shape[1])
    y = subject.apply(subject.variables, subject.x[:, order])
    close(y, subject.y[:, order])


def test_survives_a_checkpoint(subject):
    empty = jax.tree.map(jnp.zeros_like, subject.variables)
    restored = serialization.from_bytes(
        empty, serialization.to_bytes(subject.variables)
    )
    y = subject.apply(restored, subject.x)
    np.testing.assert_array_equal(y, subject.y)


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


def test_is_found_by_its_path(subject):
    kind, (_, settings) = type(subject.module), ALL[subject.case]
    path = f"{kind.__module__}:{kind.__qualname__}"
    assert attn.create(path, **settings) == subject.module
