"""The cases of the conformance tests: every mechanism, and each variant of it."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.modules import MODULES

# Settings with which each mechanism runs here, small ones; its variants go on top.
CASES = {
    "additive_soft": {"hidden": 12},
    "cbam": {"reduction": 4, "kernel_size": 3},
    "class_attention": {},
    "cross_attention": {},
    "cross_covariance": {},
    "efficient_channel": {},
    "gated_soft": {"hidden": 12},
    "glimpse_sensor": {},
    "global_context": {"reduction": 4},
    "global_second_order": {"along": "both", "channels": 6, "side": 3},
    "hard_attention": {"hidden": 12},
    "linear": {},
    "linformer": {"rank": 5},
    "mixed_high_order": {"order": 3},
    "multi_head": {},
    "neighborhood": {"window": 3},
    "non_local": {},
    "outlook": {},
    "performer": {"num_features": 24},
    "pixel_attention": {"reduction": 4},
    "polarized": {},
    "second_order_channel": {"reduction": 4},
    "second_order_non_local": {},
    "selective_kernel": {"groups": 4, "least": 6},
    "shifted_window": {"window": (3, 2)},
    "simam": {},
    "spatial_transformer": {"widths": (4, 5, 6), "downsample": 1, "kernel_size": 3},
    "squeeze_excite": {"reduction": 4},
    "talking_heads": {},
    "window": {"window": (3, 2)},
}
# Further settings worth all of these tests.
MORE = [
    ("cbam", {"spatial": "conv1x1", "order": "parallel"}),
    ("squeeze_excite", {"squeeze": "none"}),
    (
        "multi_head",
        {
            "num_kv_heads": 2,
            "key_dim": 3,
            "gate": "headwise",
            "normalize": "entmax15",
        },
    ),
    ("non_local", {"pairwise": "gaussian", "subsample": "projected"}),
    ("non_local", {"pairwise": "dot_product"}),
    ("non_local", {"pairwise": "concatenation"}),
    ("spatial_transformer", {"transform": "projective", "padding": "border"}),
    ("spatial_transformer", {"transform": "thin_plate", "padding": "reflection"}),
]
SHAPES = {"map": (8, 9, 12, 16), "token": (8, 12, 16)}
GRID = (3, 4)  # of the tokens, for modules whose card supports "grid"


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
TOKEN = [case for case, (name, _) in ALL.items() if attn.card(name).contract == "token"]


@dataclasses.dataclass
class Subject:
    """One case: the module, variables that are not the initial ones, and an input."""

    case: str
    module: nn.Module
    variables: Any
    x: jax.Array

    @property
    def card(self):
        return self.module.card

    @functools.cached_property
    def plain(self):
        """`module.apply`, not compiled, on the grid of the tokens if it needs one."""
        return functools.partial(
            self.module.apply, train=False, **on_grid(self.module, GRID)
        )

    @functools.cached_property
    def apply(self):
        return jax.jit(self.plain, static_argnames=("causal",))

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
    """The argument `grid`, for modules that cannot do without."""
    return {"grid": grid} if "grid" in module.card.supports else {}


def initialise(module, *inputs, **options):
    options = {**on_grid(module, GRID), **options}
    return module.init(jax.random.key(1), *inputs, train=False, **options)


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
    """The subject of a case, with its compiled functions, one for all tests."""
    name, settings = ALL[case]
    module = attn.create(name, **settings)
    rng = np.random.default_rng(0)
    shape = SHAPES[module.card.contract]
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    variables = jax.jit(functools.partial(initialise, module))(x)
    return Subject(case, module, disturb(variables), x)


def need(subject, *features):
    """Skips the test unless the card supports all of `features`."""
    for feature in features:
        if feature not in subject.card.supports:
            pytest.skip(f"no {feature!r}")


def close(got, want, *, rtol=1e-5, atol=3e-5):
    # Programs compiled apart round apart, and what is read between two pixels differs
    # by their difference times the rounding of the position.
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)
