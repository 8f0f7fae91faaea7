"""Attention maps: which rows are shown, with what examples, and how many bytes."""

import json

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.draw import maps, style
from attn.report.read import results
from attn.report.sections import attention
from attn.report.sections.budget import Budget
from tests.report import papers


def drawn(root):
    rows = table.rows(results.read(root))
    return list(zip(rows, style.styles(rows), strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained") / "sweep"
    kinds, names = ["none", "affine", "projective"], ["r", "rts"]
    return papers.transformers(root, ["FCN"], kinds, names, seeds=2, images=4)


def test_of_many_rows_kinds_and_columns_take_turns(tmp_path):
    root = papers.transformers(tmp_path / "s", seeds=1, images=1, snapshots=())
    section = attention.section(drawn(root), Budget(10**7), most=6)
    rows = [block.row for block in section.blocks]
    assert len({row.kind for row in rows}) == 6
    assert len({row.column for row in rows}) == 4
    assert not any("none" in row.kind for row in rows)  # they record no attention
    assert len(section.others) == 32 - 6


def test_rows_that_record_no_attention_are_named_alone(trained):
    section = attention.section(drawn(trained), Budget(10**7))
    kinds = {block.row.kind for block in section.blocks}
    assert not any("none" in kind for kind in kinds) and len(section.blocks) == 4
    assert len(section.others) == 2
    alone = [pair for pair in drawn(trained) if "none" in pair[0].kind]
    blocks = attention.section(alone, Budget(10**7)).blocks
    assert [block.remarks for block in blocks] == [("it records no attention",)] * 2


def test_pictures_end_when_their_budget_is_used_up(trained):
    section = attention.section(drawn(trained), Budget(1))
    assert (len(section.blocks), len(section.others)) == (1, 5)


def test_two_channels_are_red_and_cyan_and_rows_of_classes_one_word(tmp_path):
    images = np.zeros((2, 4, 6, 2), np.float32)
    images[0, 1, 2, 0] = 0.5
    images[0, 3, 5, 1] = 1.0
    labels = np.array([[1, 9, 10, 10, 10], [10] * 5])
    classes = [*"0123456789", "none"]
    papers.write_maps(tmp_path / "a.npz", images, labels, [], classes)
    found, problem = maps.load(tmp_path / "a.npz", 8)
    assert problem is None
    assert found.captions == (("19 → 19", False), ("none → none", False))
    np.testing.assert_array_equal(found.images[0, 1, 2], [0.5, 0, 0])
    np.testing.assert_array_equal(found.images[0, 3, 5], [0, 1, 1])


def test_examples_that_are_no_images_have_captions_alone(tmp_path):
    root = papers.transformers(
        tmp_path / "s", ["FCN"], ["affine"], ["r"], seeds=1, images=1, snapshots=()
    )
    index = [{"path": "a/token_matrix", "kind": "token_matrix", "keys": ["m"]}]
    np.savez(
        root / "FCN-affine-r-0" / "attention.npz",
        m=np.random.default_rng(0).uniform(size=(3, 2, 4, 5)),
        captions=["abcde → edcba", "f → f", "g → h"],
        wrong=[False, False, True],
        index=json.dumps(index),
    )
    (block,) = attention.section(drawn(root), Budget(10**7)).blocks
    assert [e.picture for e in block.examples] == [None] * 3
    assert [(e.caption, e.wrong) for e in block.examples] == [
        ("abcde → edcba", False),
        ("f → f", False),
        ("g → h", True),
    ]
    (line,) = block.lines
    assert line.what == "matrix 4 x 5, mean over 2 heads"
    assert len(line.pictures) == 3
    assert block.remarks == ()
