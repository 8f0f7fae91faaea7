"""Pictures over training, which rows and steps are shown, and how many bytes."""

import json

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.draw import maps, style
from attn.report.read import results
from attn.report.sections import attention
from tests.report import papers


def drawn(root):
    rows = table.rows(results.read(root))
    return list(zip(rows, style.styles(rows), strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("looked") / "sweep"
    kinds, names = ["none", "affine", "projective"], ["r", "rts"]
    return papers.transformers(root, ["FCN"], kinds, names, seeds=2, images=4)


@pytest.mark.parametrize(
    ("steps", "chosen"),
    [
        ([0, 500, 1000], [0, 500, 1000]),
        (range(0, 5001, 500), [0, 500, 1000, 1500, 2000, 5000]),
        ([2**k for k in range(11)], [1, 8, 32, 64, 256, 1024]),
    ],
)
def test_steps_are_spaced_by_their_logarithm(steps, chosen):
    found = attention.spaced([(step, str(step)) for step in steps], 6)
    assert [step for step, _ in found] == chosen
    assert all(name == str(step) for step, name in found)


def test_a_row_shows_its_grids_and_what_they_read_step_by_step(trained):
    share = attention.Share(10**7)
    blocks, untold = attention.over_training(drawn(trained), share)
    assert untold == []
    assert [block["row"].label for block in blocks] == [
        f"FCN · {kind} · {name}"
        for name in ("r", "rts")
        for kind in ("affine", "projective")
    ]
    (strip,) = blocks[0]["strips"]
    assert [line["step"] for line in strip["steps"]] == [
        "step 0",
        "step 10",
        "step 20",
        "step 40",
        "step 80",
        "step 250",
    ]
    for line in strip["steps"]:
        assert len(line["pictures"]) == 2 * 4  # the grid on it and what it reads
    first, last = strip["steps"][0]["pictures"], strip["steps"][-1]["pictures"]
    assert all(a["source"] != b["source"] for a, b in zip(first, last, strict=True))
    assert share.left == 10**7 - sum(
        len(p["source"])
        for block in blocks
        for strip in block["strips"]
        for line in strip["steps"]
        for p in line["pictures"]
    )


def test_heat_over_training_has_one_scale(tmp_path):
    kinds = ["none", "affine"]
    root = papers.transformers(
        tmp_path / "s", ["FCN"], kinds, ["r"], seeds=1, images=2, looks=[5, 9]
    )
    place = root / "FCN-affine-r-0" / "looks"
    for step, height in ((5, 0.25), (9, 0.75)):
        heat = np.zeros((2, 7, 7))
        heat[:, 2, 3] = height
        images = np.zeros((2, 14, 14, 1), np.float32)
        found = [("stage1/spatial_map", "spatial_map", heat)]
        papers.write_maps(place / f"{step}.npz", images, np.zeros(2, int), found)
    (block,), _ = attention.over_training(drawn(root), attention.Share(10**7))
    (strip,) = block["strips"]
    assert strip["scale"] == ("0.000", "0.750")
    assert len(block["images"]) == 2
    before, after = (line["pictures"][0]["source"] for line in strip["steps"])
    assert before != after


def test_of_many_rows_kinds_and_columns_take_turns(tmp_path):
    root = papers.transformers(tmp_path / "s", seeds=1, images=1, looks=())
    blocks, others = attention.blocks(drawn(root), attention.Share(10**7), most=6)
    rows = [block["row"] for block in blocks]
    assert len({row.kind for row in rows}) == 6
    assert len({row.column for row in rows}) == 4
    assert not any("none" in row.kind for row in rows)  # they record no attention
    assert len(others) == 32 - 6


def test_pictures_end_when_their_share_is_used_up(trained):
    blocks, others = attention.blocks(drawn(trained), attention.Share(1))
    assert (len(blocks), len(others)) == (1, 5)
    blocks, untold = attention.over_training(drawn(trained), attention.Share(1))
    assert (len(blocks), len(untold)) == (1, 3)


def test_a_damaged_look_is_said(trained, tmp_path):
    root = papers.transformers(
        tmp_path / "s", ["FCN"], ["affine"], ["r"], seeds=1, images=1, looks=[1, 2]
    )
    (root / "FCN-affine-r-0" / "looks" / "1.npz").write_bytes(b"PK")
    (block,), _ = attention.over_training(drawn(root), attention.Share(10**7))
    (remark,) = block["remarks"]
    assert remark.startswith("its 1.npz cannot be read")
    assert [line["step"] for line in block["strips"][0]["steps"]] == ["step 2"]


def test_two_channels_are_red_and_cyan_and_rows_of_classes_one_word(tmp_path):
    images = np.zeros((2, 4, 6, 2), np.float32)
    images[0, 1, 2, 0] = 0.5
    images[0, 3, 5, 1] = 1.0
    labels = np.array([[1, 9, 10, 10, 10], [10] * 5])
    classes = [*"0123456789", "none"]
    papers.write_maps(tmp_path / "a.npz", images, labels, [], classes)
    attention, problem = maps.load(tmp_path / "a.npz", 8)
    assert problem is None
    assert attention.labels == ("19", "none")
    np.testing.assert_array_equal(attention.images[0, 1, 2], [0.5, 0, 0])
    np.testing.assert_array_equal(attention.images[0, 3, 5], [0, 1, 1])
    assert json.dumps(attention.predictions) == json.dumps(attention.labels)
