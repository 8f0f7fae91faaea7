"""What cards say is well formed, and the table finds, lists and builds by them."""

import dataclasses
import pathlib
import re
import typing

import numpy as np
import pytest

import attn
from attn import modules
from attn.modules import MODULES
from attn.modules.capture import Kind
from attn.modules.card import FAMILIES

each = pytest.mark.parametrize("name", list(MODULES))
OPTIONS = {"mask", "kv_mask", "causal", "decode"}  # of the token contract


@each
def test_card_is_well_formed(name):
    card = attn.card(name)
    assert card.family in FAMILIES
    assert card.contract in ("map", "token")
    assert card.maps
    assert set(card.maps) <= set(typing.get_args(Kind))
    assert isinstance(card.supports, frozenset)
    assert set() == OPTIONS & card.supports or card.contract == "token"
    if card.paper.arxiv:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", card.paper.arxiv)
        # The year of the identifier is that of the preprint, a year before at most.
        assert card.paper.year - 2000 - int(card.paper.arxiv[:2]) in (0, 1)
    elif card.paper.doi:
        assert re.fullmatch(r"10\.\d{4,}/\S+", card.paper.doi)
    else:
        assert re.fullmatch(r"https://\S+", card.paper.url)
    for text in (card.paper.title, card.paper.authors, card.formula, card.complexity):
        assert text.strip()
        assert "\n" not in text


def test_a_card_knows_what_can_be_supported():
    card = attn.card("multi_head")
    with pytest.raises(ValueError, match=r"supports some of .*, got \['casual'\]"):
        dataclasses.replace(card, supports=frozenset({"casual"}))


@each
def test_family_is_the_folder_and_the_name_is_the_file(name):
    _, _, family, file = MODULES[name].__module__.split(".")
    assert (family, file) == (attn.card(name).family, name)


@each
def test_the_first_variant_is_the_default_and_the_others_differ(name):
    variants = attn.card(name).variants
    built = [attn.create(name, **settings) for settings in variants.values()]
    if built:
        assert built[0] == attn.create(name)
    assert len(set(built)) == len(built)


@each
def test_docstring_tells_every_setting(name):
    module = MODULES[name]
    for field in dataclasses.fields(module):
        if field.name not in ("parent", "name"):
            line = rf"^ +(\w+, )*{field.name}(, \w+)*: "
            assert re.search(line, module.__doc__, re.M), field.name


@each
def test_cites_the_paper_in_the_file(name):
    module = MODULES[name]
    source = pathlib.Path(__import__(module.__module__, fromlist="x").__file__)
    assert attn.card(name).paper.link in source.read_text().split("import")[0]


def test_lists_names_by_family_and_contract():
    assert attn.names() == sorted(MODULES)
    assert "squeeze_excite" in attn.names("channel")
    assert "multi_head" not in attn.names("channel")
    assert "multi_head" in modules.names(contract="token")
    assert not set(modules.names(contract="token")) & set(modules.names(contract="map"))
    assert attn.names("no such family") == []


@pytest.mark.parametrize("ask", [attn.card, attn.create])
def test_an_unknown_name_is_one_sentence_with_the_nearest(ask):
    with pytest.raises(ValueError, match=r"^unknown attention 'cbm'") as error:
        ask("cbm")
    assert "did you mean 'cbam'?" in str(error.value)
    assert all(name in str(error.value) for name in MODULES)


def test_what_has_no_card_says_so():
    with pytest.raises(ValueError, match=r"'flax\.linen:Dense' has no card"):
        attn.card("flax.linen:Dense")


def test_numbers_of_numpy_are_settings():
    module = attn.create("squeeze_excite", reduction=np.int64(4))
    assert module.reduction == 4 and type(module.reduction) is int
