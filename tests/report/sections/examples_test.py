"""Examples: every kind of field, and what a file lacks."""

import base64
import io
import json
import re

import numpy as np
import PIL.Image
import pytest
from PIL import ImageColor

from attn.report.analyse import table
from attn.report.draw import pictures, style
from attn.report.formats import page
from attn.report.read import results
from attn.report.sections import examples
from attn.report.sections.budget import Budget
from tests.report import papers, synthetic


def write(path, count=3):
    """A file with a field of each kind; the second text differs from its target."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 28, 56, 1), np.float32)
    boxes = np.tile([[4.0, 6.0, 20.0, 26.0], [0, 0, 0, 0]], (count, 1, 1))
    low, high = rng.uniform(size=(2, count, 14, 14, 3))
    index = [
        {"name": "image", "kind": "image", "keys": ["image"]},
        {"name": "found", "kind": "boxes", "keys": ["b", "n"], "on": "image"},
        {"name": "output", "kind": "pair", "keys": ["low", "high"]},
        {"name": "way", "kind": "path", "keys": ["p", "s"], "on": "image"},
        {"name": "seen", "kind": "mosaic", "keys": ["m"]},
        {"name": "stands", "kind": "pose", "keys": ["j", "l"], "on": "image"},
        {"name": "target", "kind": "text", "keys": ["t"]},
        {"name": "written", "kind": "text", "keys": ["w"], "expected": "target"},
    ]
    np.savez(
        path,
        image=images,
        b=boxes,
        n=np.array([["7", ""]] * count),
        low=low,
        high=high,
        p=np.tile(np.array([[-0.5, -0.5], [0.5, 0.25]]), (count, 1, 1)),
        s=np.tile([6, 10], (count, 1)),
        m=np.zeros((count, 2, 3, 4, 5, 1))
        + np.linspace(0, 1, 6).reshape(1, 2, 3, 1, 1, 1),
        j=np.tile([[8.5, 4.5], [8.5, 20.5], [40.5, 20.5], [np.nan] * 2], (count, 1, 1)),
        l=np.tile([[0, 1], [1, 2], [2, 3]], (count, 1, 1)),
        t=np.array([f"a {i}" for i in range(count)]),
        w=np.array([f"a {i + (i == 1)}" for i in range(count)]),
        index=json.dumps(index),
    )


@pytest.fixture
def root(tmp_path):
    root = synthetic.sweep(tmp_path / "s", ["none", "cbam"], seeds=2, images=1)
    write(root / "cbam-1" / "examples.npz")
    return root


def drawn(root):
    rows = table.rows(results.read(root))
    return list(zip(rows, style.styles(rows), strict=True))


def pixels(picture):
    data = base64.b64decode(picture.source.partition(",")[2])
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


def test_each_kind_of_field_has_its_line(root):
    section = examples.section(drawn(root), Budget(10**7))
    (block,) = section.blocks
    assert (block.row.label, block.point.name) == ("cbam", "cbam-1")
    assert block.remarks == ()
    lines = {line.name: line.cells for line in block.lines}
    counts = {name: len(cells[0].pictures) for name, cells in lines.items()}
    assert counts == {
        "image": 1,
        "found": 1,
        "output": 3,
        "way": 1,
        "seen": 1,
        "stands": 1,
        "target": 0,
        "written": 0,
    }
    assert [cell.text for cell in lines["written"]] == ["a 0", "a 2", "a 2"]
    assert [cell.wrong for cell in lines["written"]] == [False, True, False]
    assert not any(cell.wrong for cell in lines["target"])


def test_the_legend_tells_of_what_is_shown_alone(root):
    section = examples.section(drawn(root), Budget(10**7))
    kinds = ("pair", "boxes", "path", "pose")
    assert section.legend == tuple(examples.LEGEND[kind] for kind in kinds)
    assert section.marked
    path = root / "cbam-1" / "examples.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    index = json.loads(str(arrays["index"]))
    index = [entry for entry in index if entry["name"] in ("image", "target")]
    np.savez(path, **(arrays | {"index": json.dumps(index)}))
    section = examples.section(drawn(root), Budget(10**7))
    assert (section.legend, section.marked) == ((), False)
    assert set(examples.LEGEND) < set(examples.KINDS)


def test_words_stand_under_what_they_read_in_a_row_an_example(root):
    images = np.zeros((2, 28, 56, 1), np.float32)
    words = np.array([["a", "small", "7"], ["a", "0", ""]])
    np.savez(
        root / "cbam-1" / "examples.npz",
        image=images,
        v=np.random.default_rng(0).uniform(size=(2, 3, 4, 8)),
        w=words,
        index=json.dumps(
            [
                {"name": "image", "kind": "image", "keys": ["image"]},
                {"name": "read", "kind": "words", "keys": ["v", "w"], "on": "image"},
            ]
        ),
    )
    section = examples.section(drawn(root), Budget(10**7))
    assert section.legend == (examples.LEGEND["words"],)
    image, read = section.blocks[0].lines
    assert (image.titled, read.titled) == (False, True)
    text = page.environment().get_template("examples.html").render(found=section)
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    titles = [re.findall(r"<figcaption>(.*?)</figcaption>", row) for row in rows]
    assert titles == [[], ["a", "small", "7"], ["a", "0"]]
    assert [row.count("<img") for row in rows] == [2, 3, 2]


def test_a_box_lies_where_its_pixels_are(root):
    (block,) = examples.section(drawn(root), Budget(10**7)).blocks
    picture = block.lines[1].cells[0].pictures[0]
    assert (picture.width, picture.height) == (112, 56)  # twice as large
    lit = np.argwhere(pixels(picture).any(axis=-1))
    assert lit.max(axis=0).tolist() == [51, 39]
    # its name is above, and narrower
    assert lit[:, 1].min() == 8 and lit[lit[:, 0] < 12][:, 1].max() < 30
    edge = [place for place in lit.tolist() if place[0] >= 12 and place[1] > 30]
    assert min(row for row, _ in edge) == 12


def test_boxes_of_a_class_have_its_colour():
    image = np.zeros((28, 56, 3), np.float32)
    places = np.array([[2.0, 2.0, 12.0, 20.0], [20.0, 2.0, 30.0, 20.0]])
    lower = lambda *colours: np.asarray(
        pictures.boxes(image, places, ["", ""], *colours)
    )[38, [12, 50]]
    assert np.ptp(lower([4, 4]), axis=0).max() == 0
    assert np.ptp(lower(), axis=0).max() > 50
    wanted = [ImageColor.getrgb(style.OKABE_ITO[n]) for n in (4, 1)]
    np.testing.assert_array_equal(lower([4, 1]), wanted)


def test_a_pair_ends_with_its_difference(root):
    (block,) = examples.section(drawn(root), Budget(10**7)).blocks
    low, high, apart = (pixels(p) / 255 for p in block.lines[2].cells[0].pictures)
    wanted = np.minimum(2 * np.abs(low - high), 1)
    np.testing.assert_allclose(apart, wanted, atol=0.02)


def test_a_path_leads_from_a_ring_to_a_dot_through_what_is_seen(root):
    (block,) = examples.section(drawn(root), Budget(10**7)).blocks
    (picture,) = block.lines[3].cells[0].pictures
    image = pixels(picture)
    assert image.shape == (56, 112, 3)
    lit = image.max(axis=-1) > 100
    # the full dot, and the ring, to the left of it away from the line
    assert lit[35, 84] and lit[14, 22:25].any() and not lit[14, 26]
    assert lit[25, 56]  # halfway, on the line
    rows, columns = np.nonzero(lit)
    # frames of 6 x 10 pixels round both, in pictures twice as large
    assert (columns.min(), columns.max()) == (18, 93)
    assert (rows.min(), rows.max()) == (8, 40)


def test_a_mosaic_has_its_images_in_rows(root):
    (block,) = examples.section(drawn(root), Budget(10**7)).blocks
    image = pixels(block.lines[4].cells[0].pictures[0])
    height, width = image.shape[:2]
    assert height / width == pytest.approx(2 * 4 / (3 * 5), rel=0.05)
    middles = image[[height // 4, 3 * height // 4]][:, np.array([1, 3, 5]) * width // 6]
    wanted = np.linspace(0, 255, 6).reshape(2, 3)
    np.testing.assert_allclose(middles[..., 0], wanted, atol=3)


def test_a_pose_has_limbs_between_its_joints(root):
    (block,) = examples.section(drawn(root), Budget(10**7)).blocks
    (picture,) = block.lines[5].cells[0].pictures
    image = pixels(picture).astype(int)
    assert image.shape == (56, 112, 3)
    lit = image.max(axis=-1) > 100
    # joints are pale, in pictures twice as large
    for x, y in ((17, 9), (17, 41), (81, 41)):
        assert image[y - 1 : y + 1, x - 1 : x + 1].min(axis=-1).max() > 150
    first, second = image[25, 17], image[41, 49]
    wanted = [ImageColor.getrgb(colour) for colour in style.OKABE_ITO[:2]]
    np.testing.assert_allclose([first, second], wanted, atol=40)
    rows, columns = np.nonzero(lit)
    assert (rows.min(), rows.max()) == pytest.approx((9, 41), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((17, 81), abs=2)


def test_what_cannot_be_shown_is_named(root):
    path = root / "cbam-1" / "examples.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    index = json.loads(str(arrays["index"]))
    index[0] |= {"kind": "video"}
    index[1] |= {"on": "nothing"}
    np.savez(path, **(arrays | {"index": json.dumps(index)}))
    (block,) = examples.section(drawn(root), Budget(10**7)).blocks
    named = [line.name for line in block.lines]
    assert named == ["output", "way", "seen", "stands", "target", "written"]
    first, second = block.remarks
    assert first == "image is not shown: no picture of the kind 'video'"
    assert second.startswith("found is not shown: ")


def test_a_damaged_file_is_named(root):
    path = root / "cbam-1" / "examples.npz"
    path.write_bytes(path.read_bytes()[:300])
    (block,) = examples.section(drawn(root), Budget(10**7)).blocks
    assert block.lines == ()
    assert block.remarks[0].startswith("its examples.npz cannot be read")


def test_pictures_end_when_their_budget_is_used_up(root):
    write(root / "none-0" / "examples.npz")
    section = examples.section(drawn(root), Budget(1))
    assert [block.row.label for block in section.blocks] == ["none"]
    assert section.others == ("cbam",)


def test_without_the_file_there_is_no_section(tmp_path):
    root = papers.reductions(tmp_path / "s", ["none"], seeds=1, images=1)
    assert examples.section(drawn(root), Budget(10**7)) is None


def test_heat_is_over_the_image_with_the_box_or_place_that_asks():
    image = np.zeros((56, 112, 3), np.float32)
    share = np.zeros((2, 4), np.float32)
    share[1, 3] = 1.0  # the lower right part
    box = np.asarray(
        pictures.marked_heat(image, share, np.array([10.0, 8.0, 40.0, 30.0])), int
    )
    assert box.shape == (56, 112, 3)
    bright = box.sum(axis=-1) > 300
    assert bright[30:, 90:].all()
    rows, columns = np.nonzero(bright[:, :60])
    # the edges of the box, two pixels wide, at most a pixel beside it
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (10, 8, 39, 29)
    assert not bright[12:26, 14:36].any()
    place = pictures.marked_heat(image, share, np.array([28.0, 14.0]))
    rows, columns = np.nonzero((np.asarray(place, int).sum(axis=-1) > 300)[:, :60])
    assert abs(columns.mean() - 28) < 0.6 and abs(rows.mean() - 14) < 0.6


def test_each_heat_runs_from_its_lowest_to_its_highest_value():
    np.testing.assert_allclose(
        examples._share(np.array([[2.0, 4.0], [3.0, 2.0]])), [[0, 1], [0.5, 0]]
    )
    assert (examples._share(np.full((2, 3), 7.0)) == 0).all()
