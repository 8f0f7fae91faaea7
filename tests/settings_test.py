"""Settings that do not fit fail in one sentence that says what would."""

import dataclasses
from typing import Any, Literal

import pytest

import attn
import attn.modules
from attn import settings


@dataclasses.dataclass
class Target:
    """Has a setting of every type that configs use."""

    width: int
    ratio: float = 0.5
    bias: bool = True
    kind: Literal["avg", "max"] = "avg"
    size: tuple[int, int] | None = None
    widths: tuple[int, ...] = ()
    label: str | None = None
    dtype: Any = None
    ratio_of: settings.Positive = 1
    count: settings.Positive | None = None
    parent: Any = None  # those of flax are no settings
    name: str | None = None
    derived: int = dataclasses.field(init=False, default=7)


def build(**given):
    return settings.build(Target, "thing", "target", given)


FITS = [
    ("width", 3, True),
    ("width", 3.0, False),
    ("width", True, False),
    ("width", "3", False),
    ("width", None, False),
    ("ratio", 0.25, True),
    ("ratio", 1, True),
    ("ratio", True, False),
    ("ratio", "0.25", False),
    ("bias", False, True),
    ("bias", 0, False),
    ("kind", "max", True),
    ("kind", "min", False),
    ("kind", None, False),
    ("size", (4, 5), True),
    ("size", [4, 5], True),
    ("size", None, True),
    ("size", (4,), False),
    ("size", (4, 5, 6), False),
    ("size", (4, 5.5), False),
    ("size", 4, False),
    ("widths", (), True),
    ("widths", (1, 2, 3), True),
    ("widths", (1, "2"), False),
    ("widths", "12", False),
    ("ratio_of", 3, True),
    ("ratio_of", 0, False),
    ("ratio_of", -3, False),
    ("ratio_of", True, False),
    ("count", 2, True),
    ("count", 0, False),
    ("count", None, True),
    ("label", "a", True),
    ("label", None, True),
    ("label", 1, False),
    ("dtype", object(), True),  # what plain data cannot tell passes
]


@pytest.mark.parametrize(("key", "value", "fits"), FITS)
def test_types(key, value, fits):
    given = {"width": 1} | {key: value}
    if fits:
        assert getattr(build(**given), key) == value
        return
    with pytest.raises(ValueError, match=rf"^setting '{key}' of thing 'target'") as e:
        build(**given)
    assert repr(value) in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "min"}, "must be one of 'avg', 'max', got 'min'"),
        ({"width": "3"}, "must be int, got '3'"),
        ({"ratio": "x"}, "must be float, got 'x'"),
        ({"ratio_of": 0}, "must be a positive int, got 0"),
        ({"count": -1}, "must be a positive int or None, got -1"),
        ({"size": 4}, "must be tuple[int, int] or None, got 4"),
    ],
)
def test_a_wrong_type_names_the_right_one(given, says):
    with pytest.raises(ValueError) as error:
        build(**{"width": 1} | given)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("key", "hint"), [("widht", "did you mean 'width'?"), ("zzz", "(valid: width, ")]
)
def test_an_unknown_setting_lists_the_valid_ones(key, hint):
    with pytest.raises(ValueError) as error:
        build(width=1, **{key: 2})
    said = str(error.value)
    assert said.startswith(f"unknown setting of thing 'target' '{key}'")
    assert hint in said
    valid = "width, ratio, bias, kind, size, widths, label, dtype, ratio_of, count"
    assert f"(valid: {valid})" in said
    assert ("did you mean" in said) == ("did you" in hint)


@pytest.mark.parametrize("key", ["parent", "name", "derived"])
def test_what_is_no_setting_cannot_be_set(key):
    with pytest.raises(ValueError, match="unknown setting"):
        build(width=1, **{key: None})


def test_a_missing_setting_is_named():
    with pytest.raises(ValueError, match="needs the setting 'width'"):
        build(ratio=0.1)


def test_defaults_fill_the_rest():
    assert build(width=2) == Target(width=2)


def test_choose_finds_names_and_paths():
    table = {"alpha": 1, "beta": 2}
    assert settings.choose(table, "letter", "beta") == 2
    found = settings.choose(table, "letter", "attn.modules.card:Paper")
    assert found is attn.modules.Paper


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bta", "unknown letter 'bta'; did you mean 'beta'? (valid: alpha, beta)"),
        ("q", "unknown letter 'q' (valid: alpha, beta)"),
        (3, "unknown letter 3 (valid: alpha, beta)"),
        (None, "unknown letter None (valid: alpha, beta)"),
        ("no_such_package.file:Thing", "cannot import letter 'no_such_package.file"),
        ("attn.settings:nothing", "cannot import letter 'attn.settings:nothing'"),
        ("..a:b", "cannot import letter '..a:b'"),
        (":b", "cannot import letter ':b'"),
        ("os.path:join", "letter 'os.path:join' is no module or dataclass"),
        (["alpha"], "unknown letter ['alpha']; did you mean 'alpha'?"),
    ],
)
def test_choose_says_what_there_is(name, says):
    with pytest.raises(ValueError) as error:
        settings.choose({"alpha": 1, "beta": 2}, "letter", name)
    assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reducton": 8}, "did you mean 'reduction'?"),
        ({"reduction": "8"}, "setting 'reduction' of attention 'squeeze_excite'"),
        ({"squeeze": "sum"}, "must be one of 'avg', 'max', 'none', got 'sum'"),
    ],
)
def test_mechanisms_are_built_with_the_same_errors(given, says):
    with pytest.raises(ValueError) as error:
        attn.create("squeeze_excite", **given)
    assert says in str(error.value)
