"""Fillings: their flat form, what overrides what, what is refused, and adapting."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import FrozenDict

from attn import capture, models, settings
from attn.models import slots
from attn.models.base import Slotted
from attn.modules import find

PLACES = {"stem": 0, "block.residual": 2, "stage.end": 1}
SCOPES = {"stage1": {"block0": {}}, "stage2": {"block0": {}, "block1": {}}}
check = functools.partial(slots.check, places=PLACES, scopes=SCOPES)
SE = {"name": "squeeze_excite"}
PROBE = "tests.models.probe"


class Place(Slotted):
    """One slot, of a map or, with sources, of tokens."""

    @nn.compact
    def __call__(self, x, kv=None, **options):
        if x.ndim == 4:
            return slots.attend(self, "block.stem", x, train=False)
        return slots.attend_tokens(self, "block.stem", x, kv, train=False, **options)


def place(*chain):
    return Place(fill=FrozenDict(slots.flatten({"block.stem": list(chain)})))


@pytest.mark.parametrize(
    "same",
    [
        {"block.residual": {**SE, "reduction": 8}, "stage2/block.residual": "none"},
        {
            "block": {"residual": {**SE, "reduction": 8}},
            "stage2/block": {"residual": None},
        },
        FrozenDict(
            {
                "block": {"residual": {**SE, "reduction": 8}},
                "stage2": {"block": {"residual": {"name": None, "reduction": 4}}},
            }
        ),
        ml_collections.ConfigDict(
            {
                "block": {"residual": {**SE, "reduction": 8}},
                "stage2": {"block": {"residual": {"name": "none"}}},
            }
        ),
    ],
)
def test_flattens_every_way_of_writing(same):
    assert slots.flatten(same) == {
        "block.residual": ({"name": "squeeze_excite", "reduction": 8},),
        "stage2/block.residual": (),
    }
    assert slots.flatten(slots.flatten(same)) == slots.flatten(same)


@pytest.mark.parametrize("kind", [dict, FrozenDict, ml_collections.ConfigDict])
def test_a_place_takes_a_list(kind):
    chain = ["cbam", {**SE, "reduction": 8}, "none"]
    filling = kind({"stem": chain, "stage1": {"stage": {"end": []}}})
    assert slots.flatten(filling) == {
        "stem": ({"name": "cbam"}, {"name": "squeeze_excite", "reduction": 8}),
        "stage1/stage.end": (),
    }


def test_blocks_inside_stages_and_places_without_levels():
    nested = {"stem": "cbam", "stage2": {"end": "cbam", "block1": {"post": SE}}}
    assert list(slots.flatten(nested)) == ["stem", "stage2/end", "stage2/block1/post"]
    assert slots.flatten(None) == slots.flatten({}) == {}


def test_a_filling_with_lists_is_hashable():
    fill = slots.flatten({"stem": {"name": "any", "sizes": [2, 3]}})
    assert fill == {"stem": ({"name": "any", "sizes": (2, 3)},)}
    assert isinstance(hash(FrozenDict(fill)), int)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("cbam", "slots must map places to attention modules.*'cbam'"),
        ({"name": "cbam"}, "slots must map places to attention modules"),
        ({"stem": 3}, "'stem' takes the name of an attention.* got 3"),
        ({"stem": {"name": 3}}, "'stem' takes the name of an attention"),
        ({"stem": ["cbam", 3]}, "'stem' takes .* or a list of these, got 3"),
        ({"stem": [["cbam"]]}, "'stem' takes .* or a list of these, got"),
        ({"stem": ["cbam", {"reduction": 8}]}, "'stem' takes .* got {'reduction'"),
        ({"stem": [SE, "cbm"]}, "slot 'stem'.*'cbm'; did you mean 'cbam'"),
        (
            {"block.residual": "cbam", "block": {"residual": "cbam"}},
            "'block.residual' is filled twice",
        ),
        ({"sten": "cbam"}, r"'sten'; did you mean 'stem'\? \(valid: stem, block.re"),
        ({"block/residual": "cbam"}, "unknown slot 'residual'"),
        ({"stage3/stage.end": "cbam"}, r"'stage3'.*\(valid: stage1, stage2\)"),
        ({"stage1/block1/block.residual": "cbam"}, r"'block1'.*\(valid: block0\)"),
        ({"stage1/stem": "cbam"}, "'stem' can be narrowed by at most 0"),
        ({"stem": "squeeze_exite"}, "slot 'stem'.*did you mean 'squeeze_excite'"),
        (
            {"stem": {**SE, "redcution": 8}},
            "slot 'stem'.*'redcution'; did you mean 'reduction'",
        ),
        (
            {"stem": {**SE, "reduction": "8"}},
            "slot 'stem'.*must be a pos.*, got '8'",
        ),
        ({"stem": {**SE, "squeeze": "sum"}}, "slot 'stem'.*'avg', 'max'"),
        ({"stem": "tests.models.probe:Reader"}, "slot 'stem'.*needs.*'num_heads'"),
        ({"stem": "tests.models.probe:Gone"}, "slot 'stem': cannot import"),
        ({"stem": "tests.models.probe:jnp"}, "slot 'stem'"),
    ],
)
def test_refuses_in_one_sentence(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        check(wrong)
    assert "\n" not in str(caught.value)


def test_settings_of_the_model_complete_a_filling_and_never_overrule_it():
    reader = "tests.models.probe:Reader"
    check({"stem": reader}, given={"num_heads": 3})
    with pytest.raises(ValueError, match="must be int, got 'many'"):
        check({"stem": {"name": reader, "num_heads": "many"}}, given={"num_heads": 3})


def test_narrower_keys_override_wider_ones_inside_their_scope_only():
    fill = check(
        {
            "stage2/block1/block.residual": "none",
            "block.residual": "cbam",
            "stage2/block.residual": SE,
            "stage1/stage.end": "cbam",
        }
    )
    inside = lambda *path: functools.reduce(slots.narrow, path, fill)
    name = lambda fill, place: fill[place][0]["name"]
    assert name(inside("stage1", "block0"), "block.residual") == "cbam"
    assert name(inside("stage2", "block0"), "block.residual") == "squeeze_excite"
    assert slots.filled(inside("stage2", "block1"), "block.residual") == ()
    assert slots.filled(inside("stage1"), "stage.end") == (find("cbam"),)
    assert slots.filled(inside("stage2"), "stage.end") == ()


def test_the_contract_comes_from_the_card_or_the_signature():
    assert slots.contract(find("squeeze_excite")) == "map"
    assert slots.contract(find("multi_head")) == "token"
    assert slots.contract(find("tests.models.probe:Double")) == "map"
    assert slots.contract(find("tests.models.probe:Reader")) == "token"


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_map_attention_gets_the_map_of_the_tokens(prefix):
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, prefix + 3 * 5, 4)).astype(np.float32)
    ramp = slots.modules.create("tests.models.probe:Ramp")
    got = ramp.apply({}, tokens, method=_on_tokens)
    want = tokens.copy()
    for row in range(3):
        for column in range(5):
            want[:, prefix + 5 * row + column] *= 1 + row + 10 * column
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_token_attention_gets_all_tokens_and_their_grid_if_they_have_one(prefix):
    tokens = jnp.ones((2, prefix + 3 * 5, 4))
    ramp = slots.modules.create("tests.models.probe:TokenRamp", wants_grid=prefix == 0)
    got = ramp.apply({}, tokens, method=_on_tokens)
    place = np.arange(prefix + 15)
    if prefix == 0:
        place = place // 5 + 10 * (place % 5)
    np.testing.assert_allclose(got, (1 + place)[None, :, None] * np.ones((2, 1, 4)))


def test_with_sources_of_its_own_the_grid_is_theirs():
    x, sources = jnp.ones((2, 4, 8)), jnp.ones((2, 6, 8))
    host = place({"name": "cross_attention", "num_heads": 2})
    variables = host.init(jax.random.key(0), x, sources, grid=(2, 3))

    class Whole(nn.Module):
        @nn.compact
        def __call__(self, x, kv, *, train):
            del train
            return host.clone(parent=self, name="host")(x, kv, grid=(2, 3))

    inside = {"params": {"host": variables["params"]}}
    _, maps = capture(Whole(), inside, x, sources)
    assert [found.grid for found in maps.values()] == [(2, 3)]


def test_a_map_attention_on_tokens_must_keep_the_map():
    crop = slots.modules.create("tests.models.probe:Crop")
    with pytest.raises(ValueError, match=r"\(3, 5, 4\), but Crop made \(2, 5, 4\)"):
        crop.apply({}, jnp.ones((1, 15, 4)), method=_on_tokens)


def _on_tokens(module, x):
    return slots.on_tokens(module, x, grid=(3, 5), train=False)


def test_a_real_attention_of_each_contract_runs_on_the_other_input():
    maps = jax.ShapeDtypeStruct((2, 3, 5, 8), jnp.float32)
    tokens = jax.ShapeDtypeStruct((2, 16, 8), jnp.float32)
    run = lambda module, method, x: jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, method=method)[0], x
    )
    on_map = functools.partial(slots.on_map, train=False)
    heads = slots.modules.create("multi_head", num_heads=2)
    gate = slots.modules.create("squeeze_excite")
    assert run(heads, on_map, maps).shape == maps.shape
    assert run(gate, _on_tokens, tokens).shape == tokens.shape


def test_a_list_is_applied_in_order_and_its_modules_are_numbered():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 8)).astype(np.float32)
    crop = f"{PROBE}:Crop"
    variables = jax.eval_shape(
        place(crop, SE, "cbam").init, jax.random.key(0), jnp.asarray(x)
    )
    assert set(variables["params"]) == {"stem1", "stem2"}  # Crop has none
    one = jax.eval_shape(place(SE).init, jax.random.key(0), jnp.asarray(x))
    assert set(one["params"]) == {"stem"}
    ramp = place(f"{PROBE}:Ramp", crop).apply({}, x)
    early = place(crop, f"{PROBE}:Ramp").apply({}, x)
    np.testing.assert_allclose(ramp, early)  # the last row is the one that goes
    doubled = place(f"{PROBE}:Double", f"{PROBE}:Double").apply({}, x)
    np.testing.assert_array_equal(doubled, 4 * x)
    squared = place(f"{PROBE}:Increment", f"{PROBE}:Double").apply({}, x)
    np.testing.assert_allclose(squared, 2 * (x + 1), rtol=1e-6)
    np.testing.assert_array_equal(place().apply({}, x), x)


def test_each_of_a_list_reads_the_same_sources():
    rng = np.random.default_rng(0)
    q, kv = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4))
    reader = {"name": f"{PROBE}:Reader", "num_heads": 1}
    got = place(reader, reader).apply({}, q, kv)
    np.testing.assert_allclose(got, q + 2 * kv.mean(1, keepdims=True), rtol=1e-5)


def test_options_are_handed_to_modules_that_take_them_only():
    x, mask = jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool)
    reader = {"name": f"{PROBE}:Reader", "num_heads": 1}
    place(reader).apply({}, x, causal=False, kv_mask=None)
    with pytest.raises(settings.Invalid, match="Reader does not take 'causal'"):
        place(reader).apply({}, x, causal=True)
    with pytest.raises(settings.Invalid, match=r"attends to maps.*lie on no grid"):
        place("cbam").apply({}, x)
    with pytest.raises(settings.Invalid, match=r"CBAM attends to .* not take kv_mask"):
        place("cbam").apply({}, x, grid=(1, 3), kv_mask=mask)
    with pytest.raises(settings.Invalid, match="not take keys and values"):
        place("cbam").apply({}, x, x, grid=(1, 3))


class Plain(nn.Module):
    """A model that has no slots."""

    num_classes: int

    @nn.compact
    def __call__(self, image, *, train):
        return nn.Dense(self.num_classes)(image.mean((1, 2)))


def test_a_model_without_slots_takes_an_empty_filling_only():
    name = f"{__name__}:Plain"
    assert models.create(name, num_classes=3, slots={}).num_classes == 3
    with pytest.raises(settings.Invalid, match="has no slots, got stage1; a model"):
        models.create(name, num_classes=3, slots={"stage1": "cbam"})
