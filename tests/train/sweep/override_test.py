"""Fields of configs: plain data, and overrides in the type of the field."""

import ml_collections
import pytest

from attn.train.sweep import override
from tests.train import small


def test_configs_may_be_config_dicts_and_keys_may_have_dots():
    config = ml_collections.ConfigDict({"a": {"b": (1, 2)}})
    assert override.plain(config) == {"a": {"b": [1, 2]}}
    assert override.plain({"a.b": {"c.d": 1}}) == {"a": {"b": {"c": {"d": 1}}}}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("train.steps", "5", 5),
        ("schedule.peak", "1", 1.0),
        ("schedule.peak", "3e-4", 3e-4),
        ("data.name", "12", "12"),
        ("train.average", "0.9", 0.9),
        ("train.eval_batch_size", "none", None),
        ("schedule.boundaries", "(2,3)", [2, 3]),
        ("model.slots.head", "cbam", "cbam"),
        ("model.slots.stage2/block.post.reduction", "4", 4),
        ("optimizer.nesterov", "true", True),
        ("model.fill", "{[1]: 2}", "{[1]: 2}"),  # no key can be a list
        ("model.fill", "-" * 99999 + "1", "-" * 99999 + "1"),  # nor a parser so deep
    ],
)
def test_overrides_take_the_type_of_the_field(field, text, value):
    config = small.config()
    override.override(config, field, text)
    for level in field.split("."):
        config = config[level]
    assert config == value
    assert type(config) is type(value)


def test_settings_may_be_given_to_an_attention_named_alone():
    config = small.config(model__slots={"block": {"post": "cbam"}})
    override.override(config, "model.slots.block.post.reduction", "4")
    assert config["model"]["slots"]["block"]["post"] == {"name": "cbam", "reduction": 4}


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("train.steps", "many", "config.train.steps must be int, got 'many'"),
        ("train.steps", "2.5", "config.train.steps must be int, got '2.5'"),
        ("schedule.peak", "true", "config.schedule.peak must be float, got 'true'"),
        ("trian.steps", "1", "unknown field 'config.trian.steps'; did you mean"),
        ("seed.a", "1", "unknown field 'config.seed.a'"),
        ("train", "1", "unknown field 'config.train'"),
    ],
)
def test_overrides_that_do_not_fit_are_one_sentence(field, text, says):
    with pytest.raises(ValueError, match=says):
        override.override(small.config(), field, text)
