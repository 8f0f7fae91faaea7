"""Fillings: their flat form, what overrides what, what is refused, and adapting."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from flax.core import FrozenDict

from attn.models import slots

PLACES = {"stem": 0, "block.residual": 2, "stage.end": 1}
SCOPES = {"stage1": {"block0": {}}, "stage2": {"block0": {}, "block1": {}}}
check = functools.partial(slots.check, places=PLACES, scopes=SCOPES)
SE = {"name": "squeeze_excite"}


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
        "block.residual": {"name": "squeeze_excite", "reduction": 8},
        "stage2/block.residual": {"name": "none"},
    }


def test_blocks_inside_stages_and_places_without_levels():
    nested = {"stem": "cbam", "stage2": {"end": "cbam", "block1": {"post": SE}}}
    assert list(slots.flatten(nested)) == ["stem", "stage2/end", "stage2/block1/post"]
    assert slots.flatten(None) == slots.flatten({}) == {}


def test_a_filling_with_lists_is_hashable():
    fill = slots.flatten({"stem": {"name": "any", "sizes": [2, 3]}})
    assert fill == {"stem": {"name": "any", "sizes": (2, 3)}}
    assert isinstance(hash(FrozenDict(fill)), int)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("cbam", "slots must map places to attentions.*'cbam'"),
        ({"name": "cbam"}, "slots must map places to attentions"),
        ({"stem": 3}, "'stem' takes the name of an attention.* got 3"),
        ({"stem": {"name": 3}}, "'stem' takes the name of an attention"),
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


def test_settings_of_the_host_complete_a_filling_and_never_overrule_it():
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
    name = lambda fill, place: fill[place]["name"]
    assert name(inside("stage1", "block0"), "block.residual") == "cbam"
    assert name(inside("stage2", "block0"), "block.residual") == "squeeze_excite"
    assert name(inside("stage2", "block1"), "block.residual") == "none"
    assert slots.filled(inside("stage2", "block1"), "block.residual") is None
    assert slots.filled(inside("stage1"), "stage.end") is not None
    assert slots.filled(inside("stage2"), "stage.end") is None


def test_the_contract_comes_from_the_card_or_the_signature():
    find = slots.modules.find
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
