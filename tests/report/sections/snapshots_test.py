"""Attention maps during training: which rows and steps are shown, and how."""

import numpy as np
import pytest

from attn.report.analyse import table
from attn.report.draw import style
from attn.report.read import results
from attn.report.sections import snapshots
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


@pytest.mark.parametrize(
    ("steps", "chosen"),
    [
        ([0, 500, 1000], [0, 500, 1000]),
        (range(0, 5001, 500), [0, 500, 1000, 1500, 2000, 5000]),
        ([2**k for k in range(11)], [1, 8, 32, 64, 256, 1024]),
    ],
)
def test_steps_are_spaced_by_their_logarithm(steps, chosen):
    found = snapshots.spaced([(step, str(step)) for step in steps], 6)
    assert [step for step, _ in found] == chosen
    assert all(name == str(step) for step, name in found)


def test_a_row_shows_its_grids_and_what_they_read_step_by_step(trained):
    budget = Budget(10**7)
    section = snapshots.section(drawn(trained), budget)
    assert section.others == ()
    assert [block.row.label for block in section.blocks] == [
        f"FCN · {kind} · {name}"
        for name in ("r", "rts")
        for kind in ("affine", "projective")
    ]
    (place,) = section.blocks[0].places
    assert [step.name for step in place.steps] == [
        f"step {step}" for step in (0, 10, 20, 40, 80, 250)
    ]
    for step in place.steps:
        assert len(step.pictures) == 2 * 4  # the grid on it and what it reads
    first, last = place.steps[0].pictures, place.steps[-1].pictures
    assert all(a.source != b.source for a, b in zip(first, last, strict=True))
    assert budget.left == 10**7 - sum(
        len(picture.source)
        for block in section.blocks
        for place in block.places
        for step in place.steps
        for picture in step.pictures
    )


def test_heat_over_training_has_one_scale(tmp_path):
    kinds = ["none", "affine"]
    root = papers.transformers(
        tmp_path / "s", ["FCN"], kinds, ["r"], seeds=1, images=2, snapshots=[5, 9]
    )
    folder = root / "FCN-affine-r-0" / "snapshots"
    for step, height in ((5, 0.25), (9, 0.75)):
        heat = np.zeros((2, 7, 7))
        heat[:, 2, 3] = height
        images = np.zeros((2, 14, 14, 1), np.float32)
        found = [("stage1/spatial_map", "spatial_map", heat)]
        papers.write_maps(folder / f"{step}.npz", images, np.zeros(2, int), found)
    (block,) = snapshots.section(drawn(root), Budget(10**7)).blocks
    (place,) = block.places
    assert place.scale == ("0.000", "0.750")
    assert len(block.examples) == 2
    before, after = (step.pictures[0].source for step in place.steps)
    assert before != after


def test_pictures_end_when_their_budget_is_used_up(trained):
    section = snapshots.section(drawn(trained), Budget(1))
    assert (len(section.blocks), len(section.others)) == (1, 3)


def test_a_damaged_snapshot_is_named(tmp_path):
    root = papers.transformers(
        tmp_path / "s", ["FCN"], ["affine"], ["r"], seeds=1, images=1, snapshots=[1, 2]
    )
    (root / "FCN-affine-r-0" / "snapshots" / "1.npz").write_bytes(b"PK")
    (block,) = snapshots.section(drawn(root), Budget(10**7)).blocks
    (remark,) = block.remarks
    assert remark.startswith("its 1.npz cannot be read")
    assert [step.name for step in block.places[0].steps] == ["step 2"]


def test_the_folder_of_older_work_directories_is_read(tmp_path):
    root = papers.transformers(
        tmp_path / "s", ["FCN"], ["affine"], ["r"], seeds=1, images=1, snapshots=[1, 2]
    )
    place = root / "FCN-affine-r-0"
    (place / "snapshots").rename(place / "looks")
    (block,) = snapshots.section(drawn(root), Budget(10**7)).blocks
    assert [step.name for step in block.places[0].steps] == ["step 1", "step 2"]


def test_without_snapshots_there_is_no_section(tmp_path):
    root = papers.transformers(
        tmp_path / "s", ["FCN"], ["affine"], ["r"], seeds=1, images=1, snapshots=()
    )
    assert snapshots.section(drawn(root), Budget(10**7)) is None
